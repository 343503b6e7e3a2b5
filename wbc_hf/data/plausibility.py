"""Check whether a picture can show a stained cell, and make synthetic outliers that do not."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

_SIDE = 64
# Every Romanowsky stain makes nuclei purple: green is absorbed most, whatever the camera does to red and blue.
_NUCLEUS_DENSITY = 0.18
_NUCLEUS_PURPLE = 0.06
_NUCLEUS_SHARE = (0.015, 0.95)
# Nuclei are smooth and lie together: most of their pixels have neighbours that are nucleus too.
_NUCLEUS_COHERENCE = 0.55


def may_be_stained_cell(image: Image.Image) -> bool:
    """Whether a picture shows something dark purple and coherent on something lighter, as a stained nucleus is.

    Rejects plain colours, noise, documents and most photographs of other things, in well under a millisecond. What
    passes need not be a leucocyte.

    Args:
        image: RGB, any size.
    """
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0), dtype=np.float32)
    density = -np.log10((small + 1) / 256)
    background = np.percentile(density, 10, axis=(0, 1))
    red, green, blue = np.moveaxis(np.maximum(density - background, 0), 2, 0)
    purple = (green > 0.95 * np.maximum(red, blue)) & (green - np.minimum(red, blue) > _NUCLEUS_PURPLE)
    nucleus = (green > _NUCLEUS_DENSITY) & purple
    share = nucleus.mean()
    if not _NUCLEUS_SHARE[0] <= share <= _NUCLEUS_SHARE[1]:
        return False
    padded = np.pad(nucleus, 1)
    neighbours = padded[:-2, 1:-1].astype(int) + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return bool((neighbours[nucleus] >= 3).mean() >= _NUCLEUS_COHERENCE)


def synthetic_outliers(cells: Sequence[Image.Image], seed: int = 0) -> Iterator[Image.Image]:
    """Make an out-of-distribution picture of each cell, for choosing an out-of-distribution score without real ones.

    In turn a blend of two cells, the darker of two cells in each pixel, a corner without the cell, and a cell cut into
    nine shuffled tiles.

    Args:
        cells: RGB, at least two.
        seed: Random seed.
    """
    generator = np.random.default_rng(seed)
    for index, cell in enumerate(cells):
        other = cells[(index + 1 + int(generator.integers(len(cells) - 1))) % len(cells)].resize(cell.size)
        kind = index % 4
        if kind == 0:
            yield Image.blend(cell, other, 0.5)
        elif kind == 1:
            yield Image.fromarray(np.minimum(np.asarray(cell), np.asarray(other)))
        elif kind == 2:
            yield _corner(cell, generator)
        else:
            yield _shuffled(cell, generator)


def _corner(cell: Image.Image, generator: np.random.Generator) -> Image.Image:
    width, height = (max(16, side // 3) for side in cell.size)
    left, top = (
        (side - part) * int(generator.integers(2)) for side, part in zip(cell.size, (width, height), strict=True)
    )
    return cell.crop((left, top, left + width, top + height))


def _shuffled(cell: Image.Image, generator: np.random.Generator) -> Image.Image:
    side = max(6, min(cell.size) // 3)
    pixels = np.asarray(cell.resize((3 * side, 3 * side)))
    tiles = pixels.reshape(3, side, 3, side, 3).swapaxes(1, 2).reshape(9, side, side, 3)
    tiles = tiles[generator.permutation(9)].reshape(3, 3, side, side, 3)
    return Image.fromarray(tiles.swapaxes(1, 2).reshape(3 * side, 3 * side, 3))
