"""What several commands share: input files, text that is safe on a terminal, and how errors end a program."""

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import typer

from wbc_hf.errors import WbcError
from wbc_hf.files import is_full_disk, make_folder
from wbc_hf.safe_text import on_one_line, say, set_up_logging

MODEL_HELP = "Model folder or Hub id. Default: the variable WBC_HF_MODEL, else the model that comes with the package."
ADDRESS_HELP = "Ray cluster to run on, such as auto or 10.0.0.1:6379. Default: RAY_ADDRESS, else this machine alone."
OTHER_CLASSES_HELP = "Images of other classes than the five: an error, or left out."
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


# What becomes of images of other classes than the five.
OtherClasses = Literal["refuse", "leave_out"]


@contextmanager
def exit_on_error(program: str) -> Iterator[None]:
    """Set up logging; turn a `WbcError`, a full disk or a missing permission into one line and exit status 2."""
    set_up_logging()
    # File names are bytes: one that the terminal cannot show must not end the run.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape" if sys.stdout.encoding == "utf-8" else "backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except WbcError as error:
        say(f"{program}: {error}", error=True)
        sys.exit(2)
    except Exception as error:
        if not (is_full_disk(error) or (isinstance(error, OSError) and error.errno in _NOT_ALLOWED)):
            raise
        _abandon_output()
        say(f"{program}: {on_one_line(_explain(error))}", error=True)
        sys.exit(2)


def _explain(error: Exception) -> str:
    if is_full_disk(error):
        place = getattr(error, "filename", None)
        return f"{f'{place}: ' if place else ''}there is no room left to write to. Make room, and start again."
    assert isinstance(error, OSError)
    return f"{error.filename}: {error.strerror}. Change its permissions, or name another place."


def _abandon_output() -> None:
    """Let what could not be printed go: Python would try again at its end, and fail with a traceback."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each path that is a file, and every image below each path that is a folder, in order of name.

    Raises:
        WbcError: A folder holds no images.
    """
    from wbc_hf.data import find_pictures

    for path in paths:
        if path.is_dir():
            yield from find_pictures(path)
        else:
            yield path


def make_output_folder(output: Path) -> None:
    """Make the folder of --output, so that a mistake shows before any image is read.

    Raises:
        WbcError: It cannot be made or written to.
    """
    make_folder(output, "Give another --output.")


def exit_if_unreadable(unreadable: int, total: int, problem: str = "are not readable images") -> None:
    """End with exit status 1 where some files were left out; "2 of 9 files" and the problem say so."""
    if unreadable:
        say(f"wbc-hf: {unreadable} of {total} files {problem}.", error=True)
        raise typer.Exit(1)


def hide_progress_bars() -> None:
    """Hide transformers' and huggingface_hub's bars of loading and fetching. Imports neither."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # both look once, when they are imported
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


@contextmanager
def resumable() -> Iterator[None]:
    """End with exit status 130 where a job that keeps what is done is interrupted, and say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say("wbc-hf: stopped. Finished results are kept: the same command resumes there.", error=True)
        raise typer.Exit(130) from None
