"""How much one visitor may upload in an hour."""

import time
from collections import defaultdict

GIB = 2**30
# Uploads are kept for an hour (`housekeeping`), so these bound what one visitor occupies of the disk, too.
MAX_BYTES = 8 * GIB
MAX_FILES = 5000
MINUTES = 60


class UploadQuotas:
    """Bytes and files that visitors have uploaded in the last hour, minute by minute."""

    def __init__(self) -> None:
        self._minutes: dict[int, defaultdict[str, tuple[int, int]]] = {}

    def add(self, visitor: str, size: int, files: int) -> None:
        """Note an upload, or a part of it.

        Args:
            visitor: User name or address.
            size: Bytes.
            files: Number of files that begin in it.
        """
        minute = self._forget_old()
        uploads = self._minutes.setdefault(minute, defaultdict(lambda: (0, 0)))
        uploads[visitor] = uploads[visitor][0] + size, uploads[visitor][1] + files

    def problem(self, visitor: str, size: int = 0) -> str | None:
        """Why a visitor may not upload `size` bytes more, or None where they may."""
        self._forget_old()
        uploads = [uploads.get(visitor, (0, 0)) for uploads in self._minutes.values()]
        if sum(taken for taken, _ in uploads) + size > MAX_BYTES:
            return f"More than {MAX_BYTES // GIB} GiB within an hour are not taken from one visitor. Try again later."
        if sum(files for _, files in uploads) > MAX_FILES:
            return f"More than {MAX_FILES:,} files within an hour are not taken from one visitor. Try again later."
        return None

    def _forget_old(self) -> int:
        minute = int(time.monotonic() // 60)
        self._minutes = {it: uploads for it, uploads in self._minutes.items() if minute - it < MINUTES}
        return minute
