"""Find images that show the same physical cell or field, however they were copied.

Identical bytes need no looking. All else goes through local features: SIFT key points (Lowe 2004,
doi:10.1023/B:VISI.0000029664.99615.94), which keep their descriptor under rotation, zoom and changes of light, and whose
descriptor under reflection is a mere reordering of its numbers. Each key point asks an index of all others for its
nearest neighbours and so votes for the images they come from; pairs with enough votes are matched again in full, and
count as copies when one affine map (RANSAC) explains enough matches. Rotated, flipped, sheared, stretched, shifted,
re-coloured and re-encoded copies pass, and so do overlapping crops and photographs of one field.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

# Longer sides are shrunk to this, in pixels: enough for the grain of a nucleus, little enough to be quick.
_WORKING_SIDE = 320
_KEY_POINTS = 150
_CONTRAST = 0.02
# Rotated copies are often padded with black, whose edge draws key points that all padded images share.
_BLACK = 20
_BLACK_MARGIN = 9
# The index holds the first principal components of the descriptors: compact, and nearly all of their variance.
_COMPONENTS = 32
_TREES = 4
_CHECKS = 64
_NEIGHBOURS = 6
_VOTES = 6
# Lowe's ratio: a match must be this much nearer than the second nearest.
_RATIO = 0.9
_REPROJECTION = 4.0
_INLIERS = 11
_SHRINK, _GROW, _STRETCH = 0.4, 2.5, 2.0
_CHUNK = 20_000

# SIFT's 128 numbers are 4 rows x 4 columns x 8 directions, relative to the key point's own direction: a mirror image
# has the rows in reverse and the directions turned the other way.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].reshape(-1)


@dataclass(frozen=True)
class Copy:
    """Two images of one set that show the same cell or field.

    Attributes:
        first, second: Indices of the images, first < second.
        matches: Key points that one affine map brings from the first onto the second.
        affine: That map, (2, 3), pixels of the shrunk first image → pixels of the shrunk second.
    """

    first: int
    second: int
    matches: int
    affine: np.ndarray

    @property
    def mirrored(self) -> bool:
        """Whether one is a mirror image of the other."""
        return float(np.linalg.det(self.affine[:, :2])) < 0


@dataclass(frozen=True)
class _KeyPoints:
    """positions float32 (k, 2) in pixels of the shrunk image; descriptors uint8 (k, 128), the square root of SIFT's."""

    positions: np.ndarray
    descriptors: np.ndarray


def find_copies(count: int, read: Callable[[int], Image.Image]) -> list[Copy]:
    """Look at every image of a set and say which show the same cell or field.

    Two images that a third connects are not compared again: the pairs returned link each group together, they are not
    all of its pairs.

    Args:
        count: Number of images.
        read: Gives one as RGB; called from several threads, once for each index.
    """
    cv2.setNumThreads(1)  # the threads are here
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        described = pool.map(lambda index: _describe(read(index)), range(count))
        key_points = list(tqdm(described, total=count, desc="Looking for copies", unit="image", delay=2, leave=False))
        candidates = _candidates(key_points, pool)
        return list(_verified(candidates, key_points, count))


def _describe(image: Image.Image) -> _KeyPoints:
    image.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image)
    mask = cv2.copyMakeBorder((pixels.max(axis=2) > _BLACK).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    mask = cv2.erode(mask, np.ones((_BLACK_MARGIN, _BLACK_MARGIN), np.uint8))[1:-1, 1:-1]
    sift = cv2.SIFT_create(nfeatures=_KEY_POINTS, contrastThreshold=_CONTRAST)
    found, descriptors = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), mask * 255)
    if descriptors is None:
        return _KeyPoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    # The root of the share of each direction (RootSIFT, Arandjelovic & Zisserman 2012): sums to 1, so fits a byte.
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    positions = np.array([point.pt for point in found], dtype=np.float32)
    return _KeyPoints(positions[:_KEY_POINTS], np.sqrt(shares[:_KEY_POINTS] * 255**2).astype(np.uint8))


