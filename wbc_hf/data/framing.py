"""Crop one cell out of a field; locate the nucleus in a picture of one cell, and crop views framed on it."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from wbc_hf.data.box_files import Box

# x0, y0, x1, y1 of a part of a picture, in shares of its sides.
Framing = tuple[float, float, float, float]
WHOLE: Framing = (0.0, 0.0, 1.0, 1.0)

# Side of a picture of one cell in widths of the cell, where a model names none.
DEFAULT_SPAN = 1.5

# Optical density is that of no less light than this.
DARKEST = 1 / 255
_COARSE = 40  # side of the reduced picture in which nuclei are located, in pixels
_NEAR = 0.75  # of the half side: dark pixels further out belong to a neighbour
# Density of green light, which chromatin takes up most: from the level of most pixels up to that of the darkest.
_USUAL, _DARK, _BETWEEN = 0.4, 0.985, 0.6


def locate_nuclei(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Locate the nucleus near the middle of each picture: a quick estimate for batches.

    The extent is the diameter of a disc with the variance of the dark pixels: of a lobed nucleus nearly what all its
    lobes span together. For a segmentation of single pictures see `nuclei`.

    Args:
        images: float32 (n, 3, height, width), RGB, values 0 to 1.

    Returns:
        Centres (n, 2), x and y from -1 (left, top) to 1; and extents (n,), in sides of the picture.
    """
    density = -torch.log(images[:, 1:2].clamp_min(DARKEST))
    density = F.avg_pool2d(density, max(1, min(images.shape[2:]) // _COARSE))[:, 0]
    height, width = density.shape[1:]
    usual, dark = torch.quantile(density.flatten(1), torch.tensor([_USUAL, _DARK], device=images.device), dim=1)
    threshold = usual + _BETWEEN * (dark - usual)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    inside = ((density > threshold.view(-1, 1, 1)) & (x**2 + y**2 < _NEAR**2)).float()
    pixels = inside.sum((1, 2)).clamp_min(1)
    centre = torch.stack([(inside * axis).sum((1, 2)) / pixels for axis in (x, y)], 1)
    distance = (x - centre[:, 0].view(-1, 1, 1)) ** 2 + (y - centre[:, 1].view(-1, 1, 1)) ** 2
    # Pixels of a disc lie at 1 / sqrt(2) of its radius in the quadratic mean; the picture is 2 wide here.
    return centre, math.sqrt(2) * ((inside * distance).sum((1, 2)) / pixels).sqrt()


def frame(
    images: torch.Tensor, size: int, centre: torch.Tensor, view: torch.Tensor, turn: torch.Tensor | None = None
) -> torch.Tensor:
    """Crop square views of pictures in one resampling; what lies outside is mirrored.

    Args:
        images: float32 (n, channels, height, width).
        size: Side of a view, in pixels.
        centre: (n, 2), x and y from -1 to 1.
        view: (n,), side of the view in sides of the picture.
        turn: (n, 2, 2), linear map of the view's axes into the picture; by default the identity.

    Returns:
        float32 (n, channels, size, size).
    """
    if turn is None:
        turn = torch.eye(2, device=images.device).expand(len(images), 2, 2)
    theta = torch.cat([turn * view.view(-1, 1, 1), centre.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def crop_cell(field: Image.Image, box: Box, span: float = DEFAULT_SPAN) -> Image.Image:
    """Crop one cell as classifiers expect it: RGB, square, `span` times as wide as the cell.

    Near the border the square moves inwards. A field that is smaller than the square is padded by replicating its
    outermost pixels.

    Args:
        field: RGB.
        box: Of the cell, in pixels of the field.
        span: Side of the crop in widths of the cell.
    """
    left, top, side = _crop_window(field, box, span)
    right, bottom = left + side, top + side
    inside = max(left, 0), max(top, 0), min(right, field.width), min(bottom, field.height)
    pixels = np.asarray(field.crop(inside))
    margins = inside[1] - top, bottom - inside[3], inside[0] - left, right - inside[2]
    return Image.fromarray(cv2.copyMakeBorder(pixels, *margins, cv2.BORDER_REPLICATE))


def orientations(image: Image.Image) -> list[Image.Image]:
    """A picture in all eight orientations of a square: as it is, then turned by quarters and mirrored."""
    return [image, *(image.transpose(each) for each in Image.Transpose)]


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
