"""Find overlapping fields of one specimen and the cells that both show, so that no leucocyte is counted twice.

Fields of one specimen come from one microscope, so that they differ by a translation and a small rotation at the same
scale. Matches of `wbc_hf.data.match` that are anything else are dropped. A false overlap leaves a cell uncounted and
is worse than a missed one: the thresholds lean that way.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from wbc_hf.data import Box, KeyPoints, describe, match
from wbc_hf.smear.field_votes import FieldVotes

# Longer sides are shrunk to this, in pixels. At 256 an overlap of a tenth has too few key points; at 640 those of the
# JPEG grid and of dust in the camera begin to count, which lie in the same place of every field.
_WORKING_SIDE = 384
_KEY_POINTS = 300
_SCALE = 1.1  # at most, in any direction
# Of the key points in the overlap, this share must agree (after Brown & Lowe 2007, doi:10.1007/s11263-006-0002-3): on
# BCCD at least 26 % do. Text that is burnt into every photograph agrees too, but has few key points beside the cells'.
_SHARE = 0.2
_IOU = 0.3
# Earlier fields that a new one is compared with. Of BCCD's 40 overlaps, the earlier field was among the first six of
# 1,091 each time; with other random planes one of the 40, with 13 key points that agree, was not.
_CANDIDATES = 12


@dataclass(frozen=True)
class Overlap:
    """How a new field overlaps an earlier one.

    Attributes:
        earlier: Index of the earlier field, from 0.
        affine: float64 (2, 3), maps pixels of the new field to the earlier one.
        matches: Key points that agree.
    """

    earlier: int
    affine: np.ndarray
    matches: int


@dataclass(frozen=True)
class FieldKeyPoints:
    """Key points of a field, some 40 kB.

    Attributes:
        digest: SHA-256 of its size and pixels.
        scale: (2,), width and height of the field relative to the shrunk field.
        key_points: Of the shrunk field.
    """

    digest: bytes
    scale: np.ndarray
    key_points: KeyPoints


class FieldIndex:
    """An index of the fields of one specimen by their key points."""

    def __init__(self) -> None:
        self._fields: list[FieldKeyPoints] = []
        self._votes = FieldVotes()
        self._same: dict[bytes, list[int]] = {}  # indices by digest

    def add(self, new: FieldKeyPoints) -> list[Overlap]:
        """Add a field, and return its overlaps with earlier fields, in their order.

        It is compared with the likeliest only, so that the thousandth field takes no longer than the fiftieth.
        """
        same = self._same.setdefault(new.digest, [])
        candidates = sorted({*same, *self._votes.add(new.key_points.descriptors, _CANDIDATES)})
        compared = [_compare(new, self._fields[index], index) for index in candidates]
        same.append(len(self._fields))
        self._fields.append(new)
        return [overlap for overlap in compared if overlap is not None]


def match_cells(boxes: Sequence[Box], earlier_boxes: Sequence[Box], overlap: Overlap) -> dict[int, int]:
    """Match the cells of two overlapping fields.

    Two boxes match if each contains the centre of the other, or if their intersection over union is at least 0.3. Each
    box gets at most one partner; the greatest intersection over union comes first.

    Returns:
        Index of the new box → index of the earlier box.
    """
    if not boxes or not earlier_boxes:
        return {}
    mapped, earlier = _map_boxes(np.array(boxes, float), overlap.affine), np.array(earlier_boxes, float)
    iou = _iou(mapped, earlier)
    same = (iou >= _IOU) | contain_each_other(mapped, earlier)
    pairs: dict[int, int] = {}
    for index in np.argsort(-iou, axis=None, kind="stable"):
        new, old = map(int, np.unravel_index(index, iou.shape))
        if same[new, old] and new not in pairs and old not in pairs.values():
            pairs[new] = old
    return pairs


def contain_each_other(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of the boxes, (n, 4), and each of the others, (m, 4), contain each other's centre: bool (n, m)."""
    return _contain_centres(boxes, others) & _contain_centres(others, boxes).T


def describe_field(image: Image.Image) -> FieldKeyPoints:
    """Compute the key points of a field, RGB of any size."""
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    key_points = describe(image, _WORKING_SIDE, _KEY_POINTS)
    return FieldKeyPoints(digest, np.divide(image.size, key_points.size), key_points)


def describe_preview(preview: Image.Image, size: tuple[int, int]) -> FieldKeyPoints:
    """Compute the key points of a field, of which only a smaller copy is at hand.

    Args:
        preview: RGB.
        size: Width and height of the field in pixels, which its overlaps are measured in.
    """
    described = describe_field(preview)
    return replace(described, scale=np.divide(size, described.key_points.size))


def _compare(new: FieldKeyPoints, earlier: FieldKeyPoints, index: int) -> Overlap | None:
    if new.digest == earlier.digest:
        # Even without key points.
        return Overlap(index, np.eye(2, 3), len(new.key_points.positions))
    found = match(new.key_points, earlier.key_points, as_is=True)
    if found is None:
        return None
    affine = np.column_stack([found.affine[:, :2] / new.scale, found.affine[:, 2]]) * earlier.scale[:, None]
    largest, smallest = np.linalg.svd(affine[:, :2], compute_uv=False)
    if largest > _SCALE or smallest < 1 / _SCALE:
        return None
    shared = _count_in_overlap(new.key_points, earlier.key_points, found.affine)
    return Overlap(index, affine, found.matches) if found.matches >= _SHARE * shared else None


def _count_in_overlap(first: KeyPoints, second: KeyPoints, affine: np.ndarray) -> int:
    """Count the key points of either image in their overlap, and return the smaller number.

    `affine` maps pixels of the first to the second.
    """
    back = np.linalg.inv(affine[:, :2])
    there = first.positions @ affine[:, :2].T + affine[:, 2]
    here = (second.positions - affine[:, 2]) @ back.T
    return min(
        int(((positions >= 0) & (positions < size)).all(1).sum())
        for positions, size in ((there, second.size), (here, first.size))
    )


def _map_boxes(boxes: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Bounding boxes, (n, 4), of the mapped ellipses in the given boxes: a rotated cell needs no larger box."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ affine[:, :2].T + affine[:, 2]
    halves = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ affine[:, :2].T ** 2)
    return np.hstack([centres - halves, centres + halves])


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, (n, 4) and (m, 4): (n, m), 0 to 1."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def _contain_centres(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of the boxes, (n, 4), contains the centre of each of the others, (m, 4): bool (n, m)."""
    centres = (others[:, :2] + others[:, 2:]) / 2
    return ((boxes[:, None, :2] <= centres) & (centres < boxes[:, None, 2:])).all(2)
