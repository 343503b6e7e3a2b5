"""Images in: where they come from, how they are read, split, varied and painted."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.data.audit_page import write_audit_page
    from wbc_hf.data.auditing import DOUBTED_BELOW, LabelIssue, LabelIssues, audit, format_audit
    from wbc_hf.data.augmentation import Augmentation
    from wbc_hf.data.cell_masks import CellMasks, cell_mask, segment_cell
    from wbc_hf.data.checks import OtherClasses
    from wbc_hf.data.fields import KNOWN_FIELDS, BoxedField, read_boxed_fields, split_boxed_fields
    from wbc_hf.data.framing import (
        DEFAULT_SPAN,
        WHOLE,
        Box,
        Framing,
        crop_cell,
        cut_framing,
        framings_within,
        orientations,
    )
    from wbc_hf.data.hub_sets import IMAGE_COLUMN, open_hub_set, source_name
    from wbc_hf.data.key_points import KeyPoints, describe, match
    from wbc_hf.data.known_sets import PAINTED_LABORATORY, PAINTED_TITLE
    from wbc_hf.data.laboratory_styles import LaboratoryStyles, measure_styles, remove_cell
    from wbc_hf.data.layouts.class_folders import FolderImage, has_class_folders, scan_folder
    from wbc_hf.data.layouts.walking import find_pictures, is_document, is_folder, walk_folder
    from wbc_hf.data.loading import Leucocytes, leaked_test_images, load_leucocytes, with_painted
    from wbc_hf.data.near_duplicates import find_near_duplicates, group_images
    from wbc_hf.data.nuclei import cut_necks, disc_area, distance_inside
    from wbc_hf.data.nucleus_views import frame, locate_nuclei
    from wbc_hf.data.pixel_size import read_pixel_size
    from wbc_hf.data.plausibility import may_be_stained_cell
    from wbc_hf.data.reading import (
        MAX_PIXELS,
        NO_IMAGE,
        SUFFIXES,
        FilePart,
        ImageSource,
        count_pixels,
        find_pages,
        image_content,
        read_image,
    )
    from wbc_hf.data.slide_kinds import slide_kind
    from wbc_hf.data.split_names import split_name
    from wbc_hf.data.splits import check_new_folder, write_clean_split
    from wbc_hf.data.stain_augmentation import OtherLaboratories
    from wbc_hf.data.synthetic import paint_cells, paint_field
    from wbc_hf.data.unlabelled import NO_LABEL, with_unlabelled
    from wbc_hf.data.unpacking import NamedSource, split_pages, unpack
    from wbc_hf.data.zip_files import MAX_MEMBER_BYTES, is_zip

__all__ = [
    "DEFAULT_SPAN",
    "DOUBTED_BELOW",
    "IMAGE_COLUMN",
    "KNOWN_FIELDS",
    "MAX_MEMBER_BYTES",
    "MAX_PIXELS",
    "NO_IMAGE",
    "NO_LABEL",
    "PAINTED_LABORATORY",
    "PAINTED_TITLE",
    "SUFFIXES",
    "WHOLE",
    "Augmentation",
    "Box",
    "BoxedField",
    "CellMasks",
    "FilePart",
    "FolderImage",
    "Framing",
    "ImageSource",
    "KeyPoints",
    "LabelIssue",
    "LabelIssues",
    "LaboratoryStyles",
    "Leucocytes",
    "NamedSource",
    "OtherClasses",
    "OtherLaboratories",
    "audit",
    "cell_mask",
    "check_new_folder",
    "count_pixels",
    "crop_cell",
    "cut_framing",
    "cut_necks",
    "describe",
    "disc_area",
    "distance_inside",
    "find_near_duplicates",
    "find_pages",
    "find_pictures",
    "format_audit",
    "frame",
    "framings_within",
    "group_images",
    "has_class_folders",
    "image_content",
    "is_document",
    "is_folder",
    "is_zip",
    "leaked_test_images",
    "load_leucocytes",
    "locate_nuclei",
    "match",
    "may_be_stained_cell",
    "measure_styles",
    "open_hub_set",
    "orientations",
    "paint_cells",
    "paint_field",
    "read_boxed_fields",
    "read_image",
    "read_pixel_size",
    "remove_cell",
    "scan_folder",
    "segment_cell",
    "slide_kind",
    "source_name",
    "split_boxed_fields",
    "split_name",
    "split_pages",
    "unpack",
    "walk_folder",
    "with_painted",
    "with_unlabelled",
    "write_audit_page",
    "write_clean_split",
]

__getattr__ = lazy_names(__name__)
