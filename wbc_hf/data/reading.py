"""The one boundary: whatever a user gives becomes an upright RGB image here, or an error that names it and why."""

import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from wbc_hf.errors import UnreadableImageError

ImageSource = str | Path | bytes | Image.Image | np.ndarray

# A cell is at most a few hundred pixels wide and a field at most a few thousand: more is a mistake or an attack.
MAX_PIXELS = 50_000_000
MIN_SIDE = 16
MAX_SIDE = 65_535  # what a JPEG can hold
MAX_BYTES = 512 * 1024**2  # 50 million pixels of 16-bit RGBA take 400 MB uncompressed
# Decoding goes over all pixels once a scan, however few bytes it has. Encoders write about ten.
MAX_SCANS = 50
# OpenJPEG keeps books of every block of 4 x 4: measured, 90 bytes a pixel, out of a file of a few hundred bytes.
MAX_PIXELS_JPEG2000 = 12_000_000
# Pillow can open formats that call outside programs (EPS) or hold no photograph: only these are tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pnm", ".jp2", ".j2k"}
)

_EMPTY = "is empty (0 bytes)"
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # FF 00 is a pixel's, FF D0 to D7 stand within a scan
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # TIFF tags

# Pillow tells of broken metadata as it goes, without the file's name; what matters comes back as an error. Set once
# for the whole process: `warnings.catch_warnings` is not safe in the threads that read.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def read_image(source: ImageSource, name: str | None = None) -> Image.Image:
    """Turn one input into an upright 8-bit RGB image.

    The conversion is Pillow's `exif_transpose` and `convert("RGB")`, as in transformers' own pipeline, so that both
    see the same picture. The exception is grey of more than 8 bits, which Pillow would clip to white: of the bits in
    use the upper 8 are kept. Of an animation the first frame is taken.

    Args:
        source: A path, the bytes of an image file, a PIL image of any mode, or a uint8 array (height, width) or
            (height, width, 1, 3 or 4), RGB order, values 0 to 255.
        name: What errors call the input; by default its path, or "image".

    Raises:
        UnreadableImageError: Not an image, broken, of a kind that cannot be classified, or of an impossible size.
    """
    if isinstance(source, (str, Path)):
        name = name or str(source)
    elif isinstance(source, Image.Image):
        name = name or getattr(source, "filename", None) or "image"
    else:
        name = name or "image"
    try:
        return _read(source, name)
    except UnreadableImageError as error:
        # Errors are kept for reports: with its traceback each would keep a half decoded picture in memory as well.
        error.__cause__ = error.__context__ = None
        problem = error.with_traceback(None)
    raise problem


def _read(source: ImageSource, name: str) -> Image.Image:
    with _decoding(name):
        image = _open(source, name)
    _check_size(image, name)
    with _decoding(name):
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise UnreadableImageError(name, "holds floating-point values; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        image = Image.fromarray(_upper_8_bits(np.asarray(image)))
    with _decoding(name):
        return image.convert("RGB")


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Around calls of Pillow: whatever goes wrong in there becomes an error that names the image and says why."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        # Pillow's own limit, met before ours.
        raise UnreadableImageError(
            name, _too_large(f"over {2 * Image.MAX_IMAGE_PIXELS // 1_000_000} million")
        ) from None
    except FileNotFoundError:
        raise UnreadableImageError(name, "there is no such file") from None
    except IsADirectoryError:
        raise UnreadableImageError(name, "is a folder, not an image file") from None
    except PermissionError:
        raise UnreadableImageError(name, "may not be read: check its permissions") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImageError(name, f"is not a picture in a known format ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise UnreadableImageError(name, "needs more memory than there is") from None
    except Exception as error:
        # Pillow promises no set of exceptions: on broken files its readers raise OSError, ValueError, SyntaxError,
        # EOFError, struct.error, zlib.error, KeyError, TypeError, AttributeError … Only its calls stand inside.
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadableImageError(name, f"could not be read ({error.strerror})") from error
        raise UnreadableImageError(name, f"is broken or cut short ({_in_words(error)})") from error


def _in_words(error: Exception) -> str:
    """One short line. Where Pillow did not see it coming the text alone says nothing: KeyError(273) is "273"."""
    text = " ".join(str(error).split())[:200]
    foreseen = text and isinstance(error, (OSError, ValueError, SyntaxError))
    return text if foreseen else f"{type(error).__name__} {text}".strip()


def _open(source: ImageSource, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, bytes):
        size, opened = len(source), io.BytesIO(source)
    else:
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # Opening a pipe waits for someone to write into it, and a device may never end.
            raise UnreadableImageError(name, "is a pipe or a device, not an image file")
        size, opened = status.st_size, source
    if size == 0:
        raise UnreadableImageError(name, _EMPTY)
    if size > MAX_BYTES:
        raise UnreadableImageError(
            name, f"is too large ({size // 1024**2} MiB); files of at most {MAX_BYTES // 1024**2} MiB are read"
        )
    image = Image.open(opened, formats=FORMATS)
    _check_structure(image, name)
    return image


def _check_structure(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse what a modest width and height do not tell of: files made to be decoded for minutes or into gigabytes."""
    if image.format in ("JPEG", "MPO"):
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
    if image.format == "TIFF":
        width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
        if width * height > MAX_PIXELS:
            raise UnreadableImageError(name, f"is stored in tiles of {width} x {height} pixels: save it anew")


def _count_scans(jpeg: bytes) -> int:
    """How often a JPEG goes over its pixels; stops counting above `MAX_SCANS`."""
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
        raise UnreadableImageError(name, _too_large(f"{width} x {height}"))
    if max(width, height) > MAX_SIDE:
        raise UnreadableImageError(name, f"is {width} x {height} pixels; at most {MAX_SIDE} on a side are read")
    if min(width, height) < MIN_SIDE:
        raise UnreadableImageError(name, f"is {width} x {height} pixels; at least {MIN_SIDE} on each side are needed")


def _too_large(size: str) -> str:
    return f"is too large ({size} pixels); at most {MAX_PIXELS // 1_000_000} million pixels are read: crop it first"


def _upper_8_bits(values: np.ndarray) -> np.ndarray:
    """Integers of any size → uint8. Cameras of 10, 12 or 14 bits leave the upper ones of 16 empty: not counted."""
    values = np.maximum(values, 0)
    values >>= max(int(values.max()).bit_length() - 8, 0)
    return values.astype(np.uint8)
