"""Read pictures out of ZIP files without unpacking them, and without trusting what they say of themselves."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

from wbc_hf.errors import UnreadableImageError

MAX_MEMBER_BYTES = 200 * 1024**2
# Pictures shrink to a third at best; what shrinks a hundredfold was made to fill a machine.
_MOST_SHRUNK, _ALLOWED_BYTES = 100, 1024**2
# The list of members is read as a whole: this is room for about 40,000.
_MAX_DIRECTORY = 4 * 1024**2
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for any amount of memory
_ENCRYPTED = 1
_END, _END_SIZE = b"PK\x05\x06", 22
_END_64_PLACE, _END_64_PLACE_SIZE = b"PK\x06\x07", 20


def is_zip(file: str | Path) -> bool:
    """Whether a file is a ZIP file, by its first bytes."""
    try:
        if not os.path.isfile(file):
            return False
        with open(file, "rb") as opened:
            return opened.read(4) in (b"PK\x03\x04", _END)
    except OSError:
        return False


def list_members(file: str | Path, name: str) -> list[zipfile.ZipInfo]:
    """List the files in a ZIP file, in order of name.

    Raises:
        UnreadableImageError: It is broken, or lists too many files.
    """
    try:
        if _directory_size(file) > _MAX_DIRECTORY:
            raise UnreadableImageError(name, "lists more files than are read from one ZIP file; unpack it first")
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise UnreadableImageError(name, "is a broken ZIP file; pack it anew") from error
    return sorted(members, key=lambda member: member.filename)


def problem_of_member(member: zipfile.ZipInfo) -> str:
    """Why a file in a ZIP file is not read; "" where it is."""
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted; unpack the ZIP file with its password first"
    if member.compress_type not in _PACKED:
        return "is packed by a method that is not read; unpack the ZIP file first"
    if member.file_size > MAX_MEMBER_BYTES:
        size = f"{member.file_size // 1024**2} MiB"
        return f"is too large ({size}); files of at most {MAX_MEMBER_BYTES // 1024**2} MiB are read from a ZIP file"
    if member.file_size > max(_ALLOWED_BYTES, _MOST_SHRUNK * member.compress_size):
        return f"unpacks to more than {_MOST_SHRUNK} times its size, which no photograph does"
    return ""


def read_member(file: str | Path, member: str, name: str) -> bytes:
    """Read a file in a ZIP file.

    Raises:
        UnreadableImageError: It is not there, broken, or has a problem as of `problem_of_member`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.getinfo(member)
            if problem := problem_of_member(found):
                raise UnreadableImageError(name, problem)
            with archive.open(found) as opened:
                return opened.read(MAX_MEMBER_BYTES)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, zlib.error) as error:
        raise UnreadableImageError(name, "is broken in the ZIP file; pack it anew") from error


def _directory_size(file: str | Path) -> int:
    """Bytes of the list of members, as `zipfile` would read them; 0 where the end of the file is not found."""
    with open(file, "rb") as opened:
        length = opened.seek(0, os.SEEK_END)
        tail_start = opened.seek(max(0, length - _END_SIZE - 65535 - _END_64_PLACE_SIZE))
        tail = opened.read()
        end = tail.rfind(_END)
        if end < 0 or end + _END_SIZE > len(tail):
            return 0
        (size,) = struct.unpack_from("<I", tail, end + 12)
        place = end - _END_64_PLACE_SIZE
        if place >= 0 and tail[place : place + 4] == _END_64_PLACE:
            # The record of 64 bit stands right before its place, or where that says.
            starts = (tail_start + place - 56, struct.unpack_from("<Q", tail, place + 8)[0])
            sizes = [size]
            for start in starts:
                if 0 <= start <= length - 56:
                    opened.seek(start)
                    sizes.append(struct.unpack_from("<Q", opened.read(56), 40)[0])
            size = max(sizes[1:], default=size)
        return size
