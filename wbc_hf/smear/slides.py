"""Open whole slides: any part at any scale, by OpenSlide, and by tifffile what OpenSlide does not read.

Lengths are pixels of the slide at its full resolution unless they are called otherwise.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from wbc_hf.data import read_pixel_size, slide_kind
from wbc_hf.errors import UnreadableImageError, needs_extra

# Of an objective of 40 x a pixel is a quarter of a micrometre wide, and so on.
_MICROMETRES_BY_POWER = 10.0
SMALLEST_PIXEL, LARGEST_PIXEL = 0.02, 1.2  # µm that a pixel may have; anything else is a screen's or a printer's
_LEAST_SIDE = 1500
_MOST_PIXELS = 8_000_000  # of a level, that are decoded at once
_TEXTS = (".vms", ".vmu", ".ndpis")  # name other files, wherever these are
_MOST_OF_TEXT = 2**20  # bytes of such a file that are read
_SAMPLE = 2**20  # bytes at the start, in the middle and at the end of a file that tell it from others
_MOST_OF_TILE = 2**24  # pixels: scanners write tiles of at most some thousand
_HOW_TO_MAKE = "save it as a pyramid of tiles first, such as with `vips tiffsave IN OUT.tif --tile --pyramid`"

NO_PYRAMID = (
    f"has no pyramid, so that the look for the monolayer reads every pixel, which takes long. Better {_HOW_TO_MAKE}"
)


class _Backend(Protocol):
    """What reads the file."""

    sizes: tuple[tuple[int, int], ...]
    pixel_size: float | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """A part of a level, from x and y in pixels of that level: RGB uint8, white outside of the slide."""

    def close(self) -> None: ...


class Slide:
    """An open slide. Thread-safe; it closes when nobody refers to it any more.

    Attributes:
        path: The file.
        name: What reports and errors call it: its name without folders, or another that was given.
        kind: Whose format it is in.
        size: Width and height.
        pixel_size: Width of a pixel in µm, as the file says or by its objective; None where it says neither.
        scales: Pixels of the slide for a pixel of each level of its pyramid, from 1 upwards.
    """

    def __init__(self, path: Path, name: str | None = None):
        self.path, self.name = path, name or path.name
        # Whoever calls a TIFF without a pyramid a slide may be right.
        kind = slide_kind(path) or ("TIFF" if path.suffix.lower() in (".tif", ".tiff") else None)
        if kind is None:
            raise UnreadableImageError(self.name, "is no whole slide")
        self.kind = kind
        self._backend, self._lock = _open(path, kind, self.name), threading.Lock()
        self.size = self._backend.sizes[0]
        if max(self.size) < _LEAST_SIDE:
            raise UnreadableImageError(
                self.name,
                f"holds only {self.size[0]} x {self.size[1]} pixels: the label, an overview or a thumbnail, "
                "not the slide. Export the scan at full resolution",
            )
        self.pixel_size = self._backend.pixel_size
        self.scales = tuple(self.size[0] / width for width, _ in self._backend.sizes)

    @property
    def has_pyramid(self) -> bool:
        """Whether it holds smaller copies of itself: without, a look at the whole reads every pixel."""
        return len(self.scales) > 1

    @cached_property
    def digest(self) -> str:
        """What tells its file from others, see `file_digest`."""
        return file_digest(self.path)

    def read(self, x: float, y: float, width: float, height: float, scale: float) -> Image.Image:
        """Read a part, white where it lies outside of the slide.

        Args:
            x, y: Its upper left corner.
            width, height: Of the part.
            scale: Pixels of the slide for a pixel of the result; below 1 it is enlarged.

        Raises:
            UnreadableImageError: This part of the file is broken or missing.
        """
        size = max(1, round(width / scale)), max(1, round(height / scale))
        own = self.scales[self._level(scale)]
        step = int(_MOST_PIXELS**0.5 * own / scale)  # pixels of the result
        if 0 < step < max(size):
            # In pieces: without a pyramid, the whole would be billions of pixels.
            whole = Image.new("RGB", size)
            for left in range(0, size[0], step):
                for top in range(0, size[1], step):
                    part = min(step, size[0] - left), min(step, size[1] - top)
                    place = x + left * scale, y + top * scale, part[0] * scale, part[1] * scale
                    whole.paste(self._read_piece(*place, scale), (left, top))
            return whole
        return self._read_piece(x, y, width, height, scale)

    def _level(self, scale: float) -> int:
        """The coarsest level that is fine enough."""
        return max(index for index, own in enumerate(self.scales) if index == 0 or own <= 1.05 * scale)

    def _read_piece(self, x: float, y: float, width: float, height: float, scale: float) -> Image.Image:
        level = self._level(scale)
        own = self.scales[level]
        left, top = round(x / own), round(y / own)
        part = max(1, round(width / own)), max(1, round(height / own))
        with self._lock:
            try:
                pixels = self._backend.read(level, left, top, *part)
            except Exception as error:
                self._reopen()
                raise UnreadableImageError(
                    self.name, f"cannot be read at {round(x)}, {round(y)} ({_in_short(error)}): copy it anew"
                ) from error
        size = max(1, round(width / scale)), max(1, round(height / scale))
        if size != part:
            smaller = size[0] < part[0]
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
        return Image.fromarray(pixels)

    def overview(self, side: int) -> Image.Image:
        """The whole slide, RGB, `side` pixels wide or high at most.

        Raises:
            UnreadableImageError: From `read`.
        """
        return self.read(0, 0, *self.size, max(self.size) / side)

    def close(self) -> None:
        """Close the file."""
        self._backend.close()

    def _reopen(self) -> None:
        """After an error OpenSlide answers nothing but that error."""
        self._backend.close()
        self._backend = _open(self.path, self.kind, self.name)


def open_slide(path: str | Path, name: str | None = None) -> Slide:
    """Open a whole slide.

    Args:
        path: `.svs`, `.ndpi`, `.mrxs`, `.scn`, `.bif`, `.vms`, `.svslide`, `.czi`, `.qptiff`, a tiled TIFF, or one
            file of a DICOM slide, beside its others.
        name: What reports and errors call it; by default its name without folders.

    Raises:
        WbcError: The extra "slides" is not installed.
        UnreadableImageError: It is no slide, is cut short, is not stored in tiles, or holds a label or overview only.
    """
    return Slide(Path(path), name)


def file_digest(path: Path) -> str:
    """A file's size in bytes, and SHA-256 of a mebibyte at its start, in its middle and at its end: `SIZE-SHA256`.

    A slide has gigabytes, which cannot all be read each time that a specimen is opened.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256()
        for start in sorted({0, max(0, (size - _SAMPLE) // 2), max(0, size - _SAMPLE)}):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return f"{size}-{digest.hexdigest()}"


def companions(path: Path) -> Iterator[Path]:
    """Yield the files that opening a slide may read beside it, as it names them: whatever they are, or lead to.

    Args:
        path: A slide.

    Raises:
        OSError: It cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in _TEXTS:
        yield from _named_in(path, path.parent)
    elif suffix == ".mrxs":
        folder = path.with_suffix("")
        yield folder
        for parent, folders, files in os.walk(folder):
            yield from (Path(parent, name) for name in (*folders, *files))
        if (index := folder / "Slidedat.ini").is_file():
            yield from _named_in(index, folder)
    elif _is_dicom(path):
        yield from path.parent.iterdir()


def _named_in(path: Path, folder: Path) -> Iterator[Path]:
    """What the values in a file of keys and values name, from a folder on."""
    with path.open("rb") as file:
        text = os.fsdecode(file.read(_MOST_OF_TEXT).replace(b"\0", b""))
    for line in text.splitlines():
        value = line.partition("=")[2].strip()
        # GLib writes a blank and a backslash so.
        for name in {value, value.replace("\\s", " ").replace("\\\\", "\\")} - {""}:
            if not os.path.isdir(folder / name):  # such as a path on the scanner's computer, which nothing opens
                yield folder / name


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix.lower() == ".dcm"


def _open_tiff(path: Path):
    """Open a TIFF by tifffile, which would also read files that its description names, or that lie beside it."""
    import tifffile

    return tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False)


def _open(path: Path, kind: str, name: str) -> _Backend:
    with needs_extra("slides"):
        import openslide
        import tifffile  # noqa: F401  for `_open_tiff`
    if not path.exists():
        raise UnreadableImageError(name, "there is no such file")
    is_tiff = kind in ("TIFF", "Akoya", "Aperio", "Hamamatsu", "Leica", "Ventana") and path.suffix[:4] != ".vm"
    try:
        missing = _missing_bytes(path) if is_tiff else 0
    except Exception:
        missing = 0  # no TIFF at all: what opens it says so
    if missing:
        raise UnreadableImageError(
            name, f"is cut short: {max(1, missing // 1024**2)} MiB or more are missing at its end. Copy it anew"
        )
    if path.suffix.lower() not in _TEXTS and _is_text(path):
        raise UnreadableImageError(name, _why_not_opened(kind, "it names other files, as no such slide does"))
    try:
        opened: _Backend = _ByOpenSlide(openslide.OpenSlide(str(path)), name)
        if len(opened.sizes) > 1 or not is_tiff:
            return opened
    except openslide.OpenSlideError as error:
        if not is_tiff:
            raise UnreadableImageError(name, _why_not_opened(kind, _in_short(error))) from error
        opened = None  # type: ignore[assignment]
    # Pyramids whose levels stand in sub-directories, as OME-TIFF has them, OpenSlide does not know.
    try:
        other = _ByTifffile(_open_tiff(path), name)
    except UnreadableImageError:
        if opened is None:
            raise
        return opened
    except Exception as error:
        if opened is None:
            raise UnreadableImageError(name, _why_not_opened(kind, _in_short(error))) from error
        return opened
    return other if opened is None or len(other.sizes) > len(opened.sizes) else opened


def _is_text(path: Path) -> bool:
    """Whether OpenSlide takes a file for a slide that names the files of its parts, whatever its ending says."""
    import openslide

    with path.open("rb") as file:
        is_tiff = file.read(2) in (b"II", b"MM")
    return not is_tiff and openslide.OpenSlide.detect_format(str(path)) == "hamamatsu"


def _check_tile(width: int, height: int, name: str) -> None:
    """Refuse a tile that takes gigabytes: it is decoded as a whole, and OpenSlide ends a process that lacks memory."""
    if width * height > _MOST_OF_TILE:
        raise UnreadableImageError(
            name,
            f"is stored in tiles of {width} × {height} pixels, and at most {_MOST_OF_TILE:,} are decoded at once: "
            f"{_HOW_TO_MAKE}",
        )


def _why_not_opened(kind: str, reason: str) -> str:
    beside = {
        "MIRAX": " A MIRAX slide is a file and the folder of the same name beside it: both are needed",
        "DICOM": " A DICOM slide is several files in one folder: all are needed, not its label or overview alone",
    }
    return f"cannot be opened as a slide ({kind}; {reason}).{beside.get(kind, ' Copy or export it anew')}"


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


class _ByOpenSlide:
    def __init__(self, opened, name: str):
        self._opened = opened
        self.sizes = opened.level_dimensions
        for level in range(len(self.sizes)):
            sides = [opened.properties.get(f"openslide.level[{level}].tile-{side}", 0) for side in ("width", "height")]
            try:
                _check_tile(int(sides[0]), int(sides[1]), name)
            except UnreadableImageError:
                opened.close()
                raise
        self.pixel_size = _pixel_size(opened.properties)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        scale = self.sizes[0][0] / self.sizes[level][0]
        part = self._opened.read_region((round(x * scale), round(y * scale)), level, (width, height))
        white = Image.new("RGB", part.size, "white")
        white.paste(part, mask=part.getchannel("A"))
        return np.asarray(white)

    def close(self) -> None:
        self._opened.close()


def _pixel_size(properties) -> float | None:
    sizes = [properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")]
    known = [float(size) for size in sizes if size]
    if known and SMALLEST_PIXEL <= known[0] <= LARGEST_PIXEL and max(known) < 1.05 * min(known):
        return known[0]
    power = properties.get("openslide.objective-power")
    size = _MICROMETRES_BY_POWER / float(power) if power and float(power) > 0 else None
    return size if size is not None and SMALLEST_PIXEL <= size <= LARGEST_PIXEL else None


class _ByTifffile:
    """Tiled TIFF, pages or sub-directories as levels; only what tifffile decodes without imagecodecs, or with it."""

    def __init__(self, opened, name: str):
        self._opened = opened
        series = max(opened.series, key=lambda each: each.pages[0].imagewidth * each.pages[0].imagelength)
        self._levels = [level.pages[0] for level in series.levels]
        first = self._levels[0]
        if not first.is_tiled:
            raise UnreadableImageError(name, f"is not stored in tiles: {_HOW_TO_MAKE}")
        if first.samplesperpixel != 3 or first.bitspersample != 8 or first.planarconfig != 1:
            raise UnreadableImageError(
                name,
                f"holds {first.samplesperpixel} channels of {first.bitspersample} bits, and colours of 8 are read",
            )
        self._levels = [page for page in self._levels if page.is_tiled]
        for page in self._levels:
            _check_tile(page.tilewidth, page.tilelength, name)
        self.sizes = tuple((page.imagewidth, page.imagelength) for page in self._levels)
        self.pixel_size = read_pixel_size(Path(opened.filehandle.path))
        try:
            self.read(0, 0, 0, 1, 1)
        except Exception as error:
            packed = first.compression.name
            raise UnreadableImageError(
                name, f"is packed as {packed}, which needs one more package: pip install imagecodecs"
            ) from error

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        page = self._levels[level]
        across = -(-page.imagewidth // page.tilewidth)
        wide, high = page.tilewidth, page.tilelength
        result = np.full((height, width, 3), 255, np.uint8)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, page.imagewidth), min(y + height, page.imagelength)
        for row in range(y0 // high, -(-y1 // high)):
            for column in range(x0 // wide, -(-x1 // wide)):
                index = row * across + column
                if not page.databytecounts[index]:
                    continue
                self._opened.filehandle.seek(page.dataoffsets[index])
                packed = self._opened.filehandle.read(page.databytecounts[index])
                tile = page.decode(packed, index, jpegtables=page.jpegtables)[0].reshape(-1, wide, 3)
                left, top = max(x0, column * wide), max(y0, row * high)
                right, bottom = min(x1, (column + 1) * wide), min(y1, (row + 1) * high)
                part = tile[top - row * high : bottom - row * high, left - column * wide : right - column * wide]
                result[top - y : bottom - y, left - x : right - x] = part
        return result

    def close(self) -> None:
        self._opened.close()


def _missing_bytes(path: Path) -> int:
    """How many bytes a TIFF lacks at its end, by where its pages say that their parts lie; 0 of a whole one."""
    size = path.stat().st_size
    with _open_tiff(path) as opened:
        parts = (it for page in opened.pages for it in zip(page.dataoffsets, page.databytecounts, strict=False))
        end = max((int(offset) + int(count) for offset, count in parts), default=0)
        return max(int(_next_page_missing(opened)), end - size)


def _next_page_missing(opened) -> bool:
    """Whether the directory of the last page names another, beyond the end of the file."""
    handle, form = opened.filehandle, opened.tiff
    offset = opened.pages[-1].offset
    handle.seek(offset)
    count = int.from_bytes(handle.read(form.tagnosize), "little" if form.byteorder == "<" else "big")
    handle.seek(offset + form.tagnosize + count * form.tagsize)
    following = int.from_bytes(handle.read(form.offsetsize), "little" if form.byteorder == "<" else "big")
    return following > handle.size
