"""Find the leucocytes in a photograph of a stained smear, by what every Romanowsky stain does. Nothing here is learnt.

1. Optical densities: how much light each pixel takes away in relation to the background (Ruifrok & Johnston 2001).
   Nuclei take away red and green and let blue pass, red cells take away blue as well.
2. The red cells are the ruler: all lengths and areas below are relative to theirs, and the picture is resized until
   they are 28 pixels wide. Where there are none, the leucocytes themselves serve.
3. What is purple enough falls into parts: lobes, and nuclei that touch, are cut at their necks.
4. Parts that fit into one cell are joined again, the most compact union first.
5. What is left and holds chromatin enough for a nucleus is a leucocyte; its cell is a circle round the nucleus.
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
    cut_necks,
    disc_area,
    distance_inside,
    ellipse,
    fill_round_holes,
    nucleus_mask,
    optical_densities,
    purple_of,
)

# Red cells are measured on the smallest copy of a picture that shows them wide enough, in pixels.
_OVERVIEW_PIXELS = 640 * 480
_OVERVIEW_RED_CELL = 12
_OVERVIEW_MAX_PIXELS = 4_000_000
# Narrower red cells, in pixels of the field, are letters or noise; of leucocytes beside them nothing could be told.
_SMALLEST_RED_CELL = 8
# Nuclei are looked for where a red cell is this wide: the gap between two lobes is then some three pixels.
_RED_CELL = 28
_MAX_ENLARGEMENT = 3
_MAX_PIXELS = 8_000_000

# No Romanowsky stain makes anything green: 0.12 pixels at most for each purple one in smears, 0.7 where a margin is
# black, but 1 in coloured noise.
_MOST_GREEN = 0.8
# Red cells are about as dense as this in green light; all that is denser counts as much, so that nuclei and granules
# do not draw the threshold between red cells and background up.
_RED_CELL_DENSITY = 0.4
# A red cell is this much wider than the largest disc in the part of it that is above that threshold.
_RED_CELL_RIM = 1.15
# Of the volume of all discs, the share in smaller ones than the typical: dirt and gaps make many small discs, clumps
# few large ones. Of the rules tried, this one agrees best with the red cells that people boxed.
_TYPICAL = 0.4
# A leucocyte is this many red cells wide, typically and at most.
_LEUCOCYTE, _WIDEST_LEUCOCYTE = 1.5, 2.0
# A picture without red cells shows one leucocyte or a few, not letters in blue ink: they take this share of its side.
_LONE_LEUCOCYTE = 0.1

# Widths in diameters and areas in areas of a red cell.
_SMALLEST_NUCLEUS = 0.25
# Platelets and debris of that size are pale: area times purple, from 0.3 upwards in leucocytes, less in those.
_LEAST_CHROMATIN = 0.3
# Leucocytes of one field hold about as much as each other, 0.33 of the median at least; giant platelets hold less.
_CHROMATIN_SHARE = 0.3
_LARGEST_GAP = 0.45  # between two lobes
# Circles round two lobes of one nucleus overlap: their centres are nearer than this share of the sum of their radii.
# Those of two cells do not, not even where the cells touch, since there is cytoplasm between the nuclei.
_OVERLAP = 0.94
# Lobes farther apart are rarely wider than the second together, nuclei of two cells rarely narrower than the first.
_SURELY_ONE, _WIDEST_NUCLEUS = 1.8, 2.2
# Share of its enclosing circle that a lobed nucleus covers at least.
_SMALLEST_FILL = 0.28
# What is as large as a small lymphocyte's nucleus and as round is no lobe.
_WHOLE_AREA, _WHOLE_FILL = 0.52, 0.87
# A cell is this much wider than the circle round its nucleus: 1.12 times in lymphocytes, 1.25 in neutrophils.
_CELL = 1.18
# A cell of which less than this share of the width lies beyond the border is whole as far as can be told.
_CUT = 0.02
# A picture of one cell is this much wider than the cell.
_CROP = 1.5


@dataclass(frozen=True)
class FoundCell:
    """One leucocyte in a field.

    Attributes:
        box: x0, y0, x1, y1 in pixels, half-open, clipped to the field, round the whole cell.
        cut: Whether the border of the field cuts it off.
    """

    box: Box
    cut: bool


@dataclass(frozen=True)
class _Part:
    """Purple pixels that belong together: a lobe, several, or a nucleus.

    Attributes:
        area: In areas of a red cell.
        chromatin: Area times purple.
        outline: int32 (k, 2), the corners of its convex hull in pixels.
        red_cell: Diameter of a red cell in pixels.
    """

    area: float
    chromatin: float
    outline: np.ndarray
    red_cell: float

    @cached_property
    def circle(self) -> tuple[tuple[float, float], float]:
        """Centre and radius in pixels of the smallest circle round it."""
        return cv2.minEnclosingCircle(self.outline)

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


def find_cells(field: Image.Image) -> list[FoundCell]:
    """The leucocytes of a field, row by row from the top, each row from the left.

    Red cells, dirt and nearly all platelets are left out. A picture that shows no smear gives none or few.

    Args:
        field: RGB, any size.
    """
    red_cell = _measure_red_cell(field)
    if red_cell < _SMALLEST_RED_CELL:
        return []
    limit = min(_MAX_ENLARGEMENT, (_MAX_PIXELS / (field.width * field.height)) ** 0.5)
    pixels = _resize(field, min(_RED_CELL / red_cell, limit))
    scale = np.array(field.size) / pixels.shape[1::-1]
    nuclei = _find_nuclei(purple_of(optical_densities(pixels)), red_cell / float(scale.mean()))
    return _in_reading_order(_cell_of(nucleus, field.size, scale) for nucleus in nuclei)


def crop_cell(field: Image.Image, box: Box) -> Image.Image:
    """A picture of one cell as classifiers expect it: RGB, square, half as wide again as the cell.

    Near the border the square moves inwards. A side of the field that is shorter than the square is continued by its
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
    """Where a window of `side` pixels begins and ends: round `centre`, but within `length` if it fits there."""
    start = round(centre - side / 2)
    if side <= length:
        start = min(max(start, 0), length - side)
    return start, start + side


