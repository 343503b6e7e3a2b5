"""Write files atomically: a reader finds the old file or the new one, never half of one. And temporary files."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from filelock import FileLock, Timeout

# Matches what a killed process leaves behind.
TEMPORARY_FILES = ".*.tmp"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one step, text as UTF-8. See `open_atomically`."""
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON in one step.

    Raises:
        TypeError, ValueError: It does not go into JSON, NaN and infinity included; `path` is as it was.
    """
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def open_atomically(path: Path, *, folder: Path | None = None, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file for writing that replaces `path` at the end of the block; an exception leaves `path`.

    Args:
        path: The file to write.
        folder: Where the temporary file lies, on the file system of `path`; by default the folder of `path`.
        sync: Flush to the disk first, so that no name survives a power cut without its content. Slow for gigabytes.

    Raises:
        OSError: It cannot be written.
    """
    temporary = (folder or path.parent) / f".{path.name}.{uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def own_temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for all temporary files of this process, and remove it at the end of the block.

    A process that was killed leaves its folder. The next one with this prefix removes it: it holds no lock any more.

    Args:
        prefix: Of the names of the folder, and of the lock beside it.
    """
    parent, before = Path(tempfile.gettempdir()), (tempfile.tempdir, os.environ.get("TMPDIR"))
    for left in parent.glob(f"{prefix}*.lock"):
        with suppress(OSError, Timeout), FileLock(left, timeout=0):
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink()
    folder = parent / f"{prefix}{uuid4().hex}"
    with FileLock(f"{folder}.lock") as lock:
        folder.mkdir(mode=0o700)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before[0]
            os.environ.pop("TMPDIR") if before[1] is None else os.environ.update(TMPDIR=before[1])
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
