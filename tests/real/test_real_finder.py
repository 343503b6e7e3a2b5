"""The cell finder on photographs that a microscope took, against the boxes that people drew."""

import os
from pathlib import Path

import pytest
from PIL import Image

from wbc_hf.data import Box, read_image
from wbc_hf.data.fields import read_boxed_fields
from wbc_hf.smear.finder import find_cells

DATA = Path(os.environ.get("WBC_HF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
FIELDS = DATA / "bccd" / "fields"
PHOTOGRAPHS = 40
CELLS_PER_CLASS = 8

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FIELDS.is_dir(), reason=f"no photographs in {FIELDS}; WBC_HF_DATA names another folder"),
]


def holds(box: Box, inner: Box) -> bool:
    """Whether the middle of `inner` lies in `box`."""
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def test_nearly_all_boxed_leucocytes_are_found_and_little_else():
    fields = read_boxed_fields(FIELDS)
    boxed = found = false = 0
    for field in fields[:: len(fields) // PHOTOGRAPHS][:PHOTOGRAPHS]:
        truth, cells = field.boxes, find_cells(field.read())
        hits = sum(any(holds(box, cell.box) for cell in cells) for box in truth)
        boxed, found, false = boxed + len(truth), found + hits, false + len(cells) - hits
    assert boxed >= 0.9 * PHOTOGRAPHS
    assert found >= 0.97 * boxed
    assert false <= 0.05 * PHOTOGRAPHS


def test_a_cut_out_cell_of_another_laboratory_is_one_cell_in_the_middle():
    paths = [path for folder in sorted((DATA / "pbc").glob("*/")) for path in sorted(folder.glob("*.jpg"))]
    if not paths:
        pytest.skip(f"no pictures in {DATA / 'pbc'}")
    paths = paths[:: len(paths) // (5 * CELLS_PER_CLASS)]
    in_the_middle = 0
    for path in paths:
        image: Image.Image = read_image(path)
        middle = (image.width // 2, image.height // 2) * 2
        in_the_middle += sum(holds(cell.box, middle) for cell in find_cells(image)) == 1
    assert in_the_middle >= 0.9 * len(paths)
