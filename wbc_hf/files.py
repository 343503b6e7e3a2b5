"""Checksums of files; and writing atomically: a reader finds the old file or the new one, never half of one."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

# Matches what a killed process leaves behind.
TEMPORARY_FILES = ".*.tmp"


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """SHA-256 over paths and contents: of the lines that `sha256sum` prints for all files, in order of path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
