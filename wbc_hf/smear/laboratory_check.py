"""Tell whether a drop of photographs comes from a laboratory that a model has learned, from all its cells together.

A single odd cell does not tell: it may be rare, broken, or not one of the five classes. Ten that are odd alike share a
stain, a microscope or a camera.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from wbc_hf.modeling import MIN_DROP, Calibration
from wbc_hf.smear.cell import Cell, CellState


class Origin(StrEnum):
    """Where the cells of a drop come from."""

    KNOWN = "known"  # a laboratory that the model has learned, or one like it
    ANOTHER = "another"  # another stain, microscope or camera
    MIXED = "mixed"  # part of the photographs are of a laboratory that is known, part are not
    TOO_FEW = "too few"  # cells, to tell
    UNKNOWN = "unknown"  # since the model's folder does not say what its own cells are like


@dataclass(frozen=True)
class LaboratoryCheck:
    """What a drop of photographs is compared with what the model has learned.

    Attributes:
        origin: Where its cells come from.
        cells: Number of cells that this was told by.
        distance: Their median distance to the nearest laboratory that was learned; 1 is the limit beyond which they
            are of another one. None where it is unknown.
    """

    origin: Origin
    cells: int
    distance: float | None = None


# A drop is mixed if so many of its pictures lie on either side of the limit, and well apart.
_MIXED_SHARE = 0.25
_APART = 1.5  # times farther the far ones are, by the medians


def check_laboratory(cells: Iterable[Cell], calibration: Calibration | None) -> LaboratoryCheck:
    """Check whether cells are of a laboratory that the model has learned.

    Args:
        cells: Of a specimen. Those that are cut off, seen before, or no cells do not count.
        calibration: Of the model that predicted them.
    """
    by_picture: dict[int, list[float]] = {}
    for cell in cells:
        whole = not cell.cut and cell.state not in (CellState.DUPLICATE, CellState.REMOVED)
        if whole and cell.prediction.status != "not_a_cell" and cell.prediction.laboratory_distance is not None:
            by_picture.setdefault(cell.picture, []).append(cell.prediction.laboratory_distance)
    distances = np.array([distance for of_picture in by_picture.values() for distance in of_picture])
    if calibration is None or calibration.laboratory_distance is None:
        return LaboratoryCheck(Origin.UNKNOWN, len(distances))
    limit = calibration.laboratory_distance.limit
    if len(distances) < MIN_DROP:
        return LaboratoryCheck(Origin.TOO_FEW, len(distances))
    median = float(np.median(distances)) / limit
    if _is_mixed(np.array([np.median(of_picture) for of_picture in by_picture.values()]) / limit):
        return LaboratoryCheck(Origin.MIXED, len(distances), median)
    return LaboratoryCheck(Origin.ANOTHER if median > 1 else Origin.KNOWN, len(distances), median)


def _is_mixed(pictures: np.ndarray) -> bool:
    """Whether pictures, by their median distance in units of the limit, come from two kinds of laboratories."""
    near, far = pictures[pictures <= 1], pictures[pictures > 1]
    least = max(3, _MIXED_SHARE * len(pictures))
    return min(len(near), len(far)) >= least and float(np.median(far)) > _APART * float(np.median(near))
