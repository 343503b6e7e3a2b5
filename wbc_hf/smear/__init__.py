"""From photographs of a smear to a specimen: finding cells, overlaps, counting, review and the differential."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.smear.agreement import Agreement, compare_readers
    from wbc_hf.smear.archive import count_archive
    from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review, count_cells, count_found
    from wbc_hf.smear.cell_types import (
        CLASS_KEYS,
        NO_TYPES,
        OTHER_COLOUR,
        REVIEW_KEYS,
        CellType,
        CellTypes,
        load_types,
    )
    from wbc_hf.smear.cell_views import predict_cells
    from wbc_hf.smear.change import Change, ChangedMeanwhileError
    from wbc_hf.smear.counting import CellCounter, count
    from wbc_hf.smear.differential import (
        DEFAULT_RANGES,
        ENOUGH_COUNTED,
        Absolute,
        Differential,
        Flag,
        PerHundred,
        ReferenceRanges,
        Share,
        check_leucocyte_count,
        differentiate,
        differentiate_cells,
        load_ranges,
    )
    from wbc_hf.smear.document import (
        MAX_DOCUMENT_BYTES,
        CellRecord,
        CellTypeRecord,
        PictureRecord,
        SlideRecord,
        describe_snapshot,
        load_document,
    )
    from wbc_hf.smear.finder import Finder, FoundCell, find_cells
    from wbc_hf.smear.history import NONE_OF_FIVE, About, Action, Event, Signature
    from wbc_hf.smear.laboratory_check import LaboratoryCheck, Origin, check_laboratory
    from wbc_hf.smear.monolayer import Monolayer, SlideField, find_monolayer
    from wbc_hf.smear.picture_kind import PictureKind, kind_of_picture
    from wbc_hf.smear.picture_store import KeptPicture, PictureStore, read_pictures
    from wbc_hf.smear.review_order import next_to_teach
    from wbc_hf.smear.sign_off import amend, open_points, sign
    from wbc_hf.smear.slide_counting import (
        LEUCOCYTES,
        MEASURED,
        NOT_KNOWN,
        SlideReading,
        count_slide,
        map_of,
        read_slide,
        unread_fields,
    )
    from wbc_hf.smear.slides import NO_PYRAMID, Slide, companions, file_digest, open_slide
    from wbc_hf.smear.snapshot import Contents, Picture, Place, SlideMap, Snapshot
    from wbc_hf.smear.specimen import Specimen

__all__ = [
    "CLASS_KEYS",
    "DEFAULT_RANGES",
    "ENOUGH_COUNTED",
    "LEUCOCYTES",
    "MAX_DOCUMENT_BYTES",
    "MEASURED",
    "NEVER_COUNTED",
    "NONE_OF_FIVE",
    "NOT_KNOWN",
    "NO_PYRAMID",
    "NO_TYPES",
    "OTHER_COLOUR",
    "REVIEW_KEYS",
    "About",
    "Absolute",
    "Action",
    "Agreement",
    "Cell",
    "CellCounter",
    "CellRecord",
    "CellState",
    "CellType",
    "CellTypeRecord",
    "CellTypes",
    "Change",
    "ChangedMeanwhileError",
    "Contents",
    "Differential",
    "Event",
    "Finder",
    "Flag",
    "FoundCell",
    "KeptPicture",
    "LaboratoryCheck",
    "Monolayer",
    "Origin",
    "PerHundred",
    "Picture",
    "PictureKind",
    "PictureRecord",
    "PictureStore",
    "Place",
    "ReferenceRanges",
    "Review",
    "Share",
    "Signature",
    "Slide",
    "SlideField",
    "SlideMap",
    "SlideReading",
    "SlideRecord",
    "Snapshot",
    "Specimen",
    "amend",
    "check_laboratory",
    "check_leucocyte_count",
    "companions",
    "compare_readers",
    "count",
    "count_archive",
    "count_cells",
    "count_found",
    "count_slide",
    "describe_snapshot",
    "differentiate",
    "differentiate_cells",
    "file_digest",
    "find_cells",
    "find_monolayer",
    "kind_of_picture",
    "load_document",
    "load_ranges",
    "load_types",
    "map_of",
    "next_to_teach",
    "open_points",
    "open_slide",
    "predict_cells",
    "read_pictures",
    "read_slide",
    "sign",
    "unread_fields",
]

__getattr__ = lazy_names(__name__)
