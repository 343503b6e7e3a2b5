"""Read images: whatever a user gives becomes an upright RGB image, or an error that names it and the reason."""

import io
import logging
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pi_heif
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from wbc_hf.data.slide_kinds import MAX_PHOTOGRAPH, SLIDE_SUFFIXES, tiff_directories, why_no_photograph
from wbc_hf.data.zip_files import read_member
from wbc_hf.errors import UnreadableImageError


@dataclass(frozen=True)
class FilePart:
    """A picture within a file: a page of a TIFF, a member of a ZIP file, or a page of a member.

    Attributes:
        file: The file.
        member: Path in the ZIP file; "" where the file is a picture itself.
        page: From 0.
    """

    file: str | Path
    member: str = ""
    page: int = 0

    def __str__(self) -> str:
        return part_name(f"{self.file}: {self.member}" if self.member else str(self.file), self.page)


ImageSource = str | Path | bytes | Image.Image | np.ndarray | FilePart

# A cell is at most a few hundred pixels wide and a field at most a few thousand: more is a mistake or an attack.
MAX_PIXELS = MAX_PHOTOGRAPH
MIN_SIDE = 16
MAX_SIDE = 65_535  # what a JPEG can hold
MAX_BYTES = 512 * 1024**2  # 50 million pixels of 16-bit RGBA take 400 MB uncompressed
# Each scan goes over all pixels, however few bytes it has. Encoders write about ten.
MAX_SCANS = 50
# OpenJPEG allocates 90 bytes a pixel (measured), even for a file of a few hundred bytes.
MAX_PIXELS_JPEG2000 = 12_000_000
# Pillow can open formats that call outside programs (EPS) or hold no photograph: only these are tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000", "HEIF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pnm", ".jp2", ".j2k", ".heic", ".heif"}
)

_RAW = "is raw data of a camera: develop it to TIFF or JPEG, and give that"
_VIDEO = "is a video: save single pictures of it, and give those"
# By the endings of names: Pillow would take the thumbnail of some for the picture.
_NO_PICTURES = (
    {suffix: why_no_photograph(f"slide{suffix}") for suffix in SLIDE_SUFFIXES}
    | dict.fromkeys((".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"), _RAW)
    | dict.fromkeys((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".wmv", ".mpg", ".mpeg", ".webm", ".mts"), _VIDEO)
)

NO_IMAGE = "the row holds no image"
_EMPTY_UPPER_BIT = 127
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # FF 00 is a pixel's, FF D0 to D7 are within a scan
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_TOO_LARGE = f"is too large ({{}} pixels); at most {MAX_PIXELS // 1_000_000} million pixels are read: crop it first"
_REASONS: dict[type[Exception], str] = {
    # Pillow's own limit, met before ours.
    Image.DecompressionBombError: _TOO_LARGE.format("over 178 million"),
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "is a folder, not an image file",
    PermissionError: "may not be read: check its permissions",
    Image.UnidentifiedImageError: f"is not a picture in a known format ({', '.join(FORMATS)})",
    MemoryError: "needs more memory than there is",
}
_TILE_WIDTH, _TILE_HEIGHT, _SUBFILE = 322, 323, 254  # TIFF tags
_BITS, _SAMPLE_FORMAT, _FLOAT, _MOST_BITS = 258, 339, 3, 16
_PLANAR, _ONE_AFTER_ANOTHER = 284, 2
_FLOATING = "holds floating-point values; save it with 8 or 16 bits per channel"
# Pillow keeps the upper byte of 16-bit colours, whichever byte comes first in the file.
_16_BIT = re.compile(r"(?P<channels>RGB|RGBA|RGBX);16(?P<order>[BLN])")
_SMALLER_OR_MASK = 5  # bits of the last: a smaller copy of another page, or a mask of it
MAX_PAGES = 1000
# Further frames of these are later pictures; those of a phone (MPO, HEIC) are depth, or a smaller copy.
_ANIMATIONS = ("GIF", "PNG", "WEBP")

# Pillow warns of broken metadata without the file's name; what matters is raised. Set once for the whole process:
# `warnings.catch_warnings` is not safe in the threads that read.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
pi_heif.register_heif_opener(thumbnails=False)


def read_image(source: ImageSource | None, name: str | None = None) -> Image.Image:
    """Read an image as upright 8-bit RGB.

    The conversion is Pillow's `exif_transpose` and `convert("RGB")`, as in transformers' own pipeline, so that both
    see the same picture. The exception is more than 8 bits a channel, of which Pillow would clip grey to white, and
    leave colours of 12 bits nearly black: of the bits in use the upper 8 are kept. Of an animation the first frame is
    taken, of a file with pages the first page: `find_pages` lists them, and a `FilePart` names another.

    Args:
        source: A path, the bytes of an image file, a `FilePart`, a PIL image of any mode, or a uint8 array (height,
            width) or (height, width, 1, 3 or 4), RGB order, values 0 to 255. None, as of a row without an image, is an
            error.
        name: What errors call the input; by default its path, or "image".

    Raises:
        UnreadableImageError: Not an image, broken, of a kind that cannot be classified, or of an impossible size.
    """
    own_name = str(source) if isinstance(source, (str, Path, FilePart)) else getattr(source, "filename", None)
    name = name or own_name or "image"
    try:
        return _read(source, name)
    except UnreadableImageError as error:
        # Errors are kept for reports: with its traceback each would keep a half decoded picture in memory as well.
        error.__cause__ = error.__context__ = None
        problem = error.with_traceback(None)
    raise problem


