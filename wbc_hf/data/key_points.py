"""Local features of images and their matching: SIFT key points and the affine map between two images.

Descriptors (Lowe 2004, doi:10.1023/B:VISI.0000029664.99615.94) stay the same under rotation, zoom and changes of
light. In a mirror image or a negative they are a reordering of the same numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

# Longer sides are shrunk to this, in pixels: enough for the grain of a nucleus, little enough to be quick.
_WORKING_SIDE = 256
_KEY_POINTS = 150
_CONTRAST = 0.02
# Rotated near-duplicates are often padded with black, whose edge draws key points that all padded images share.
_BLACK = 20
_BLACK_MARGIN = 9
# Lowe's ratio: a match must be this much nearer than the second nearest.
_RATIO = 0.9
_REPROJECTION = 3.0
_INLIERS = 11
_SHRINK, _GROW, _STRETCH = 0.4, 2.5, 2.0

# SIFT's 128 numbers are 4 rows x 4 columns x 8 directions, relative to the key point's own direction. In a mirror
# image the rows are in reverse and the directions turn the other way. In a negative the key point's own direction is
# the opposite one, so rows and columns are in reverse.
_PLACES = np.arange(128).reshape(4, 4, 8)
MIRROR = _PLACES[::-1][:, :, -np.arange(8) % 8].reshape(-1)
NEGATIVE = _PLACES[::-1, ::-1].reshape(-1)
# (mirrored, order)
_ORDERS = ((False, _PLACES.reshape(-1)), (True, MIRROR), (False, NEGATIVE), (True, MIRROR[NEGATIVE]))


@dataclass(frozen=True)
class KeyPoints:
    """Key points of one image, the strongest first.

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
        matches: Number of key points that the map explains.
        mirrored: Whether one is a mirror image of the other.
        affine: float64 (2, 3), maps pixels of the first onto the second, both shrunk.
    """

    matches: int
    mirrored: bool
    affine: np.ndarray


def describe(image: Image.Image, side: int = _WORKING_SIDE, count: int = _KEY_POINTS) -> KeyPoints:
    """Compute the key points of an RGB image of any size.

    Args:
        image: Is not changed.
        side: Longer sides are shrunk to this, in pixels.
        count: Maximum number of key points.
    """
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image)
    brightest = cv2.max(cv2.max(pixels[..., 0], pixels[..., 1]), pixels[..., 2])  # numpy's takes twenty times as long
    mask = cv2.threshold(brightest, _BLACK, 255, cv2.THRESH_BINARY)[1]
    mask = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    mask = cv2.erode(mask, np.ones((_BLACK_MARGIN, _BLACK_MARGIN), np.uint8))[1:-1, 1:-1]
    sift = cv2.SIFT_create(nfeatures=count, contrastThreshold=_CONTRAST)  # type: ignore[attr-defined]
    found, descriptors = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), mask)
    if descriptors is None:
        return KeyPoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), image.size)
    strongest = np.argsort([-point.response for point in found], kind="stable")[:count]
    # The root of the share of each direction (RootSIFT, Arandjelovic & Zisserman 2012): sums to 1, so fits a byte.
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    positions = np.array([point.pt for point in found], dtype=np.float32)
    return KeyPoints(positions[strongest], np.sqrt(shares[strongest] * 255**2).astype(np.uint8), image.size)


def match(first: KeyPoints, second: KeyPoints, *, as_is: bool = False) -> Match | None:
    """Estimate the affine map (RANSAC) that explains enough matches; None where there is no plausible one.

    Args:
        first, second: Key points of two images.
        as_is: Whether mirror images and negatives are impossible, which takes a third of the time.
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
    # Squared distances by one product of matrices, faster than `cv2.batchDistance`. They are exact: float32 holds
    # whole numbers up to 2 ** 24, and these are below 128 * 255 ** 2. numpy's product would wake threads for it, which
    # wait busily: where the processor has other work, that took three times as long.
    first, second = first.astype(np.float32), second.astype(np.float32)
    products = cv2.gemm(first, second, 1, None, 0, flags=cv2.GEMM_2_T)  # type: ignore[call-overload]
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * products
    partner = squares.argmin(axis=1)
    mutual = squares.argmin(axis=0)[partner] == np.arange(len(first))
    nearest, next_nearest = np.partition(squares, 1, axis=1)[:, :2].T
    good = np.flatnonzero(mutual & (nearest < _RATIO**2 * next_nearest))
    return good, partner[good]
