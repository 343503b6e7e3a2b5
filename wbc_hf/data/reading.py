"""The one boundary: whatever a user gives becomes an upright RGB image here, or an error that names it and why."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wbc_hf.errors import UnreadableImageError

ImageSource = str | Path | bytes | Image.Image | np.ndarray

# A cell is at most a few hundred pixels wide and a field at most a few thousand: more is a mistake or an attack.
MAX_PIXELS = 50_000_000
MIN_SIDE = 16
# Pillow can open formats that call outside programs (EPS) or hold no photograph: only these are tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pnm", ".jp2", ".j2k"}
)

_EMPTY = "is empty (0 bytes)"
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError, struct.error)


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
        image = _open(source, name)
        _check_size(image, name)
        image = ImageOps.exif_transpose(image)
        return _to_rgb(image, name)
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
    except _BROKEN as error:
        raise UnreadableImageError(name, f"is broken or cut short ({error})") from None


def _open(source: ImageSource, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, bytes):
        if not source:
            raise UnreadableImageError(name, _EMPTY)
        return Image.open(io.BytesIO(source), formats=FORMATS)
    if Path(source).is_file() and Path(source).stat().st_size == 0:
        raise UnreadableImageError(name, _EMPTY)
    return Image.open(source, formats=FORMATS)


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
    if min(width, height) < MIN_SIDE:
        raise UnreadableImageError(name, f"is {width} x {height} pixels; at least {MIN_SIDE} on each side are needed")


def _too_large(size: str) -> str:
    return f"is too large ({size} pixels); at most {MAX_PIXELS // 1_000_000} million pixels are read: crop it first"


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImageError(name, "holds floating-point values; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        image = Image.fromarray(_upper_8_bits(np.asarray(image)))
    return image.convert("RGB")


def _upper_8_bits(values: np.ndarray) -> np.ndarray:
    """Integers of any size → uint8. Cameras of 10, 12 or 14 bits leave the upper ones of 16 empty: not counted."""
    values = np.maximum(values, 0)
    return (values >> max(int(values.max()).bit_length() - 8, 0)).astype(np.uint8)