def count_pixels(source: ImageSource) -> int:
    """Number of pixels that `read_image` would decode, by the header of a file.

    0 of what cannot be opened, and `MAX_PIXELS` of a file within a ZIP file, which is not unpacked for that.
    """
    if isinstance(source, FilePart) and source.member:
        return MAX_PIXELS
    try:
        width, height = _open_header(source, "").size
    except Exception:  # whatever is wrong with it, `read_image` says so
        return 0
    return width * height


@dataclass(frozen=True)
class Pages:
    """What a file holds.

    Attributes:
        numbers: Of its pages, from 0: each is a picture.
        frames: How many frames of an animation follow the first; they are not read.
    """

    numbers: tuple[int, ...] = (0,)
    frames: int = 0


def find_pages(source: ImageSource) -> Pages:
    """Find the pages of an image file; a TIFF may have several.

    Smaller copies of a page and masks are passed over. A file that cannot be read has one page: `read_image` says what
    is wrong with it. No more than `MAX_PAGES` are looked for.
    """
    if isinstance(source, Image.Image | np.ndarray):
        return Pages()
    try:
        image = _open_header(source, "")
        if image.format in _ANIMATIONS:
            return Pages(frames=min(getattr(image, "n_frames", 1), MAX_PAGES) - 1)
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return Pages()
    except Exception:
        return Pages()  # broken in any of many ways: reading it says so
    numbers = [0]
    for number in range(1, MAX_PAGES):
        try:
            image.seek(number)
        except EOFError:
            break
        except Exception:
            numbers.append(number)  # broken: reading it says so
            break
        if not image.tag_v2.get(_SUBFILE, 0) & _SMALLER_OR_MASK:
            numbers.append(number)
    return Pages(tuple(numbers))


def part_name(name: str, page: int) -> str:
    """`"stack.tif", 1` → `"stack.tif, page 2"`; the first page has the name of its file."""
    return f"{name}, page {page + 1}" if page else name


def image_content(image: dict | None) -> str | bytes | None:
    """Path or bytes of an undecoded `datasets.Image`; None where the row holds none."""
    return None if image is None else image["path"] if image["bytes"] is None else image["bytes"]


def _read(source: ImageSource | None, name: str) -> Image.Image:
    with _decoding(name):
        image = _open(source, name)
    _check_size(image, name)
    deep = _swap_bytes(image)
    with _decoding(name):
        image = ImageOps.exif_transpose(image)
        if deep and (upper := np.asarray(image)[:, :, :3]).max() <= _EMPTY_UPPER_BIT:
            # The upper bits are empty: those below are wanted too.
            again = _open(source, name)
            again.tile = deep  # type: ignore[attr-defined]
            lower = np.asarray(ImageOps.exif_transpose(again))[:, :, :3]
            image = Image.fromarray(_upper_8_bits(upper.astype(np.int32) << 8 | lower))
    if image.mode == "F":
        raise UnreadableImageError(name, _FLOATING)
    if image.mode.startswith("I"):
        image = Image.fromarray(_upper_8_bits(np.asarray(image)))
    with _decoding(name):
        return image.convert("RGB")


