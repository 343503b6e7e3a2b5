"""Keep the bytes of previews and crops in a temporary file, so that a specimen's memory does not grow with them."""

import tempfile
import threading
import weakref
from dataclasses import dataclass


class PictureStore:
    """A temporary file of pictures. It has no name on the disk, and goes with the last one who refers to it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="wbc_hf-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def keep(self, content: bytes) -> "KeptPicture":
        """Append a picture.

        Raises:
            OSError: The disk is full.
        """
        with self._lock:
            start = self._file.seek(0, 2)
            self._file.write(content)
            self._file.flush()
        return KeptPicture(self, start, len(content))

    def read(self, start: int, size: int) -> bytes:
        """The bytes of a picture."""
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)


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
        return self.store.read(self.start, self.size)


def picture_bytes(picture: bytes | KeptPicture) -> bytes:
    """The bytes of a picture, wherever they are."""
    return picture if isinstance(picture, bytes) else picture.read()
