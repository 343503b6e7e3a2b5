"""Images in: where they come from, how they are read, split, varied and painted."""

from wbc_hf.data.audit import audit, format_audit
from wbc_hf.data.augmentation import Augmentation
from wbc_hf.data.fields import Box, BoxedField, read_boxed_fields, split_boxed_fields
from wbc_hf.data.folders import FolderImage, find_pictures, scan_folder
from wbc_hf.data.framing import frame, locate_nuclei
from wbc_hf.data.known_sets import KNOWN_SETS, PAINTED_TITLE, KnownSet, photograph
from wbc_hf.data.loading import Leucocytes, Provenance, leaked_test_images, load_leucocytes, with_painted
from wbc_hf.data.near_duplicate_pairs import near_duplicate_pairs
from wbc_hf.data.near_duplicates import KeyPoints, Match, describe, match
from wbc_hf.data.nuclei import (
    PURPLE,
    SMALLEST_PART,
    CellMasks,
    cut_necks,
    disc_area,
    distance_inside,
    ellipse,
    fill_round_holes,
    nucleus_mask,
    optical_densities,
    purple_of,
    segment_cell,
)
from wbc_hf.data.plausibility import may_be_stained_cell, synthetic_outliers
from wbc_hf.data.reading import FORMATS, MAX_PIXELS, SUFFIXES, ImageSource, read_image
from wbc_hf.data.stain_augmentation import OtherLaboratories
from wbc_hf.data.synthetic import PaintedField, paint_cells, paint_field

__all__ = [
    "FORMATS",
    "KNOWN_SETS",
    "MAX_PIXELS",
    "PAINTED_TITLE",
    "PURPLE",
    "SMALLEST_PART",
    "SUFFIXES",
    "Augmentation",
    "Box",
    "BoxedField",
    "CellMasks",
    "FolderImage",
    "ImageSource",
    "KeyPoints",
    "KnownSet",
    "Leucocytes",
    "Match",
    "OtherLaboratories",
    "PaintedField",
    "Provenance",
    "audit",
    "cut_necks",
    "describe",
    "disc_area",
    "distance_inside",
    "ellipse",
    "fill_round_holes",
    "find_pictures",
    "format_audit",
    "frame",
    "leaked_test_images",
    "load_leucocytes",
    "locate_nuclei",
    "match",
    "may_be_stained_cell",
    "near_duplicate_pairs",
    "nucleus_mask",
    "optical_densities",
    "paint_cells",
    "paint_field",
    "photograph",
    "purple_of",
    "read_boxed_fields",
    "read_image",
    "scan_folder",
    "segment_cell",
    "split_boxed_fields",
    "synthetic_outliers",
    "with_painted",
]
