"""Segment nuclei by colour, without learning: the same colours in every Romanowsky stain.

Optical density is the light that a pixel absorbs in relation to the background (Ruifrok & Johnston 2001). Nuclei
absorb red and green and let blue pass, red cells absorb blue as well.
"""

import cv2
import numpy as np

# Densities are natural logarithms. Purple is density in red and in green less twice that in blue: from 0.6 in the
# palest nuclei to 3 in the darkest, about 0 in red cells and in everything grey, whatever the light.
_PURPLE = 0.3
# In relation to the strongest purple of the picture, where red cells are purplish too.
_PURPLE_SHARE = 0.2
# The edge of a nucleus lies where its purple falls to half: bluish cytoplasm is paler.
_NUCLEUS_EDGE = 0.5
# The smallest lobe, in areas of a red cell.
_SMALLEST_PART = 0.04


def optical_densities(pixels: np.ndarray) -> np.ndarray:
    """Optical density of each colour in relation to the background: float32 (height, width, 3).

    Args:
        pixels: RGB (height, width, 3) uint8.
    """
    logarithms = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    densities = cv2.GaussianBlur(cv2.LUT(pixels, logarithms), (0, 0), 1)
    background = np.percentile(densities[::2, ::2], 10, axis=(0, 1)).astype(np.float32)
    return densities - background


def purple_of(densities: np.ndarray) -> np.ndarray:
    """Purple of nuclei, float32 (height, width): chromatin absorbs red and green and lets blue pass."""
    return densities @ np.array([1, 1, -2], np.float32)


def _fill_round_holes(mask: np.ndarray) -> np.ndarray:
    """Fill holes that are round, as the pale middle of red cells; gaps between cells are bent inwards and stay.

    Args:
        mask: uint8 (height, width), 0 or 1, filled in place.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for index, contour in enumerate(contours):
        is_hole = hierarchy[0, index, 3] >= 0
        if is_hole and cv2.contourArea(contour) >= 0.85 * cv2.contourArea(cv2.convexHull(contour)):
            cv2.drawContours(mask, [contour], 0, 1, cv2.FILLED)
    return mask


def nucleus_mask(purple: np.ndarray, red_cell: float) -> np.ndarray:
    """Segment nuclei, where purple is more than half of its darkest tenth around: uint8 (height, width), 0 or 1.

    Args:
        purple: From `purple_of`.
        red_cell: Diameter of a red cell in pixels.
    """
    threshold = max(_PURPLE, _PURPLE_SHARE * np.percentile(purple, 99.5))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((purple > threshold).astype(np.uint8), connectivity=4)
    mask: np.ndarray = np.zeros(purple.shape, np.uint8)
    for index in range(1, count):
        left, top, width, height, area = stats[index]
        if area > _SMALLEST_PART * disc_area(red_cell):
            here = slice(top, top + height), slice(left, left + width)
            inside = labels[here] == index
            edge = _NUCLEUS_EDGE * np.percentile(purple[here][inside], 90)
            mask[here] |= inside & (purple[here] > edge)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, ellipse(0.1 * red_cell))
    return _fill_round_holes(mask)


def distance_inside(mask: np.ndarray) -> np.ndarray:
    """Smoothed distance of each pixel from the edge of the mask, 0 outside: float32 (height, width).

    Args:
        mask: uint8 (height, width), 0 or 1.
    """
    # The mask is continued beyond the border, so that a nucleus which is cut off has no edge there.
    distance = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5)
    return cv2.GaussianBlur(distance, (0, 0), 1)[1:-1, 1:-1] * mask


def cut_necks(distance: np.ndarray, red_cell: float) -> np.ndarray:
    """Split touching nuclei by a watershed of the distance: labels of parts, int32 (height, width), 0 outside.

    Args:
        distance: From `distance_inside`.
        red_cell: Diameter of a red cell in pixels.
    """
    peaks = (distance == cv2.dilate(distance, ellipse(0.25 * red_cell))) & (distance > 1)
    labels = cv2.connectedComponents(peaks.astype(np.uint8))[1].astype(np.float32)
    for level in range(int(distance.max()), -1, -1):
        reached = distance > level
        for _ in range(2):
            grown = cv2.dilate(labels, np.ones((3, 3), np.uint8))
            np.copyto(labels, grown, where=reached & (labels == 0))
    return labels.astype(np.int32)


def disc_area(diameter: float) -> float:
    return np.pi / 4 * diameter**2


def ellipse(diameter: float) -> np.ndarray:
    """A structuring element of about that many pixels, an odd number and three at least."""
    side = max(3, int(diameter) | 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
