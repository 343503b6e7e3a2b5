"""Crop one cell out of a field, in one or more framings."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open
# x0, y0, x1, y1 of a part of a picture, in shares of its sides.
Framing = tuple[float, float, float, float]
WHOLE: Framing = (0.0, 0.0, 1.0, 1.0)

# Side of a picture of one cell in widths of the cell, where a model names none.
DEFAULT_SPAN = 1.5


def crop_cell(field: Image.Image, box: Box, span: float = DEFAULT_SPAN) -> Image.Image:
    """Crop one cell as classifiers expect it: RGB, square, `span` times as wide as the cell.

    Near the border the square moves inwards. A field that is smaller than the square is padded by replicating its
    outermost pixels.

    Args:
        field: RGB.
        box: Of the cell, in pixels of the field.
        span: Side of the crop in widths of the cell.
    """
    import cv2

    left, top, side = _crop_window(field, box, span)
    right, bottom = left + side, top + side
    inside = max(left, 0), max(top, 0), min(right, field.width), min(bottom, field.height)
    pixels = np.asarray(field.crop(inside))
    margins = inside[1] - top, bottom - inside[3], inside[0] - left, right - inside[2]
    return Image.fromarray(cv2.copyMakeBorder(pixels, *margins, cv2.BORDER_REPLICATE))


def orientations(image: Image.Image) -> list[Image.Image]:
    """A picture in all eight orientations of a square: as it is, its three quarter turns, its four mirror images."""
    it = Image.Transpose
    turns = (it.ROTATE_90, it.ROTATE_180, it.ROTATE_270)
    mirrors = (it.FLIP_LEFT_RIGHT, it.FLIP_TOP_BOTTOM, it.TRANSPOSE, it.TRANSVERSE)
    return [image, *(image.transpose(each) for each in (*turns, *mirrors))]


def framings_within(field: Image.Image, box: Box, spans: Sequence[float]) -> tuple[Framing, ...]:
    """Where the crops of one cell lie within the widest of them, as `crop_cell` cuts them out.

    Args:
        field: RGB.
        box: Of the cell, in pixels of the field.
        spans: Sides of the crops in widths of the cell.

    Returns:
        A framing for each span, of which that of the widest is `WHOLE`.
    """
    left, top, side = _crop_window(field, box, max(spans))
    framings = []
    for span in spans:
        x, y, width = _crop_window(field, box, span)
        # In a field smaller than the widest crop, a narrower one may lie beyond it, which is moved inwards too.
        x0, y0 = (min(max(0, start), side - width) for start in (x - left, y - top))
        framings.append((x0 / side, y0 / side, (x0 + width) / side, (y0 + width) / side))
    return tuple(framings)


def cut_framing(picture: Image.Image, framing: Framing) -> Image.Image:
    """Cut a part out of a picture of one cell."""
    x0, y0, x1, y1 = framing
    return picture.crop(
        (round(x0 * picture.width), round(y0 * picture.height), round(x1 * picture.width), round(y1 * picture.height))
    )


def _crop_window(field: Image.Image, box: Box, span: float) -> tuple[int, int, int]:
    """Left, top and side of the square around a cell, in pixels of the field, which it may reach beyond."""
    x0, y0, x1, y1 = box
    side = max(1, round(span * max(x1 - x0, y1 - y0)))
    return _window((x0 + x1) / 2, side, field.width), _window((y0 + y1) / 2, side, field.height), side


def _window(centre: float, side: int, length: int) -> int:
    """First pixel of a window of `side` pixels around `centre`, moved into `length` if it fits there."""
    start = round(centre - side / 2)
    if side <= length:
        start = min(max(start, 0), length - side)
    return start
