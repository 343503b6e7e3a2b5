"""Pictures of one specimen in full resolution, for the viewer to zoom into, in bounded room."""

import io
import threading

from PIL import Image

from wbc_hf.smear import KeptPicture, Picture, PictureStore

# For one visitor, in bytes on the disk: some 300 photographs of 5 million pixels. Later ones are seen as previews.
MAX_BYTES = 2**28


class FullPictures:
    """Pictures in full resolution by their number, as JPEG. Thread-safe.

    The file itself is not kept: browsers show no TIFF, no CMYK and no 16 bits as `read_image` does, turn and colour
    others in their own way, and it may be ten times as large.

    Attributes:
        size: Bytes of all.
    """

    def __init__(self) -> None:
        self.size = 0
        self._store = PictureStore()
        self._pictures: dict[int, KeptPicture] = {}
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._pictures

    def get(self, number: int) -> bytes | None:
        """A picture that is larger than its preview, or None if it is not kept."""
        kept = self._pictures.get(number)
        return None if kept is None else kept.read()

    def best(self, picture: Picture) -> bytes | None:
        """A picture in full resolution, which its preview may be; None if that is not kept."""
        if (kept := self.get(picture.number)) is not None:
            return kept
        return picture.preview if _size(picture.preview) == picture.size else None

    def keep(self, picture: Picture, image: Image.Image) -> None:
        """Keep a picture, unless its preview is as large or there is no room.

        Args:
            picture: With the preview.
            image: RGB.
        """
        if _size(picture.preview) == image.size or self.size >= MAX_BYTES:
            return
        file = io.BytesIO()
        image.save(file, "JPEG", quality=88)  # as the preview
        with self._lock:
            if self.size + file.tell() <= MAX_BYTES:
                self._pictures[picture.number] = self._store.keep(file.getvalue())
                self.size += file.tell()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._pictures.clear()
            self._store = PictureStore()
            self.size = 0


def _size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as opened:
        return opened.size
