"""What several commands share: input files, text that is safe on a terminal, and how errors end a program."""

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from wbc_hf.errors import WbcError
from wbc_hf.safe_text import say, set_up_logging

MODEL_HELP = "Model folder or Hub id. Default: the variable WBC_HF_MODEL, else the model that comes with the package."
SEED_HELP = "Random seed."


@contextmanager
def exit_on_error(program: str) -> Iterator[None]:
    """Set up logging; turn a `WbcError` into one line on standard error and exit status 2."""
    set_up_logging()
    # File names are bytes: one that the terminal cannot show must not end the run.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape" if sys.stdout.encoding == "utf-8" else "backslashreplace")
    try:
        yield
    except WbcError as error:
        say(f"{program}: {error}", error=True)
        sys.exit(2)


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


def read_training_data(folder: Path) -> dict | None:
    """What the record of a training run says of its data; None where a model's folder holds no such record."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError):
        return None


def exit_if_unreadable(unreadable: int, total: int, problem: str = "are not readable images") -> None:
    """End with exit status 1 where some files were left out; "2 of 9 files" and the problem say so."""
    if unreadable:
        say(f"wbc-hf: {unreadable} of {total} files {problem}.", error=True)
        raise typer.Exit(1)
