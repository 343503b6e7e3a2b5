"""From photographs of a smear to a specimen: finding cells, overlaps, counting, review and the differential."""

from wbc_hf.smear.archive import count_archive
from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review, count_cells
from wbc_hf.smear.cell_views import CellView, predict_cells
from wbc_hf.smear.counting import CellCounter, count
from wbc_hf.smear.differential import (
    DEFAULT_RANGES,
    ENOUGH_COUNTED,
    Absolute,
    Differential,
    Flag,
    ReferenceRanges,
    Share,
    check_leucocyte_count,
    differentiate,
    differentiate_cells,
    load_ranges,
)
from wbc_hf.smear.finder import Finder, FoundCell, find_cells
from wbc_hf.smear.laboratory_check import LaboratoryCheck, Origin, check_laboratory
from wbc_hf.smear.picture_kind import PictureKind, kind_of_picture
from wbc_hf.smear.picture_store import KeptPicture, PictureStore
from wbc_hf.smear.review_order import next_to_teach
from wbc_hf.smear.snapshot import Picture, Snapshot
from wbc_hf.smear.specimen import Specimen

__all__ = [
    "DEFAULT_RANGES",
    "ENOUGH_COUNTED",
    "NEVER_COUNTED",
    "Absolute",
    "Cell",
    "CellCounter",
    "CellState",
    "CellView",
    "Differential",
    "Finder",
    "Flag",
    "FoundCell",
    "KeptPicture",
    "LaboratoryCheck",
    "Origin",
    "Picture",
    "PictureKind",
    "PictureStore",
    "ReferenceRanges",
    "Review",
    "Share",
    "Snapshot",
    "Specimen",
    "check_laboratory",
    "check_leucocyte_count",
    "count",
    "count_archive",
    "count_cells",
    "differentiate",
    "differentiate_cells",
    "find_cells",
    "kind_of_picture",
    "load_ranges",
    "next_to_teach",
    "predict_cells",
]
