"""Write files atomically: a reader finds the old file or the new one, never half of one."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What safetensors, torch and OpenVINO say of it in errors of their own kinds.
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", "inline_container.cc", "PytorchStreamWriter")
# Matches what a killed process leaves behind.
TEMPORARY_FILES = ".*.tmp"


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means that there is no room to write, whichever library raised it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return isinstance(error, Exception) and any(words in str(error) for words in _FULL_IN_WORDS)


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
