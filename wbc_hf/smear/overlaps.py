"""Nothing is counted twice: which fields of one specimen show the same place, and which of their boxes the same cell.

Fields of one specimen come from one microscope, so that one lies in another shifted and a little turned, at the same
scale. What `wbc_hf.data.match` finds is held to that. A false overlap would leave a cell uncounted and is worse than
a missed one: thresholds lean that way.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wbc_hf.data import Box, KeyPoints, describe, match

# Longer sides are shrunk to this, in pixels. At 256 an overlap of a tenth has too few key points; at 640 those of the
# JPEG grid and of dust in the camera begin to count, which lie in the same place of every field.
_WORKING_SIDE = 384
_KEY_POINTS = 300
_GROW = 1.1
# Of the key points that both fields have where they overlap, this share must agree (after Brown & Lowe 2007,
# doi:10.1007/s11263-006-0002-3): on BCCD 26 % and more do. Text that stands in every photograph agrees too, but among
# the cells' many key points its own are few.
_SHARE = 0.2
_IOU = 0.3


@dataclass(frozen=True)
class Overlap:
    """Where an earlier field shows what a new one shows.

    Attributes:
        earlier: Index of the earlier field, from 0.
        affine: float64 (2, 3), brings pixels of the new field onto the earlier one.
        matches: Key points that agree.
    """

    earlier: int
    affine: np.ndarray
    matches: int


@dataclass(frozen=True)
class _Field:
    """What is kept of a field, some 40 kB.

    Attributes:
        digest: SHA-256 of its size and pixels.
        scale: (2,), pixels of the field in one of the shrunk one, horizontally and vertically.
        key_points: Of the shrunk one.
    """

    digest: bytes
    scale: np.ndarray
    key_points: KeyPoints


class FieldIndex:
    """The fields of one specimen, described by their key points; they come one after the other."""

    def __init__(self):
        self._fields: list[_Field] = []

    def add(self, image: Image.Image) -> list[Overlap]:
        """Take in a field, RGB of any size, and say which earlier ones it overlaps, in their order."""
        new = _describe(image)
        compared = [_compare(new, earlier, index) for index, earlier in enumerate(self._fields)]
        self._fields.append(new)
        return [overlap for overlap in compared if overlap is not None]


def match_cells(boxes: Sequence[Box], earlier_boxes: Sequence[Box], overlap: Overlap) -> dict[int, int]:
    """Which boxes of the new field show a leucocyte that the earlier field shows.

    Two boxes do where the middle of each lies within the other, or where they share at least 30 % of their union. Each
    box gets one partner at most, the most alike first.

    Returns:
        Index of the new box → index of the earlier one.
    """
    if not boxes or not earlier_boxes:
        return {}
    moved, earlier = _moved(np.array(boxes, float), overlap.affine), np.array(earlier_boxes, float)
    alike = _iou(moved, earlier)
    same = (alike >= _IOU) | (_holds_middles(earlier, moved).T & _holds_middles(moved, earlier))
    found: dict[int, int] = {}
    for index in np.argsort(-alike, axis=None, kind="stable"):
        new, old = map(int, np.unravel_index(index, alike.shape))
        if same[new, old] and new not in found and old not in found.values():
            found[new] = old
    return found


def _describe(image: Image.Image) -> _Field:
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    key_points = describe(image, _WORKING_SIDE, _KEY_POINTS)
    return _Field(digest, np.divide(image.size, key_points.size), key_points)


def _compare(new: _Field, earlier: _Field, index: int) -> Overlap | None:
    if new.digest == earlier.digest:
        # However few key points it has.
        return Overlap(index, np.eye(2, 3), len(new.key_points.positions))
    found = match(new.key_points, earlier.key_points, as_is=True)
    if found is None:
        return None
    affine = np.column_stack([found.affine[:, :2] / new.scale, found.affine[:, 2]]) * earlier.scale[:, None]
    grow, shrink = np.linalg.svd(affine[:, :2], compute_uv=False)
    if grow > _GROW or shrink < 1 / _GROW:
        return None
    both = _in_overlap(new.key_points, earlier.key_points, found.affine)
    return Overlap(index, affine, found.matches) if found.matches >= _SHARE * both else None


def _in_overlap(first: KeyPoints, second: KeyPoints, affine: np.ndarray) -> int:
    """How many key points the poorer of two images has where they overlap.

    `affine` brings pixels of the first onto the second.
    """
    back = np.linalg.inv(affine[:, :2])
    there = first.positions @ affine[:, :2].T + affine[:, 2]
    here = (second.positions - affine[:, 2]) @ back.T
    return min(
        int(((positions >= 0) & (positions < size)).all(1).sum())
        for positions, size in ((there, second.size), (here, first.size))
    )


def _moved(boxes: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Boxes, (n, 4), round the ellipses within the given ones after the map: a turned cell needs no larger box."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 @ affine[:, :2].T + affine[:, 2]
    halves = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ affine[:, :2].T ** 2)
    return np.hstack([middles - halves, middles + halves])


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, (n, 4) and (m, 4): (n, m), 0 to 1."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def _holds_middles(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of the boxes, (n, 4), holds the middle of each of the others, (m, 4): bool (n, m)."""
    middles = (others[:, :2] + others[:, 2:]) / 2
    return ((boxes[:, None, :2] <= middles) & (middles < boxes[:, None, 2:])).all(2)
