"""From photographs of a smear to a specimen: finding cells, overlaps, counting, review and the differential."""

from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review, count_cells
from wbc_hf.smear.counting import CellCounter, count
from wbc_hf.smear.differential import (
    CONFIDENCE,
    DEFAULT_RANGES,
    ENOUGH_COUNTED,
    Absolute,
    Differential,
    Flag,
    ReferenceRanges,
    Share,
    check_leucocyte_count,
    differentiate,
    load_ranges,
)
from wbc_hf.smear.finder import Finder, FoundCell, find_cells
from wbc_hf.smear.snapshot import Picture, Snapshot
from wbc_hf.smear.specimen import Specimen

__all__ = [
    "CONFIDENCE",
    "DEFAULT_RANGES",
    "ENOUGH_COUNTED",
    "NEVER_COUNTED",
    "Absolute",
    "Cell",
    "CellCounter",
    "CellState",
    "Differential",
    "Finder",
    "Flag",
    "FoundCell",
    "Picture",
    "ReferenceRanges",
    "Review",
    "Share",
    "Snapshot",
    "Specimen",
    "check_leucocyte_count",
    "count",
    "count_cells",
    "differentiate",
    "find_cells",
    "load_ranges",
]
