"""Find images that show the same physical cell or field, however they were copied.

Identical bytes need no looking. All else goes through local features: SIFT key points (Lowe 2004,
doi:10.1023/B:VISI.0000029664.99615.94), which keep their descriptor under rotation, zoom and changes of light, and
whose descriptor in a mirror image or a negative is a mere reordering of its numbers. Three steps:

1. `describe` each image by its strongest key points.
2. `candidates`: each key point asks an index of all others for its nearest neighbours, and so votes for the images
   they come from. Of the four orders of a descriptor one is standard, so that mirror images and negatives meet there.
3. `link`: pairs with enough votes are matched again in full, and are copies when one affine map (RANSAC) explains
   enough matches.

Rotated, flipped, sheared, stretched, shifted, re-coloured and re-encoded copies pass, and so do overlapping crops and
photographs of one field.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

# Raised whenever something below changes what is found: results that are kept on disk carry it.
VERSION = 3

# Longer sides are shrunk to this, in pixels: enough for the grain of a nucleus, little enough to be quick.
_WORKING_SIDE = 256
_KEY_POINTS = 150
_CONTRAST = 0.02
# Rotated copies are often padded with black, whose edge draws key points that all padded images share.
_BLACK = 20
_BLACK_MARGIN = 9
# The strongest key points of an image vote; all of them are matched once a pair is a candidate.
_VOTERS = 80
# The index holds the first principal components of the descriptors: compact, and nearly all of their variance.
_COMPONENTS = 24
_TREES = 2
_CHECKS = 32
_NEIGHBOURS = 3
_VOTES = 5
# Lowe's ratio: a match must be this much nearer than the second nearest.
_RATIO = 0.9
_REPROJECTION = 3.0
_INLIERS = 11
_SHRINK, _GROW, _STRETCH = 0.4, 2.5, 2.0
_CHUNK = 20_000
_BATCH = 64
_TURNS = 3

# SIFT's 128 numbers are 4 rows x 4 columns x 8 directions, relative to the key point's own direction. In a mirror
# image the rows are in reverse and the directions turn the other way. In a negative the key point's own direction is
# the opposite one, so rows and columns are in reverse.
_PLACES = np.arange(128).reshape(4, 4, 8)
_MIRROR = _PLACES[::-1][:, :, -np.arange(8) % 8].reshape(-1)
_NEGATIVE = _PLACES[::-1, ::-1].reshape(-1)
# (mirrored, order)
_ORDERS = (
    (False, _PLACES.reshape(-1)),
    (True, _MIRROR),
    (False, _NEGATIVE),
    (True, _MIRROR[_NEGATIVE]),
)


@dataclass(frozen=True)
class NearDuplicate:
    """Two images of one set that show the same cell or field.

    Attributes:
        first, second: Indices of the images, first < second.
        matches: Key points that one affine map brings from the first onto the second.
        mirrored: Whether one is a mirror image of the other.
    """

    first: int
    second: int
    matches: int
    mirrored: bool


@dataclass(frozen=True)
class KeyPoints:
    """Of one image, the strongest first.

    Attributes:
        positions: float32 (k, 2), pixels of the shrunk image.
        descriptors: uint8 (k, 128), the square roots of SIFT's.
        size: Width and height of the shrunk image in pixels.
    """

    positions: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class Match:
    """How one image lies in another.

    Attributes:
        matches: Key points that the map explains.
        mirrored: Whether one is a mirror image of the other.
        affine: float64 (2, 3), brings pixels of the first onto the second, both shrunk.
    """

    matches: int
    mirrored: bool
    affine: np.ndarray


def find_near_duplicates(count: int, read: Callable[[int], Image.Image]) -> list[NearDuplicate]:
    """Look at every image of a set and say which show the same cell or field.

    Two images that a third connects are not compared again: the pairs returned link each group together, they are not
    all of its pairs. The same images in the same order give the same pairs.

    Args:
        count: Number of images.
        read: Gives one as RGB; called from several threads, once for each index.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the threads are here
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            described = pool.map(lambda index: describe(read(index)), range(count))
            progress = tqdm(described, total=count, desc="Looking for copies", unit="image", delay=2, leave=False)
            return link(list(progress), pool)
    finally:
        cv2.setNumThreads(threads)


