"""Measure cells: geometry, intensity and texture of nucleus and cytoplasm.

Features follow Osowski & Markiewicz (2007, Kernel Methods in Bioengineering, Signal and Image Processing, chapter 4):
geometry, statistics of the intensity, and grey-level co-occurrence (Haralick et al. 1973), with local binary patterns
(Ojala et al. 2002) added. Lengths and areas are relative to the side of the picture, intensities are those of the
file.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from skimage.measure import regionprops

from wbc_hf.data import CellMasks, cut_necks, disc_area, distance_inside, segment_cell

_SHAPES = ("area", "perimeter", "circularity", "eccentricity", "aspect", "solidity", "extent", "fill")
_MOMENTS = tuple(f"hu_{number}" for number in range(1, 5))
_CHANNELS = ("red", "green", "blue", "saturation")
_STATISTICS = tuple(f"{statistic}_{channel}" for statistic in ("mean", "std", "skewness") for channel in _CHANNELS)
_HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
_DISTANCES = (1, 3)
_GREY_LEVELS = 32
_PATTERNS = 10
_TEXTURE = (
    *(f"{name}_{distance}" for name in _HARALICK for distance in _DISTANCES),
    *(f"pattern_{number}" for number in range(_PATTERNS)),
)
# Lobes are separated as if a red cell were as wide as this share of the nucleus.
_RED_CELL_SHARE = 0.7

NUCLEUS_SHAPE = tuple(f"nucleus_{name}" for name in (*_SHAPES, *_MOMENTS, "parts", "lobes"))
NUCLEUS_TEXTURE = tuple(f"nucleus_{name}" for name in _TEXTURE)
CELL_SHAPE = (*(f"cell_{name}" for name in _SHAPES), "nucleus_to_cell", "nucleus_off_centre")
MEAN_COLOURS = tuple(f"{region}_mean_{channel}" for region in ("nucleus", "cytoplasm") for channel in _CHANNELS)
FEATURES = (
    *NUCLEUS_SHAPE,
    *(f"nucleus_{name}" for name in _STATISTICS),
    *NUCLEUS_TEXTURE,
    *CELL_SHAPE,
    *(f"cytoplasm_{name}" for name in (*_STATISTICS, *_TEXTURE)),
)


def columns(names: Iterable[str]) -> list[int]:
    """Find the columns of features in the rows of `measure_cells`."""
    return [FEATURES.index(name) for name in names]


def measure_cells(images: Iterable[Image.Image]) -> np.ndarray:
    """Measure cells: float64 (n, len(FEATURES)), all finite; zeros for a picture without a nucleus.

    Args:
        images: RGB, any size, of one cell each.
    """
    return np.stack([measure_cell(segment_cell(image)) for image in images])


def measure_cell(masks: CellMasks) -> np.ndarray:
    """Measure one cell: float64 (len(FEATURES),), all finite; zeros where there is no nucleus."""
    if not masks.nucleus.any():
        return np.zeros(len(FEATURES))
    # Patterns and co-occurrences look beyond the cell by a pixel.
    x, y, width, height = cv2.boundingRect(masks.cell.astype(np.uint8))
    here = slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
    pixels, nucleus, cell = masks.pixels[here], masks.nucleus[here], masks.cell[here]
    cytoplasm = cell & ~nucleus
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    patterns = local_binary_pattern(grey, 8, 1, "uniform").astype(np.uint8)
    colours = np.dstack([pixels, cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1]])
    side = max(masks.pixels.shape)
    (nucleus_region,), (cell_region,) = (regionprops(mask.astype(np.uint8)) for mask in (nucleus, cell))
    offset = np.linalg.norm(np.subtract(nucleus_region.centroid, cell_region.centroid))
    return np.concatenate(
        [
            _shape(nucleus, side),
            _hu_moments(nucleus),
            _lobes(nucleus, nucleus_region.axis_major_length),
            _statistics(colours[nucleus]),
            _texture(grey, patterns, nucleus),
            _shape(cell, side),
            [nucleus_region.area / cell_region.area, 2 * offset / cell_region.equivalent_diameter_area],
            _statistics(colours[cytoplasm]),
            _texture(grey, patterns, cytoplasm),
        ]
    )


def _shape(mask: np.ndarray, side: int) -> list[float]:
    """Compute `_SHAPES`; `side` is the longer one of the picture."""
    (region,) = regionprops(mask.astype(np.uint8))
    # A single pixel has neither perimeter nor axes: 1 stands in.
    perimeter, longest = max(region.perimeter_crofton, 1), max(region.axis_major_length, 1)
    points = cv2.findNonZero(mask.astype(np.uint8))
    radius = cv2.minEnclosingCircle(points)[1]
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(points), 1)
    return [
        region.area / side**2,
        perimeter / side,
        4 * np.pi * region.area / perimeter**2,
        region.eccentricity,
        region.axis_minor_length / longest,
        region.area / hull.sum(),
        region.extent,
        region.area / disc_area(2 * radius + 1),
    ]


def _hu_moments(mask: np.ndarray) -> np.ndarray:
    """Logarithms of the first four moments of Hu (1962), invariant to translation, scale and rotation."""
    moments = cv2.HuMoments(cv2.moments(mask.astype(np.uint8), binaryImage=True))
    return np.log10(np.abs(moments[: len(_MOMENTS), 0]) + 1e-8)


def _lobes(nucleus: np.ndarray, length: float) -> tuple[float, float]:
    """Count a nucleus's parts before and after cutting them at their necks; `length` is in pixels."""
    mask = nucleus.astype(np.uint8)
    return cv2.connectedComponents(mask)[0] - 1, cut_necks(distance_inside(mask), _RED_CELL_SHARE * length).max()


def _statistics(values: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and skewness of colours (n, 4), 0 to 255: (12,), zeros where n is 0."""
    if len(values) == 0:
        return np.zeros(len(_STATISTICS))
    values = values / 255
    mean, std = values.mean(axis=0), values.std(axis=0)
    skewness = ((values - mean) ** 3).mean(axis=0) / np.maximum(std, 1 / 255) ** 3
    return np.concatenate([mean, std, skewness])


def _texture(grey: np.ndarray, patterns: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grey-level co-occurrence, averaged over four directions, and shares of local binary patterns.

    An empty mask gives the values of a single grey level.
    """
    levels = np.where(mask, grey // (256 // _GREY_LEVELS) + 1, 0).astype(np.uint8)
    pairs = graycomatrix(levels, _DISTANCES, np.arange(4) * np.pi / 4, _GREY_LEVELS + 1, symmetric=True)
    # Level 0 is what lies outside.
    pairs = pairs[1:, 1:]
    haralick = [graycoprops(pairs, name).mean(axis=1) for name in _HARALICK]
    counts = np.bincount(patterns[mask], minlength=_PATTERNS)
    return np.concatenate([*haralick, counts / max(counts.sum(), 1)])