def _candidates(key_points: Sequence[_KeyPoints], pool: ThreadPoolExecutor) -> list[tuple[int, int, bool]]:
    """Pairs of images (first, second, mirrored) that share enough near neighbours, the most alike first.

    A forest of k-d trees answers each key point in logarithmic time, so that the step grows with n log n.
    """
    image_of = np.repeat(np.arange(len(key_points)), [len(points.positions) for points in key_points])
    if len(image_of) <= _NEIGHBOURS:
        return []
    descriptors = np.concatenate([points.descriptors for points in key_points])
    project = _principal_components(descriptors)
    index = cv2.flann.Index(project(descriptors), {"algorithm": 1, "trees": _TREES})

    def votes(start: int, mirrored: bool) -> np.ndarray:
        rows = descriptors[start : start + _CHUNK]
        queries = project(rows[:, _MIRRORED] if mirrored else rows)
        neighbours, _ = index.knnSearch(queries, _NEIGHBOURS + (not mirrored), params={"checks": _CHECKS})
        asking = np.repeat(image_of[start : start + _CHUNK], neighbours.shape[1])
        answering = image_of[neighbours.reshape(-1)]
        pairs = np.stack([np.minimum(asking, answering), np.maximum(asking, answering)])[:, asking != answering]
        return (pairs[0] * len(key_points) + pairs[1]) * 2 + mirrored

    jobs = [(start, mirrored) for mirrored in (False, True) for start in range(0, len(descriptors), _CHUNK)]
    keys, counts = np.unique(np.concatenate(list(pool.map(lambda job: votes(*job), jobs))), return_counts=True)
    enough = counts >= _VOTES
    keys = keys[enough][np.argsort(-counts[enough], kind="stable")]
    pairs, mirrored = np.divmod(keys, 2)
    return [(int(first), int(second), bool(m)) for first, second, m in zip(*divmod(pairs, len(key_points)), mirrored)]


def _principal_components(descriptors: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    sample = descriptors[:: max(1, len(descriptors) // 50_000)].astype(np.float32)
    mean, components = cv2.PCACompute(sample, mean=None, maxComponents=_COMPONENTS)
    return lambda rows: np.ascontiguousarray(cv2.PCAProject(rows.astype(np.float32), mean, components))


def _verified(
    candidates: Iterable[tuple[int, int, bool]], key_points: Sequence[_KeyPoints], count: int
) -> Iterator[Copy]:
    root = list(range(count))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for first, second, mirrored in candidates:
        if find(first) == find(second):
            continue
        found = _same_place(key_points[first], key_points[second], mirrored)
        if found is not None:
            root[find(first)] = find(second)
            yield Copy(first, second, *found)


def _same_place(first: _KeyPoints, second: _KeyPoints, mirrored: bool) -> tuple[int, np.ndarray] | None:
    """Number of matches that one plausible affine map explains, and the map; None where they are too few."""
    if min(len(first.positions), len(second.positions)) < _INLIERS:
        return None
    a = first.descriptors.astype(np.float32)
    b = second.descriptors[:, _MIRRORED if mirrored else slice(None)].astype(np.float32)
    distance = np.sqrt(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0))
    nearest, second_nearest = np.partition(distance, 1, axis=1)[:, :2].T
    partner = distance.argmin(axis=1)
    mutual = distance.argmin(axis=0)[partner] == np.arange(len(a))
    good = np.flatnonzero(mutual & (nearest < _RATIO * second_nearest))
    if len(good) < _INLIERS:
        return None
    affine, inliers = cv2.estimateAffine2D(
        first.positions[good],
        second.positions[partner[good]],
        method=cv2.RANSAC,
        ransacReprojThreshold=_REPROJECTION,
        maxIters=500,
        confidence=0.99,
    )
    if affine is None or inliers.sum() < _INLIERS:
        return None
    grow, shrink = np.linalg.svd(affine[:, :2], compute_uv=False)
    if shrink < _SHRINK or grow > _GROW or grow > _STRETCH * shrink:
        return None
    return int(inliers.sum()), affine
