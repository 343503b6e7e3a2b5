"""Keep the bytes of previews and crops in a file, so that a specimen's memory does not grow with them."""

import os
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, cast

from wbc_hf.errors import WbcError
from wbc_hf.inference import batches

_AT_ONCE = 64  # pictures that are read together


class PictureStore:
    """A file of pictures, one after the other; what is in it is never changed.

    Args:
        path: The file, made with the first picture. By default a temporary one, which has no name on the disk and goes
            with the last one who refers to it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def keep(self, content: bytes) -> "KeptPicture":
        """Append a picture.

        Raises:
            WbcError: The disk is full, or the file may not be written to.
        """
        with self._lock, self._faults_named():
            file = self._opened(to_write=True)
            start = file.seek(0, 2)
            file.write(content)
            file.flush()
        return KeptPicture(self, start, len(content))

    def read(self, pictures: Sequence["KeptPicture"]) -> list[bytes]:
        """The bytes of some pictures of this store.

        Raises:
            WbcError: The file lacks one.
        """
        contents = []
        with self._lock:
            try:
                file = self._opened(to_write=False)
                for picture in pictures:
                    file.seek(picture.start)
                    contents.append(file.read(picture.size))
            except OSError as error:
                raise WbcError(
                    f"{self._path}: cannot be read ({error.strerror}). Restore it from a backup."
                ) from error
        if list(map(len, contents)) != list(map(len, pictures)):
            raise WbcError(f"{self._path}: is damaged, it ends within a picture. Restore it from a backup.")
        return contents

    def sync(self) -> None:
        """Flush what was appended to the disk, so that it survives a power cut.

        Raises:
            WbcError: The disk does not take it.
        """
        with self._lock, self._faults_named():
            if self._file is not None:
                os.fsync(self._file.fileno())

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WbcError(f"Pictures cannot be kept ({error.strerror}). What was kept before stays.") from error

    def _opened(self, *, to_write: bool) -> BinaryIO:
        if self._file is None:
            if self._path is None:
                self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="wbc_hf-"))  # noqa: SIM115
            else:
                # Whoever only reads needs no permission to write.
                writable = to_write or os.access(self._path, os.W_OK)
                self._file = cast(BinaryIO, self._path.open("a+b" if writable else "rb"))
            weakref.finalize(self, self._file.close)
        return self._file


@dataclass(frozen=True)
class KeptPicture:
    """Where a picture lies in a store."""

    store: PictureStore
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self) -> bytes:
        """Its bytes."""
        return self.store.read([self])[0]


def picture_bytes(picture: bytes | KeptPicture) -> bytes:
    """The bytes of a picture, wherever they are."""
    return picture if isinstance(picture, bytes) else picture.read()


def read_pictures(pictures: Iterable[bytes | KeptPicture]) -> Iterator[bytes]:
    """Yield the bytes of pictures, wherever they are, and read those of one store together, some at a time.

    A database answers once for many in that way.
    """
    for some in batches(pictures, _AT_ONCE):
        for store, group in groupby(some, lambda it: it.store if isinstance(it, KeptPicture) else None):
            together: list[Any] = list(group)
            yield from together if store is None else store.read(together)
