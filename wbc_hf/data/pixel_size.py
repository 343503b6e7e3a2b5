"""Read the size of a pixel in a photograph of a specimen from the metadata of its file, for a scale bar."""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.data.reading import FORMATS, FilePart, ImageSource
from wbc_hf.data.zip_files import read_member

# What is trusted: OME metadata, ImageJ's calibration, and a resolution in pixels per inch or centimetre, each only if
# a pixel is then as large as a microscope shows it. Light resolves 0.2 µm, so that cameras take 0.02 to 1 µm; in wider
# pixels a leucocyte has a dozen of them. A resolution of 72, 96 or 300 dpi is a screen's or a printer's default and
# says nothing of the specimen (300 dpi would be 85 µm), and the finest scanners, at 9600 dpi, are out of the range
# too. 1 µm itself is the default of programs that were never calibrated. A program that shrinks a photograph and keeps
# its metadata makes it wrong, which nothing in the file tells.
SMALLEST, LARGEST = 0.02, 1.0  # µm, the latter excluded
_SQUARE = 0.01  # width and height of a pixel may differ by this share

_MICROMETRES = {"nm": 1e-3, "µm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0}
_UNITS = {"μm": "µm", "um": "µm", "micron": "µm", "microns": "µm", "\\u00b5m": "µm", "nanometer": "nm"} | {
    unit: unit for unit in _MICROMETRES
}
_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 283, 296  # tags of TIFF and EXIF
_UNIT_OF_RESOLUTION = {2: "in", 3: "cm"}
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\s[^>]*>")


def read_pixel_size(source: ImageSource | None) -> float | None:
    """Read how wide a pixel is in the specimen, in µm.

    Args:
        source: As for `read_image`; only the file's header is read. An array or a PIL image has no file. Of several
            pages of a file the first tells for all.

    Returns:
        0.02 to 1, or None where the file does not say it credibly.
    """
    if source is None or isinstance(source, (Image.Image, np.ndarray)):
        return None
    try:
        if isinstance(source, FilePart):
            source = read_member(source.file, source.member, str(source)) if source.member else source.file
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source), formats=FORMATS) as image:
            sizes = list(_candidates(image))
    except Exception:
        # Metadata may be broken in as many ways as pictures (see `read_image`); that is no reason to refuse a picture.
        return None
    return next((size for size in sizes if size is not None and SMALLEST <= size < LARGEST), None)


def _candidates(image: Image.Image) -> Iterator[float | None]:
    """What the metadata say, the most trustworthy first."""
    exif = image.getexif()
    description = str(exif.get(_DESCRIPTION, ""))
    with suppress(UnicodeError):  # OME-XML is UTF-8, and Pillow reads every text of a TIFF as Latin-1
        description = description.encode("latin-1").decode()
    resolution = exif.get(_X_RESOLUTION), exif.get(_Y_RESOLUTION)
    if pixels := _OME_PIXELS.search(description):
        sizes = [
            _micrometres(
                _attribute(pixels[0], f"PhysicalSize{axis}"),
                _attribute(pixels[0], f"PhysicalSize{axis}Unit") or "µm",  # as OME defines it
            )
            for axis in "XY"
        ]
        yield _square(*sizes)
    if description.startswith("ImageJ=") and (unit := re.search(r"^unit=(.+)$", description, re.MULTILINE)):
        yield _square(*(_micrometres(_inverse(per_unit), unit[1].strip()) for per_unit in resolution))
    unit_of_resolution = _UNIT_OF_RESOLUTION.get(exif.get(_RESOLUTION_UNIT, 2))
    yield _square(*(_micrometres(_inverse(per_unit), unit_of_resolution) for per_unit in resolution))
    # JFIF, PNG and BMP; Pillow gives all of them in dots per inch.
    yield _square(*(_micrometres(_inverse(dots), "in") for dots in image.info.get("dpi", (None, None))))


def _attribute(tag: str, name: str) -> str | None:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return None if found is None else found[1]


def _micrometres(length: str | float | None, unit: str | None) -> float | None:
    """A length in µm; "pixel" and the like are no units of it."""
    name = None if unit is None else _UNITS.get(unit.lower())
    return None if length is None or name is None else float(length) * _MICROMETRES[name]


def _inverse(per_unit: float | None) -> float | None:
    return 1 / float(per_unit) if per_unit else None


def _square(width: float | None, height: float | None) -> float | None:
    """The width of a pixel, if it is square or its height is not said."""
    if width is None or (height is not None and abs(width - height) > _SQUARE * width):
        return None
    return width
