"""Detect leucocytes in a photograph of a smear by colour and shape, for any Romanowsky stain. Nothing is learned.

1. Colour deconvolution: optical densities relative to the background (Ruifrok & Johnston 2001). Nuclei absorb red and
   green light and let blue pass, red cells absorb blue as well.
2. Scale: all lengths and areas below are relative to a red cell, and the field is resized until red cells are 28
   pixels wide. In a field without red cells the leucocytes give the scale.
3. Segmentation: purple regions are split at their necks into lobes and touching nuclei.
4. Merging: parts that fit into one cell are joined again, the most compact union first.
5. A part with enough chromatin for a nucleus is a leucocyte; its box is that of a circle around the nucleus.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import pairwise
from math import dist
from statistics import median_high

import cv2
import numpy as np
from PIL import Image

from wbc_hf.data import (
    PURPLE,
    SMALLEST_PART,
    Box,
    ImageSource,
    cut_necks,
    disc_area,
    distance_inside,
    ellipse,
    fill_round_holes,
    nucleus_mask,
    optical_densities,
    purple_of,
    read_image,
)

# Red cells are measured on the smallest version of a field that shows them at least this wide, in pixels.
_OVERVIEW_PIXELS = 640 * 480
_OVERVIEW_RED_CELL = 12
_OVERVIEW_MAX_PIXELS = 4_000_000
# Narrower red cells, in pixels of the field, are letters or noise; leucocytes beside them are too small to classify.
_SMALLEST_RED_CELL = 8
# Nuclei are segmented where a red cell is this wide: the gap between two lobes is then some three pixels.
_RED_CELL = 28
_MAX_ENLARGEMENT = 3
_MAX_PIXELS = 8_000_000

# No Romanowsky stain colours anything green: smears have at most 0.12 green pixels per purple one, 0.7 with a black
# margin, but coloured noise has 1.
_MOST_GREEN = 0.8
# Green densities are clipped at about that of red cells, so that nuclei and granules do not raise the threshold
# between red cells and background.
_RED_CELL_DENSITY = 0.4
# A red cell is this much wider than the largest disc in the part of it that is above that threshold.
_RED_CELL_RIM = 1.15
# Share of the volume of all discs below the typical one: dirt and gaps make many small discs, clumps few large ones.
# Of the rules tried, this one agrees best with annotated red cells.
_TYPICAL = 0.4
# A leucocyte is this many red cells wide, typically and at most.
_LEUCOCYTE, _WIDEST_LEUCOCYTE = 1.5, 2.0
# A picture without red cells shows one leucocyte or a few, not letters in blue ink: their share of its side.
_LONE_LEUCOCYTE = 0.1

# Widths in diameters and areas in areas of a red cell.
_SMALLEST_NUCLEUS = 0.25
# Platelets and debris of that size are pale: area times purple, at least 0.3 in leucocytes, less in them.
_LEAST_CHROMATIN = 0.3
# The leucocytes of one field have at least 0.33 of their median; giant platelets have less.
_CHROMATIN_SHARE = 0.3
_LARGEST_GAP = 0.45  # between two lobes
# Circles round two lobes of one nucleus overlap: their centres are nearer than this share of the sum of their radii.
# Those of two cells do not, even if the cells touch, since there is cytoplasm between the nuclei.
_OVERLAP = 0.94
# Lobes farther apart are rarely wider than the second together, nuclei of two cells rarely narrower than the first.
_SURELY_ONE, _WIDEST_NUCLEUS = 1.8, 2.2
# Share of its enclosing circle that a lobed nucleus covers at least.
_SMALLEST_FILL = 0.28
# A part as large and as round as a small lymphocyte's nucleus is not a lobe.
_WHOLE_AREA, _WHOLE_FILL = 0.52, 0.87
# A cell is this much wider than the circle round its nucleus: 1.12 times in lymphocytes, 1.25 in neutrophils.
_CELL = 1.18
# A cell counts as whole if less than this share of its width lies beyond the border.
_CUT = 0.02
# A crop is this much wider than the cell.
_CROP = 1.5


@dataclass(frozen=True)
class FoundCell:
    """One leucocyte in a field.

    Attributes:
        box: x0, y0, x1, y1 of the whole cell in pixels, half-open, clipped to the field.
        cut: Whether the border of the field cuts it off.
    """

    box: Box
    cut: bool


@dataclass(frozen=True)
class _Part:
    """A purple region: a lobe, several lobes, or a nucleus.

    Attributes:
        area: In areas of a red cell.
        chromatin: Area times purple.
        outline: int32 (k, 2), vertices of its convex hull in pixels.
        red_cell: Diameter of a red cell in pixels.
    """

    area: float
    chromatin: float
    outline: np.ndarray
    red_cell: float

    @cached_property
    def circle(self) -> tuple[tuple[float, float], float]:
        """Centre and radius in pixels of the smallest enclosing circle."""
        (x, y), radius = cv2.minEnclosingCircle(self.outline)
        return (x, y), radius

    @property
    def width(self) -> float:
        """Of the circle, in diameters of a red cell."""
        return 2 * self.circle[1] / self.red_cell

    @property
    def fill(self) -> float:
        """Share of the circle that it covers, 0 to about 1."""
        return self.area / self.width**2

    @property
    def is_whole(self) -> bool:
        """Whether it is a round nucleus, not a lobe."""
        return self.area > _WHOLE_AREA and self.fill > _WHOLE_FILL

    @property
    def is_nucleus(self) -> bool:
        return self.area >= _SMALLEST_NUCLEUS and self.chromatin >= _LEAST_CHROMATIN

    def __add__(self, other: "_Part") -> "_Part":
        outline = cv2.convexHull(np.concatenate([self.outline, other.outline]))[:, 0]
        return _Part(self.area + other.area, self.chromatin + other.chromatin, outline, self.red_cell)


def find_cells(image: ImageSource) -> list[FoundCell]:
    """Detect the leucocytes in a photograph of a stained smear.

    Red cells, dirt and nearly all platelets are left out. A picture that shows no smear gives none or few.

    Args:
        image: Path, bytes of an image file, PIL image, or uint8 array (height, width, 3) in RGB order. A PIL image in
            mode RGB may have any size.

    Returns:
        The cells in reading order: row by row from the top, each row from the left.

    Raises:
        UnreadableImageError: From `read_image`.

    Example:
        >>> from wbc_hf import find_cells
        >>> [cell.box for cell in find_cells("field.jpg")]
    """
    field = image if isinstance(image, Image.Image) and image.mode == "RGB" else read_image(image)
    red_cell = _measure_red_cell(field)
    if red_cell < _SMALLEST_RED_CELL:
        return []
    limit = min(_MAX_ENLARGEMENT, (_MAX_PIXELS / (field.width * field.height)) ** 0.5)
    pixels = _resize(field, min(_RED_CELL / red_cell, limit))
    scale = np.array(field.size) / pixels.shape[1::-1]
    nuclei = _find_nuclei(purple_of(optical_densities(pixels)), red_cell / float(scale.mean()))
    return _in_reading_order(_cell_of(nucleus, field.size, scale) for nucleus in nuclei)


def crop_cell(field: Image.Image, box: Box) -> Image.Image:
    """Crop one cell as classifiers expect it: RGB, square, 1.5 times as wide as the cell.

    Near the border the square moves inwards. A field that is smaller than the square is padded by replicating its
    outermost pixels.

    Args:
        field: RGB.
        box: Of the cell, in pixels of the field.
    """
    x0, y0, x1, y1 = box
    side = max(1, round(_CROP * max(x1 - x0, y1 - y0)))
    left, right = _window((x0 + x1) / 2, side, field.width)
    top, bottom = _window((y0 + y1) / 2, side, field.height)
    inside = max(left, 0), max(top, 0), min(right, field.width), min(bottom, field.height)
    pixels = np.asarray(field.crop(inside))
    margins = inside[1] - top, bottom - inside[3], inside[0] - left, right - inside[2]
    return Image.fromarray(cv2.copyMakeBorder(pixels, *margins, cv2.BORDER_REPLICATE))


def _window(centre: float, side: int, length: int) -> tuple[int, int]:
    """First and last pixel of a window of `side` pixels around `centre`, moved into `length` if it fits there."""
    start = round(centre - side / 2)
    if side <= length:
        start = min(max(start, 0), length - side)
    return start, start + side


def _resize(field: Image.Image, scale: float) -> np.ndarray:
    """Resize a field by `scale`, to at least one pixel: RGB (height, width, 3) uint8."""
    size = max(1, round(field.width * scale)), max(1, round(field.height * scale))
    if scale < 1:
        return np.asarray(field.resize(size, Image.Resampling.BOX, reducing_gap=2.0))
    return np.asarray(field.resize(size, Image.Resampling.BILINEAR))


# ---- scale


def _measure_red_cell(field: Image.Image) -> float:
    """Diameter of a typical red cell in pixels of the field; 0 if there is none."""
    pixels = field.width * field.height
    scale = min(1.0, (_OVERVIEW_PIXELS / pixels) ** 0.5)
    largest = min(1.0, (_OVERVIEW_MAX_PIXELS / pixels) ** 0.5)
    while True:
        red_cell = _red_cell_in(optical_densities(_resize(field, scale)))
        if red_cell >= _OVERVIEW_RED_CELL or scale >= largest:
            return red_cell / scale
        scale = min(2 * scale, largest)


def _red_cell_in(densities: np.ndarray) -> float:
    """Diameter of a typical red cell in pixels.

    It is the largest disc that fits into the cell: most red cells overlap others, but their discs are hardly larger.
    """
    purple = purple_of(densities) > PURPLE
    if (densities @ np.array([1, -2, 1], np.float32) > PURPLE).sum() > _MOST_GREEN * purple.sum():
        return 0.0
    nuclei = cv2.dilate(purple.astype(np.uint8), np.ones((5, 5), np.uint8))
    if nuclei.all():
        return 0.0
    green = np.clip(densities[..., 1] * (255 / _RED_CELL_DENSITY), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(green[nuclei == 0][None], 0, 255, cv2.THRESH_OTSU)
    x, y, radius = _discs(fill_round_holes(((green > threshold) | (nuclei > 0)).astype(np.uint8)))
    half = (radius / 2).astype(int)
    parts = zip(np.maximum(y - half, 0), y + half + 1, np.maximum(x - half, 0), x + half + 1, strict=True)
    is_leucocyte = np.array([nuclei[top:bottom, left:right].mean() > 0.2 for top, bottom, left, right in parts], bool)
    height, width = nuclei.shape
    is_whole = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) > 1.1 * radius
    red, white = _typical_radius(radius[is_whole & ~is_leucocyte]), _typical_radius(radius[is_leucocyte])
    if red == 0:
        return 2 * white / _LEUCOCYTE if 2 * white > _LONE_LEUCOCYTE * (width * height) ** 0.5 else 0.0
    return 2 * max(_RED_CELL_RIM * red, white / _WIDEST_LEUCOCYTE)


def _discs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres x and y and radii of the largest discs in the mask, without those centred in a larger one."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    peaks = (distance == cv2.dilate(distance, np.ones((9, 9), np.uint8))) & (distance > 3)
    x, y = cv2.connectedComponentsWithStats(peaks.astype(np.uint8))[3][1:].round().astype(int).T
    radius = distance[y, x]
    largest = np.zeros(mask.shape, np.int32)
    for index in np.argsort(radius, kind="stable").tolist():
        cv2.circle(largest, (int(x[index]), int(y[index])), int(radius[index]), index, cv2.FILLED)
    is_largest = largest[y, x] == np.arange(len(x))
    return x[is_largest], y[is_largest], radius[is_largest]


def _typical_radius(radius: np.ndarray) -> float:
    """The radius below which the share `_TYPICAL` of the volume of all discs lies; 0 if there are none."""
    radius = np.sort(radius[radius > 0])
    volume = np.cumsum(radius**3)
    return float(radius[np.searchsorted(volume, _TYPICAL * volume[-1])]) if len(radius) else 0.0


# ---- nuclei


def _find_nuclei(purple: np.ndarray, red_cell: float) -> list[_Part]:
    """Segment the nuclei of leucocytes, each as one part."""
    labels = cut_necks(distance_inside(nucleus_mask(purple, red_cell)), red_cell)
    nuclei = [part for parts in _clusters(labels, purple, red_cell) for part in _join(parts) if part.is_nucleus]
    least = _CHROMATIN_SHARE * median_high([nucleus.chromatin for nucleus in nuclei]) if nuclei else 0
    return [nucleus for nucleus in nuclei if nucleus.chromatin >= least]


def _clusters(labels: np.ndarray, purple: np.ndarray, red_cell: float) -> Iterable[list[_Part]]:
    """Group the parts: within a group no gap is too wide for one nucleus."""
    _, near = cv2.connectedComponents(cv2.dilate((labels > 0).astype(np.uint8), ellipse(_LARGEST_GAP * red_cell)))
    y, x = np.nonzero(labels)
    order = np.argsort(labels[y, x], kind="stable")
    y, x = y[order], x[order]
    points = np.column_stack([x, y]).astype(np.int32)
    bounds = [0, *np.flatnonzero(np.diff(labels[y, x])) + 1, len(points)]
    clusters: dict[int, list[_Part]] = defaultdict(list)
    for start, stop in pairwise(bounds):
        area = (stop - start) / disc_area(red_cell)
        if area > SMALLEST_PART:
            chromatin = area * float(purple[y[start:stop], x[start:stop]].mean())
            part = _Part(area, chromatin, cv2.convexHull(points[start:stop])[:, 0], red_cell)
            clusters[near[y[start], x[start]]].append(part)
    return clusters.values()


def _join(parts: list[_Part]) -> list[_Part]:
    """Merge parts into nuclei, the most compact of all unions that fit into one cell first."""
    nuclei: dict[int, _Part] = {}
    unions: list[tuple[float, int, int]] = []
    for index, part in enumerate(parts):
        _add_nucleus(index, part, nuclei, unions)
    while unions:
        _, one, other = heappop(unions)
        if one in nuclei and other in nuclei:
            index += 1
            _add_nucleus(index, nuclei.pop(one) + nuclei.pop(other), nuclei, unions)
    return list(nuclei.values())


def _add_nucleus(index: int, part: _Part, nuclei: dict[int, _Part], unions: list[tuple[float, int, int]]) -> None:
    """Add a part to the nuclei, and to the heap its unions with the others."""
    for other, nucleus in nuclei.items():
        if _belong_together(part, nucleus):
            heappush(unions, (-(part + nucleus).fill, index, other))
    nuclei[index] = part


def _belong_together(first: _Part, second: _Part) -> bool:
    """Whether both fit into one cell."""
    (a, first_radius), (b, second_radius) = first.circle, second.circle
    apart = dist(a, b)
    overlap = apart < _OVERLAP * (first_radius + second_radius)
    if not overlap and apart > _WIDEST_NUCLEUS * first.red_cell:
        return False
    union = first + second
    widest = _SURELY_ONE if first.is_whole or second.is_whole else _WIDEST_NUCLEUS
    return union.fill >= _SMALLEST_FILL and (overlap or union.width < widest)


# ---- cells


def _cell_of(nucleus: _Part, size: tuple[int, int], scale: np.ndarray) -> FoundCell:
    """The cell around a nucleus, in pixels of the field: a leucocyte is round even if its nucleus is not."""
    (x, y), radius = nucleus.circle
    centre = np.array([x, y])
    low, high = (centre - _CELL * radius) * scale, (centre + 1 + _CELL * radius) * scale
    beyond = max(*-low, *(high - size)) / (high - low).max()
    x0, y0 = np.maximum(np.floor(low), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(high), size).astype(int).tolist()
    return FoundCell((x0, y0, x1, y1), bool(beyond > _CUT))


def _in_reading_order(cells: Iterable[FoundCell]) -> list[FoundCell]:
    """Sort by rows; a row is as high as its first cell."""
    rows: list[list[FoundCell]] = []
    for cell in sorted(cells, key=lambda cell: (cell.box[1] + cell.box[3], cell.box)):
        if not rows or (cell.box[1] + cell.box[3]) / 2 >= rows[-1][0].box[3]:
            rows.append([])
        rows[-1].append(cell)
    return [cell for row in rows for cell in sorted(row, key=lambda cell: (cell.box[0] + cell.box[2], cell.box))]