def _swap_bytes(image: Image.Image) -> list | None:
    """How to decode the lower bytes of 16-bit colours, as a list of tiles; None of any other image."""
    swapped = []
    for tile in getattr(image, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        match = _16_BIT.fullmatch(str(arguments[0]))
        if match is None:
            return None
        order = match["order"] if match["order"] != "N" else "L" if sys.byteorder == "little" else "B"
        raw_mode = f"{match['channels']};16{'L' if order == 'B' else 'B'}"
        swapped.append(tile._replace(args=(raw_mode, *arguments[1:]) if isinstance(tile.args, tuple) else raw_mode))
    return swapped or None


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Around calls of Pillow: whatever goes wrong there becomes an error that names the image and the reason."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Exception as error:
        # Pillow promises no set of exceptions: on broken files its readers raise OSError, ValueError, SyntaxError,
        # EOFError, struct.error, zlib.error, KeyError, TypeError, AttributeError …
        raise UnreadableImageError(name, _reason(error)) from error


def _reason(error: Exception) -> str:
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.errno is not None:
        return f"could not be read ({error.strerror})"
    text = " ".join(str(error).split())[:200]
    # The text alone of an error that Pillow did not foresee says nothing: KeyError(273) is "273".
    foreseen = text and isinstance(error, (OSError, ValueError, SyntaxError))
    return f"is broken or cut short ({text if foreseen else f'{type(error).__name__} {text}'.strip()})"


def _open(source: ImageSource | None, name: str) -> Image.Image:
    image = _open_header(source, name)
    if isinstance(image, ImageFile.ImageFile):
        _check_structure(image, name)
    return image


def _open_header(source: ImageSource | None, name: str) -> Image.Image:
    """Open an image, of a file its header alone."""
    if source is None:
        raise UnreadableImageError(name, NO_IMAGE)
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    opened: BinaryIO | str | Path
    page = 0
    if isinstance(source, FilePart):
        page = source.page
        source = read_member(source.file, source.member, name) if source.member else source.file
    if isinstance(source, bytes):
        size, opened = len(source), io.BytesIO(source)
    else:
        if reason := _NO_PICTURES.get(os.path.splitext(source)[1].lower()):
            raise UnreadableImageError(name, reason)
        if os.path.islink(source) and not os.path.lexists(os.path.realpath(source)):
            raise UnreadableImageError(name, "is a link to a file that is not there")
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # Opening a pipe waits for someone to write into it, and a device may never end.
            raise UnreadableImageError(name, "is a pipe or a device, not an image file")
        size, opened = status.st_size, source
    if size == 0:
        raise UnreadableImageError(name, "is empty (0 bytes)")
    if size > MAX_BYTES:
        raise UnreadableImageError(
            name, f"is too large ({size // 1024**2} MiB); files of at most {MAX_BYTES // 1024**2} MiB are read"
        )
    try:
        image = Image.open(opened, formats=FORMATS)
    except Image.UnidentifiedImageError:
        if reason := _why_not_read(opened):
            raise UnreadableImageError(name, reason) from None
        raise
    if page:
        image.seek(page)
    return image


def _why_not_read(opened: BinaryIO | str | Path) -> str | None:
    """Why Pillow reads nothing of a TIFF, from what its tags say of its values; None of any other file."""
    try:
        with opened if isinstance(opened, io.BytesIO) else open(str(opened), "rb") as file:
            file.seek(0)
            tags = next(tiff_directories(file), {})
        if _FLOAT in tags.get(_SAMPLE_FORMAT, ()):
            return _FLOATING
        bits = max(tags.get(_BITS, (1,)))
        # Of what has fewer, something else is wrong.
        return f"holds values of {bits} bits; save it with 8 or 16 bits per channel" if bits > _MOST_BITS else None
    except Exception:
        return None  # its tags are broken too: there is no better reason than Pillow's


def _check_structure(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse files of modest width and height that were made to be decoded for minutes or into gigabytes."""
    if image.format in ("JPEG", "MPO") and image.fp is not None:
        position = image.fp.tell()
        image.fp.seek(0)
        scans = _count_scans(image.fp.read())
        image.fp.seek(position)
        if scans > MAX_SCANS:
            raise UnreadableImageError(name, f"is a JPEG of more than {MAX_SCANS} scans: save it anew")
    if image.format == "JPEG2000" and image.width * image.height > MAX_PIXELS_JPEG2000:
        raise UnreadableImageError(
            name,
            f"is too large ({image.width} x {image.height} pixels); of JPEG 2000 at most "
            f"{MAX_PIXELS_JPEG2000 // 1_000_000} million pixels are read: save it as PNG or TIFF",
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
        if width * height > MAX_PIXELS:
            raise UnreadableImageError(name, f"is stored in tiles of {width} x {height} pixels: save it anew")
        deep_planes = image.tag_v2.get(_PLANAR) == _ONE_AFTER_ANOTHER and max(image.tag_v2[_BITS]) > 8
        if deep_planes and any(tile.codec_name == "raw" for tile in image.tile):
            # Pillow takes each byte for a pixel.
            raise UnreadableImageError(name, "stores channels of 16 bits one after another: save it compressed")


def _count_scans(jpeg: bytes) -> int:
    """Number of scans of a JPEG, counted up to `MAX_SCANS` + 1."""
    scans, position = 0, 2
    while scans <= MAX_SCANS and (marker := _JPEG_MARKER.search(jpeg, position)):
        kind, start = marker[1][0], marker.end()
        if kind == _JPEG_END:
            break
        scans += kind == _JPEG_SCAN
        position = start + int.from_bytes(jpeg[start : start + 2])
    return scans


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise UnreadableImageError(name, f"is an array of {array.dtype}; uint8 with values 0 to 255 is expected")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UnreadableImageError(name, f"is an array of shape {array.shape}; (height, width, 3) is expected")
    return Image.fromarray(array)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(name, _TOO_LARGE.format(f"{width} x {height}"))
    if max(width, height) > MAX_SIDE:
        raise UnreadableImageError(name, f"is {width} x {height} pixels; at most {MAX_SIDE} on a side are read")
    if min(width, height) < MIN_SIDE:
        raise UnreadableImageError(name, f"is {width} x {height} pixels; at least {MIN_SIDE} on each side are needed")


def _upper_8_bits(values: np.ndarray) -> np.ndarray:
    """Integers of any size → uint8. Cameras of 10, 12 or 14 bits leave the upper ones of 16 empty."""
    values = np.maximum(values, 0)
    values >>= max(int(values.max()).bit_length() - 8, 0)
    return values.astype(np.uint8)
