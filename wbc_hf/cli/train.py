"""`wbc-hf train`, and what `train.py` runs: fine-tuning a classifier."""

import logging
import sys
from collections.abc import Sequence

import typer

from wbc_hf.cli.shared import exit_on_error
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.files import is_full_disk
from wbc_hf.safe_text import say

# transformers' own parser reads the words, `--help` too.
PASS_ON_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(context: typer.Context) -> None:
    """Fine-tune a ResNet-50 on labelled images of cells and evaluate it on the test split.

    `wbc-hf train --help` lists the arguments, which `train.py` takes as well.
    """
    run_training(context.args)


def run_training(argv: Sequence[str]) -> None:
    """Train as the command line says.

    Raises:
        WbcError: An argument or the data cannot be used, or the disk is full.
        SystemExit: 130 after Ctrl-C.
    """
    from transformers.utils.logging import disable_progress_bar

    with needs_extra("train"):
        # Now, and not hours later: the report draws figures, the trainer logs to TensorBoard.
        import matplotlib  # noqa: F401
        import tensorboard  # noqa: F401

        from wbc_hf.training import parse, run

    logging.getLogger("wbc_hf").setLevel(logging.INFO)
    disable_progress_bar()  # of loading and saving weights; the training keeps its own
    try:
        run(*parse(argv))
    except KeyboardInterrupt:
        say("train.py: stopped. With --resume the same command resumes where it stopped.", error=True)
        sys.exit(130)
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise WbcError(
            "there is no room left to write to. Checkpoints that are whole stay so: make room, and the same command "
            "with --resume resumes there."
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Run `train.py`.

    Raises:
        SystemExit: 2 with a message where an argument or the data cannot be used, 130 after Ctrl-C.
    """
    with exit_on_error("train.py"):
        run_training(sys.argv[1:] if argv is None else argv)