def describe(image: Image.Image, side: int = _WORKING_SIDE, count: int = _KEY_POINTS) -> KeyPoints:
    """The key points of an RGB image of any size.

    Args:
        image: Is left as it is.
        side: Longer sides are shrunk to this, in pixels.
        count: The most key points that are kept.
    """
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image)
    mask = cv2.copyMakeBorder((pixels.max(axis=2) > _BLACK).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    mask = cv2.erode(mask, np.ones((_BLACK_MARGIN, _BLACK_MARGIN), np.uint8))[1:-1, 1:-1]
    sift = cv2.SIFT_create(nfeatures=count, contrastThreshold=_CONTRAST)
    found, descriptors = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), mask * 255)
    if descriptors is None:
        return KeyPoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), image.size)
    strongest = np.argsort([-point.response for point in found], kind="stable")[:count]
    # The root of the share of each direction (RootSIFT, Arandjelovic & Zisserman 2012): sums to 1, so fits a byte.
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    positions = np.array([point.pt for point in found], dtype=np.float32)
    return KeyPoints(positions[strongest], np.sqrt(shares[strongest] * 255**2).astype(np.uint8), image.size)


def link(key_points: Sequence[KeyPoints], pool: ThreadPoolExecutor) -> list[NearDuplicate]:
    """The pairs that link each image with its copies.

    In a group of many copies each key point's nearest neighbours are siblings, and nothing is asked of the world
    outside: such groups are compared once more by one image of each, then by another.
    """
    parts = _Parts(len(key_points))
    found = list(_verified(candidates(key_points, pool), key_points, parts, pool))
    for turn in range(_TURNS):
        crowded = [members for members in parts.members() if len(members) > _NEIGHBOURS]
        asked = [members[turn * len(members) // _TURNS] for members in crowded]
        pairs = [(asked[a], asked[b]) for a, b in candidates([key_points[index] for index in asked], pool)]
        found += _verified(pairs, key_points, parts, pool)
    return found


def candidates(key_points: Sequence[KeyPoints], pool: ThreadPoolExecutor) -> list[tuple[int, int]]:
    """Pairs of images (first, second) that share enough near neighbours, the most alike first.

    A forest of k-d trees answers each key point in logarithmic time, so that the step grows with n log n.
    """
    voters = [_standard_order(points.descriptors[:_VOTERS]) for points in key_points]
    image_of = np.repeat(np.arange(len(voters)), [len(rows) for rows in voters])
    if len(image_of) <= _NEIGHBOURS:
        return []
    descriptors = np.concatenate(voters)
    project = _principal_components(descriptors)
    cv2.setRNGSeed(0)  # the trees are random ones
    index = cv2.flann.Index(project(descriptors), {"algorithm": 1, "trees": _TREES})

    def votes(start: int) -> tuple[np.ndarray, np.ndarray]:
        # One neighbour more, since each finds itself.
        chunk = slice(start, start + _CHUNK)
        neighbours, _ = index.knnSearch(project(descriptors[chunk]), _NEIGHBOURS + 1, params={"checks": _CHECKS})
        asking = np.repeat(image_of[chunk], _NEIGHBOURS + 1)
        answering = image_of[neighbours.reshape(-1)]
        other = asking != answering
        first, second = np.minimum(asking, answering)[other], np.maximum(asking, answering)[other]
        return np.unique(first * len(voters) + second, return_counts=True)

    counted = list(pool.map(votes, range(0, len(descriptors), _CHUNK)))
    keys, place = np.unique(np.concatenate([keys for keys, _ in counted]), return_inverse=True)
    counts = np.bincount(place, np.concatenate([counts for _, counts in counted]))
    enough = counts >= _VOTES
    keys = keys[enough][np.argsort(-counts[enough], kind="stable")]
    return [(int(first), int(second)) for first, second in zip(*divmod(keys, len(voters)), strict=True)]


def _standard_order(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors, (k, 128), in that of their four orders in which two moments are positive.

    The moment over columns changes its sign in a negative, that over directions in a mirror image.
    """
    rows = descriptors.reshape(-1, 4, 4, 8).astype(np.float32)
    negative = rows.sum(axis=(1, 3)) @ np.array([-1.5, -0.5, 0.5, 1.5], np.float32) < 0
    mirrored = rows.sum(axis=(1, 2)) @ np.sin(np.arange(8, dtype=np.float32) * np.pi / 4) < 0
    descriptors = np.where(negative[:, None], descriptors[:, _NEGATIVE], descriptors)
    return np.where(mirrored[:, None], descriptors[:, _MIRROR], descriptors)


def _principal_components(descriptors: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    sample = descriptors[:: max(1, len(descriptors) // 50_000)].astype(np.float32)
    mean, components = cv2.PCACompute(sample, mean=None, maxComponents=_COMPONENTS)
    return lambda rows: np.ascontiguousarray(cv2.PCAProject(rows.astype(np.float32), mean, components))


class _Parts:
    """Which of so many nodes links connect."""

    def __init__(self, count: int):
        self._above = list(range(count))

    def root(self, node: int) -> int:
        while self._above[node] != node:
            self._above[node] = self._above[self._above[node]]
            node = self._above[node]
        return node

    def join(self, first: int, second: int) -> bool:
        """Whether they were apart."""
        roots = self.root(first), self.root(second)
        self._above[max(roots)] = min(roots)
        return roots[0] != roots[1]

    def members(self) -> list[list[int]]:
        """The nodes of each part, in order of its first."""
        members: dict[int, list[int]] = defaultdict(list)
        for node in range(len(self._above)):
            members[self.root(node)].append(node)
        return list(members.values())


def _verified(
    pairs: Sequence[tuple[int, int]], key_points: Sequence[KeyPoints], parts: _Parts, pool: ThreadPoolExecutor
) -> Iterator[NearDuplicate]:
    """The pairs that are copies, without those that `parts` connects already; connects them."""
    for start in range(0, len(pairs), _BATCH):
        asked = [pair for pair in pairs[start : start + _BATCH] if parts.root(pair[0]) != parts.root(pair[1])]
        found = pool.map(lambda pair: match(key_points[pair[0]], key_points[pair[1]]), asked)
        for (first, second), same in zip(asked, found, strict=True):
            if same is not None and parts.join(first, second):
                yield NearDuplicate(min(first, second), max(first, second), same.matches, same.mirrored)


def match(first: KeyPoints, second: KeyPoints, *, as_is: bool = False) -> Match | None:
    """The one plausible affine map that explains enough matches; None if there is none.

    Args:
        first, second: Of two images.
        as_is: Whether mirror images and negatives are out of the question: it takes a third of the time.
    """
    if min(len(first.positions), len(second.positions)) < _INLIERS:
        return None
    orders = _ORDERS[:1] if as_is else _ORDERS
    matched = [(*_matches(first.descriptors, second.descriptors[:, order]), mirrored) for mirrored, order in orders]
    here, there, mirrored = max(matched, key=lambda found: len(found[0]))
    if len(here) < _INLIERS:
        return None
    affine, inliers = cv2.estimateAffine2D(
        first.positions[here],
        second.positions[there],
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
    if (np.linalg.det(affine[:, :2]) < 0) != mirrored:
        return None
    return Match(int(inliers.sum()), mirrored, affine)


def _matches(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of descriptors, (k, 128) and (l, 128), that are mutually nearest and clearly nearer than the next."""
    # As float32: OpenCV is ten times slower on bytes.
    first, second = first.astype(np.float32), second.astype(np.float32)
    distance, nearest = cv2.batchDistance(first, second, cv2.CV_32F, normType=cv2.NORM_L2, K=2)
    _, back = cv2.batchDistance(second, first, cv2.CV_32F, normType=cv2.NORM_L2, K=1)
    partner = nearest[:, 0]
    mutual = back[partner, 0] == np.arange(len(first))
    good = np.flatnonzero(mutual & (distance[:, 0] < _RATIO * distance[:, 1]))
    return good, partner[good]