def _resize(field: Image.Image, scale: float) -> np.ndarray:
    """The field `scale` times as large, one pixel at least: RGB (height, width, 3) uint8."""
    size = max(1, round(field.width * scale)), max(1, round(field.height * scale))
    if scale < 1:
        return np.asarray(field.resize(size, Image.Resampling.BOX, reducing_gap=2.0))
    return np.asarray(field.resize(size, Image.Resampling.BILINEAR))


# ---- the ruler


def _measure_red_cell(field: Image.Image) -> float:
    """Diameter of a typical red cell in pixels of the field; 0 where there is nothing that could be one."""
    pixels = field.width * field.height
    scale = min(1.0, (_OVERVIEW_PIXELS / pixels) ** 0.5)
    largest = min(1.0, (_OVERVIEW_MAX_PIXELS / pixels) ** 0.5)
    while True:
        red_cell = _red_cell_in(optical_densities(_resize(field, scale)))
        if red_cell >= _OVERVIEW_RED_CELL or scale >= largest:
            return red_cell / scale
        scale = min(2 * scale, largest)


def _red_cell_in(densities: np.ndarray) -> float:
    """Diameter of a typical red cell in pixels: most cells overlap others, but few discs within them are larger."""
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
    """Centres x and y and radii of the discs that just fit into the mask, without those centred in a larger one."""
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
    """That of the disc up to which lies the typical share of the volume of all; 0 of none."""
    radius = np.sort(radius[radius > 0])
    volume = np.cumsum(radius**3)
    return float(radius[np.searchsorted(volume, _TYPICAL * volume[-1])]) if len(radius) else 0.0


# ---- nuclei


def _find_nuclei(purple: np.ndarray, red_cell: float) -> list[_Part]:
    """The nuclei of leucocytes, each as one part."""
    labels = cut_necks(distance_inside(nucleus_mask(purple, red_cell)), red_cell)
    nuclei = [part for parts in _clusters(labels, purple, red_cell) for part in _join(parts) if part.is_nucleus]
    least = _CHROMATIN_SHARE * median_high([nucleus.chromatin for nucleus in nuclei]) if nuclei else 0
    return [nucleus for nucleus in nuclei if nucleus.chromatin >= least]


def _clusters(labels: np.ndarray, purple: np.ndarray, red_cell: float) -> Iterable[list[_Part]]:
    """The parts, those together between which no gap is too wide for one nucleus."""
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
    """Joins parts to nuclei, of all unions that one cell can hold the most compact first."""
    nuclei: dict[int, _Part] = {}
    unions: list[tuple[float, int, int]] = []

    def add(index: int, part: _Part) -> None:
        for other, nucleus in nuclei.items():
            if _belong_together(part, nucleus):
                heappush(unions, (-(part + nucleus).fill, index, other))
        nuclei[index] = part

    for index, part in enumerate(parts):
        add(index, part)
    while unions:
        _, one, other = heappop(unions)
        if one in nuclei and other in nuclei:
            index += 1
            add(index, nuclei.pop(one) + nuclei.pop(other))
    return list(nuclei.values())


def _belong_together(first: _Part, second: _Part) -> bool:
    """Whether one cell can hold both."""
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
    """The cell round a nucleus, in pixels of the field: a leucocyte is round even where its nucleus is not."""
    (x, y), radius = nucleus.circle
    centre = np.array([x, y])
    low, high = (centre - _CELL * radius) * scale, (centre + 1 + _CELL * radius) * scale
    beyond = max(*-low, *(high - size)) / (high - low).max()
    x0, y0 = np.maximum(np.floor(low), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(high), size).astype(int).tolist()
    return FoundCell((x0, y0, x1, y1), bool(beyond > _CUT))


def _in_reading_order(cells: Iterable[FoundCell]) -> list[FoundCell]:
    """A row reaches down as far as the cell that begins it."""
    rows: list[list[FoundCell]] = []
    for cell in sorted(cells, key=lambda cell: (cell.box[1] + cell.box[3], cell.box)):
        if not rows or (cell.box[1] + cell.box[3]) / 2 >= rows[-1][0].box[3]:
            rows.append([])
        rows[-1].append(cell)
    return [cell for row in rows for cell in sorted(row, key=lambda cell: (cell.box[0] + cell.box[2], cell.box))]
