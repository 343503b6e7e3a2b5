"""Segment nucleus and cell of the leucocyte in the middle of a picture, to measure it or to paste it elsewhere."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from wbc_hf.data.nuclei import ellipse, nucleus_mask, optical_densities, purple_of

# Longer side of the copy on which one cell is segmented, in pixels.
SIDE = 128
# Between what a red cell measures there in pictures of an analyser (26 pixels) and in tight crops (54).
_RED_CELL = 32
# Lobes of one nucleus are no farther apart than this, in pixels of the copy.
_LARGEST_GAP = 13
# Parts whose middle lies farther out, in half sides from the middle of the picture, belong to neighbours.
_NEAR = 0.7
# Debris and platelets beside a nucleus are smaller than this share of its largest part.
_SMALLEST_LOBE = 0.1
# A leucocyte was put in the middle: a part that draws the nucleus farther away than this, in half sides, belongs to
# another.
_OFF_MIDDLE = 0.2

# The outline of a cell is looked for on rays from the middle of the nucleus, in steps of one pixel.
_RAYS = 64
# It lies this much farther out than the circle round the nucleus, typically, and its logarithm spreads by so much.
_CELL, _CELL_SPREAD = 1.25, 0.28
# Least mean fall of density, summed over the three colours, for an outline to count as seen.
_LEAST_EDGE = 0.1
# An edge this strong counts in full. The edge of the nucleus is blurred over so many pixels; up to twice as far only a
# fall to background is an edge of the cell. What is not denser than `_EMPTY` is background: each such pixel within the
# cell costs, and so does each pixel that one ray reaches farther than the next, and a deviation from the usual size.
_SURE_EDGE, _BLUR = 0.6, 3
_EMPTY, _EMPTY_COST = 0.12, 0.06
_BEND_COST, _SIZE_COST = 0.12, 0.35
# From one ray to the next the outline moves by so many pixels at most.
_REACH = 2
# Round the nucleus where no edge is seen: 1.12 times its circle in lymphocytes, 1.25 in neutrophils.
_CIRCLE = 1.18
_NEVER = np.float32(1e6)


@dataclass(frozen=True)
class CellMasks:
    """The leucocyte in the middle of a picture.

    Attributes:
        pixels: The copy that was segmented: RGB (height, width, 3) uint8, its longer side `SIDE`.
        nucleus: bool (height, width), all lobes; nothing where there is no nucleus.
        cell: bool (height, width), nucleus and cytoplasm; nothing where there is no nucleus.
        outlined: Whether the edge of the cell was seen. Elsewhere its cell is a circle round the nucleus.
    """

    pixels: np.ndarray
    nucleus: np.ndarray
    cell: np.ndarray
    outlined: bool

    @property
    def cytoplasm(self) -> np.ndarray:
        """bool (height, width): the cell without its nucleus."""
        return self.cell & ~self.nucleus


def segment_cell(image: Image.Image) -> CellMasks:
    """Nucleus and cell of the leucocyte in the middle of a picture.

    The nucleus is what is purple near the middle, all its lobes. The cell's edge is the smooth closed line round it
    along which the colour changes most; where cytoplasm is too pale or too crowded to show one, the cell is a circle
    round the nucleus, a little wider than it.

    Args:
        image: RGB, any size, of one cell.
    """
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    pixels = np.asarray(image.resize(size, method, reducing_gap=2.0))
    densities = optical_densities(pixels)
    nucleus = _middle_nucleus(nucleus_mask(purple_of(densities), _RED_CELL))
    if not nucleus.any():
        return CellMasks(pixels, nucleus, nucleus, False)
    cell, outlined = _cell_round(nucleus, densities)
    return CellMasks(pixels, nucleus, cell, outlined)


def cell_mask(image: Image.Image) -> np.ndarray:
    """Mask of the leucocyte in the middle of a picture, in its own pixels.

    Args:
        image: RGB, any size, of one cell.

    Returns:
        uint8 (height, width), 255 in the cell and 0 elsewhere; all 0 where there is no nucleus.
    """
    cell = Image.fromarray(segment_cell(image).cell)
    return np.asarray(cell.resize(image.size, Image.Resampling.NEAREST), np.uint8) * 255


def _middle_nucleus(mask: np.ndarray) -> np.ndarray:
    """Of all purple parts those of the nucleus near the middle: bool (height, width)."""
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask)
    height, width = mask.shape
    away = np.linalg.norm((centroids - [(width - 1) / 2, (height - 1) / 2]) / (SIDE / 2), axis=1)
    weight = np.where(away < _NEAR, stats[:, cv2.CC_STAT_AREA] * (1 - away), 0)
    weight[0] = 0
    main = int(weight.argmax())
    if weight[main] == 0:
        return np.zeros(mask.shape, bool)
    nucleus = labels == main
    farthest = max(_OFF_MIDDLE, _off_middle(nucleus))
    rest = {
        index
        for index in range(1, count)
        if index != main
        and away[index] < _NEAR
        and stats[index, cv2.CC_STAT_AREA] > _SMALLEST_LOBE * stats[main, cv2.CC_STAT_AREA]
    }
    while rest:
        around = cv2.dilate(nucleus.astype(np.uint8), ellipse(2 * _LARGEST_GAP))
        unions = {index: nucleus | (labels == index) for index in rest & set(np.unique(labels[around > 0]).tolist())}
        off = {index: _off_middle(union) for index, union in unions.items()}
        nearest = min(off, key=off.__getitem__, default=0)
        if nearest == 0 or off[nearest] > farthest:
            break
        nucleus = unions[nearest]
        rest.remove(nearest)
    return nucleus


def _off_middle(nucleus: np.ndarray) -> float:
    """How far from the middle of the picture the circle round a nucleus is centred, in half sides."""
    (x, y), _ = cv2.minEnclosingCircle(cv2.findNonZero(nucleus.astype(np.uint8)))
    height, width = nucleus.shape
    return float(np.hypot(x - (width - 1) / 2, y - (height - 1) / 2)) / (SIDE / 2)


def _cell_round(nucleus: np.ndarray, densities: np.ndarray) -> tuple[np.ndarray, bool]:
    """The cell, bool (height, width), and whether its edge was seen."""
    (x, y), radius = cv2.minEnclosingCircle(cv2.findNonZero(nucleus.astype(np.uint8)))
    reach = int(2 * radius) + 4
    angles = 2 * np.pi * np.arange(_RAYS, dtype=np.float32) / _RAYS
    steps = np.arange(reach, dtype=np.float32)
    across = x + steps * np.cos(angles)[:, None]
    down = y + steps * np.sin(angles)[:, None]
    rays = cv2.remap(densities, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    on_nucleus = cv2.remap(nucleus.astype(np.uint8), across, down, cv2.INTER_NEAREST) > 0

    # How much the colour changes across each point, twice that where it grows paler.
    edge = np.zeros(rays.shape[:2], np.float32)
    change = rays[:, :-4] - rays[:, 4:]
    edge[:, 2:-2] = (np.abs(change).sum(axis=2) + np.maximum(change.sum(axis=2), 0)) / 2
    last = np.where(on_nucleus.any(axis=1), reach - 1 - on_nucleus[:, ::-1].argmax(axis=1), 0)[:, None]
    dense = rays.sum(axis=2)
    beyond = np.pad(dense[:, 4:], ((0, 0), (0, 4)), mode="edge")
    edge[(steps < last + _BLUR) | ((steps < last + 2 * _BLUR) & (beyond > 2 * _EMPTY))] = 0
    size = (np.log(np.maximum(steps, 1) / (_CELL * max(radius, 1))) / _CELL_SPREAD) ** 2 / 2
    empty = np.cumsum((dense < _EMPTY) & (steps > last), axis=1)
    cost = (_SIZE_COST * size + _EMPTY_COST * empty - np.minimum(edge / _SURE_EDGE, 1)).astype(np.float32)
    cost[steps < last + 1] = _NEVER
    outline = _closed_path(cost)
    rim = np.arange(_RAYS)
    outlined = bool(edge[rim, outline].mean() >= _LEAST_EDGE)
    away = steps[outline] if outlined else _CIRCLE * radius
    corners = np.column_stack([x + away * np.cos(angles), y + away * np.sin(angles)])
    cell = cv2.fillPoly(np.zeros(nucleus.shape, np.uint8), [corners.round().astype(np.int32)], 1)
    return (cell > 0) | nucleus, outlined


def _closed_path(cost: np.ndarray) -> np.ndarray:
    """The cheapest closed line that crosses each ray once: a step for each ray, int (rays,).

    Args:
        cost: float (rays, steps).
    """
    rays, steps = cost.shape
    before = np.full(steps + 2 * _REACH, _NEVER)
    # In its rows what it costs to come from each of the steps near by.
    from_near = np.lib.stride_tricks.sliding_window_view(before, steps)
    bend = (_BEND_COST * np.abs(np.arange(-_REACH, _REACH + 1))).astype(np.float32)[:, None]
    before[_REACH:-_REACH] = 0
    # Twice round: what the first round began with has no bearing on the middle of the two.
    came_from = np.empty((2 * rays, steps), np.int64)
    for ray in range(2 * rays):
        ways = from_near + bend
        came_from[ray] = ways.argmin(axis=0)
        before[_REACH:-_REACH] = ways.min(axis=0) + cost[ray % rays]
    path = np.empty(2 * rays, np.int64)
    path[-1] = before[_REACH:-_REACH].argmin()
    for ray in range(2 * rays - 1, 0, -1):
        path[ray - 1] = path[ray] + came_from[ray, path[ray]] - _REACH
    half = rays // 2
    return np.roll(path[half : half + rays], half)
