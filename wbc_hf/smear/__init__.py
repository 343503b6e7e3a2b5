"""From photographs of a smear to a specimen: finding cells, overlaps, counting, review and the differential."""

from wbc_hf.smear.counting import Examiner
from wbc_hf.smear.differential import DEFAULT_RANGES, ReferenceRanges, check_leucocytes, load_ranges
from wbc_hf.smear.snapshot import Snapshot, take_snapshot
from wbc_hf.smear.specimen import Specimen

__all__ = [
    "DEFAULT_RANGES",
    "Examiner",
    "ReferenceRanges",
    "Snapshot",
    "Specimen",
    "check_leucocytes",
    "load_ranges",
    "take_snapshot",
]
