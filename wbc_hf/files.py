"""Read files that others wrote, within limits; write files atomically; checksums; temporary files.

A reader of what is written atomically finds the old file or the new one, never half of one.
"""

import errno
import hashlib
import os
import reprlib
import shutil
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from wbc_hf.errors import WbcError
from wbc_hf.safe_text import json_text

T = TypeVar("T")

# No text of a model takes a tenth of it: 20,000 class names have 1 MB.
MAX_TEXT_BYTES = 4 * 1024**2
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What safetensors, torch and OpenVINO say of it in errors of their own kinds.
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", "inline_container.cc", "PytorchStreamWriter")
# Matches what a killed process leaves behind.
TEMPORARY_FILES = ".*.tmp"

_SHOWN = 3  # faults that one message names


def read_content(path: Path, most: int = MAX_TEXT_BYTES) -> bytes:
    """Read a file as a whole, if it is a regular one of at most `most` bytes.

    Raises:
        WbcError: It is something else, is larger, or cannot be read.
    """
    try:
        if not path.is_file():
            raise WbcError(f"{path}: is no regular file, and is not read.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise WbcError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) > most:
        raise WbcError(f"{path}: is larger than {most / 1024**2:g} MiB, the most that is read of such a file.")
    return content


def read_text(path: Path) -> str:
    """Read a text in UTF-8 of at most `MAX_TEXT_BYTES`.

    Raises:
        WbcError: It is in another encoding, too large, or cannot be read.
    """
    try:
        return read_content(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WbcError(f"{path}: is not in UTF-8 ({error.reason} at byte {error.start}). Save it in UTF-8.") from error


def read_json(path: Path, schema: type[T], advice: str) -> T:
    """Read a JSON file of at most `MAX_TEXT_BYTES` and check it against a schema, without converting between types.

    Args:
        path: The file.
        schema: What pydantic makes a `TypeAdapter` of, such as a dataclass with constraints.
        advice: What to do with a file that does not fit, a sentence.

    Raises:
        WbcError: It is no JSON, does not fit, is too large, or cannot be read. The message names the first values.
    """
    return check_json(read_content(path), schema, str(path), advice)


def check_json(content: bytes, schema: type[T], name: str, advice: str) -> T:
    """Check the content of a JSON file against a schema, as `read_json` does. Messages begin with the file's name.

    Raises:
        WbcError: It is no JSON, or does not fit. The message names the first values.
    """
    try:
        return _adapter(cast(Hashable, schema)).validate_json(content, strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        shown = "; ".join(_describe_fault(fault) for fault in faults[:_SHOWN])
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise WbcError(f"{name}: {shown}{more}. {advice}") from error


@cache
def _adapter(schema: Hashable) -> TypeAdapter:
    return TypeAdapter(schema)


def _describe_fault(fault: Any) -> str:
    """`"review_threshold is -1: should be greater than or equal to 0"`."""
    place = ".".join(str(part) for part in fault["loc"] if str(part).isprintable())[:100]
    reason = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    match fault["type"]:
        case "json_invalid":
            return f"is not JSON ({fault['ctx']['error']})"
        case "missing":
            return f"has no {place}"
        case "extra_forbidden" | "unexpected_keyword_argument":  # of a model, of a dataclass
            return f"has {place}, which is not known here"
        case "value_error" if not place:
            return reason
    shown = reprlib.repr(fault["input"])
    return f"{place} is {shown}: {reason}" if place else f"holds {shown}: {reason}"


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means that there is no room to write, whichever library raised it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return isinstance(error, Exception) and any(words in str(error) for words in _FULL_IN_WORDS)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """SHA-256 over paths and contents: of the lines that `sha256sum` prints for all files, in order of path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def make_folder(folder: Path, way_out: str) -> None:
    """Make a folder and its parents unless they are there.

    Raises:
        WbcError: It cannot be made, or may not be written to; the message ends with `way_out`, what to do then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WbcError(f"{folder}: cannot be made a folder ({error.strerror}). {way_out}") from None
    if not os.access(folder, os.W_OK):
        raise WbcError(f"{folder}: this folder may not be written to. {way_out}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one step, text as UTF-8. See `open_atomically`."""
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON in one step, as `json_text` does.

    Raises:
        TypeError, ValueError: It does not go into JSON, NaN and infinity included; `path` is as it was.
    """
    write_atomically(path, json_text(value, indent=2) + "\n")


@contextmanager
def open_atomically(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file for writing that replaces `path` at the end of the block; an exception leaves `path`.

    Args:
        path: The file to write.
        sync: Flush to the disk first, so that no name survives a power cut without its content. Slow for gigabytes.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.parent / f".{path.name}.{uuid4().hex}.tmp"
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
    from filelock import FileLock, Timeout

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
