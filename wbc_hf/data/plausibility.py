"""Check whether a picture can show a stained cell."""

import numpy as np
from PIL import Image

_SIDE = 64
# Every Romanowsky stain makes nuclei purple: green is absorbed most, or nearly so where a camera leans to blue.
_GREEN_SHARE = 0.7
# Thresholds are for pictures whose darkest pixels have this density. Those of paler ones are lower, down to half.
_FULL_CONTRAST, _LEAST_CONTRAST = 0.6, 0.5
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
    # Each channel by itself: over a last axis of three numpy takes twenty times as long.
    red, green, blue = np.ascontiguousarray(np.moveaxis(np.maximum(density - background, 0), 2, 0))
    strongest = np.maximum(np.maximum(red, green), blue)
    contrast = np.clip(np.percentile(strongest, 97) / _FULL_CONTRAST, _LEAST_CONTRAST, 1)
    hue = (green > _GREEN_SHARE * np.maximum(red, blue)) & (green - np.minimum(red, blue) > contrast * _NUCLEUS_PURPLE)
    nucleus = (green > contrast * _NUCLEUS_DENSITY) & hue
    share = nucleus.mean()
    if not _NUCLEUS_SHARE[0] <= share <= _NUCLEUS_SHARE[1]:
        return False
    padded = np.pad(nucleus, 1)
    neighbours = padded[:-2, 1:-1].astype(int) + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return bool((neighbours[nucleus] >= 3).mean() >= _NUCLEUS_COHERENCE)
