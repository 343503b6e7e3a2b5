"""From photographs of a smear to a specimen: finding cells, overlaps, counting, review and the differential."""

from wbc_hf.smear.archive import count_archive
from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review, count_cells, count_found
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
from wbc_hf.smear.monolayer import FIELD_SIZE, Monolayer, SlideField, find_monolayer
from wbc_hf.smear.picture_kind import PictureKind, kind_of_picture
from wbc_hf.smear.picture_store import KeptPicture, PictureStore
from wbc_hf.smear.review_order import next_to_teach
from wbc_hf.smear.slide_counting import LEUCOCYTES, MEASURED, SlideReading, count_slide, map_of, read_slide
from wbc_hf.smear.slides import NO_PYRAMID, Slide, open_slide
from wbc_hf.smear.snapshot import Picture, Place, SlideMap, Snapshot
from wbc_hf.smear.specimen import Specimen

__all__ = [
    "DEFAULT_RANGES",
    "ENOUGH_COUNTED",
    "FIELD_SIZE",
    "LEUCOCYTES",
    "MEASURED",
    "NEVER_COUNTED",
    "NO_PYRAMID",
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
    "Monolayer",
    "Origin",
    "Picture",
    "PictureKind",
    "PictureStore",
    "Place",
    "ReferenceRanges",
    "Review",
    "Share",
    "Slide",
    "SlideField",
    "SlideMap",
    "SlideReading",
    "Snapshot",
    "Specimen",
    "check_laboratory",
    "check_leucocyte_count",
    "count",
    "count_archive",
    "count_cells",
    "count_found",
    "count_slide",
    "differentiate",
    "differentiate_cells",
    "find_cells",
    "find_monolayer",
    "kind_of_picture",
    "load_ranges",
    "map_of",
    "next_to_teach",
    "open_slide",
    "predict_cells",
    "read_slide",
]
