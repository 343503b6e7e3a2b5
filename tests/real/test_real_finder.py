"""The cell finder on photographs of three laboratories that were held back, against the boxes that people drew."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finder_training.artefacts import ARTEFACTS
from wbc_hf.data import KNOWN_FIELDS, Box, BoxedField, find_pictures, read_image, split_boxed_fields
from wbc_hf.evaluation import match_boxes
from wbc_hf.smear import find_cells

DATA = Path(os.environ.get("WBC_HF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PHOTOGRAPHS = 40
CELLS = 40

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no photographs in {DATA}; WBC_HF_DATA names another folder"),
]


def photographs(name: str) -> list[BoxedField]:
    folder, classes = KNOWN_FIELDS[name]
    if not (DATA / folder).is_dir():
        pytest.skip(f"no photographs in {DATA / folder}")
    fields = split_boxed_fields(DATA / folder, classes)["scoring"]
    return fields[:: len(fields) // PHOTOGRAPHS][:PHOTOGRAPHS]


def boxes_of(image: Image.Image) -> list[Box]:
    return [cell.box for cell in find_cells(image)]


@pytest.mark.parametrize(
    ("name", "least_found", "most_false"), [("bccd", 0.97, 0.05), ("raabin", 0.95, 0.1), ("chula", 0.9, 0.2)]
)
def test_nearly_all_boxed_leucocytes_are_found_and_little_else(name: str, least_found: float, most_false: float):
    fields = photographs(name)
    boxed = found = false = 0
    for field in fields:
        boxes = boxes_of(field.read())
        hits = len(match_boxes(field.boxes, boxes))
        boxed, found, false = boxed + len(field.boxes), found + hits, false + len(boxes) - hits
    assert boxed >= 0.9 * len(fields)
    assert found >= least_found * boxed
    assert false <= most_false * len(fields)


@pytest.mark.parametrize("margin", [20, 80])
def test_a_white_frame_hides_nothing(margin: int):
    fields = photographs("bccd")[::2]
    lost = 0
    for field in fields:
        image = field.read()
        framed = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin), "white")
        framed.paste(image, (margin, margin))
        moved = [tuple(np.add(box, margin).tolist()) for box in field.boxes]
        lost += len(match_boxes(field.boxes, boxes_of(image))) - len(match_boxes(moved, boxes_of(framed)))
    assert lost <= 1


def test_a_view_through_an_eyepiece_shows_the_cells_in_sight():
    cells = found = false = 0
    for number, field in enumerate(photographs("bccd")):
        altered = ARTEFACTS["eyepiece"](np.asarray(field.read()), np.random.default_rng(number))
        clear = [box for box in field.boxes if not altered.hidden[box[1] : box[3], box[0] : box[2]].any()]
        boxes = boxes_of(Image.fromarray(altered.image))
        cells, found = cells + len(clear), found + len(match_boxes(clear, boxes))
        false += len(boxes) - len(match_boxes(field.boxes, boxes))
    assert found >= 0.97 * cells
    assert false <= 2


@pytest.mark.parametrize("folder", ["pbc", "tecom", "bccd/crops"])
def test_a_picture_of_one_cell_gets_one_box_in_the_middle(folder: str):
    if not (DATA / folder).is_dir():
        pytest.skip(f"no pictures in {DATA / folder}")
    paths = sorted(find_pictures(DATA / folder))
    paths = paths[:: len(paths) // CELLS][:CELLS]
    in_the_middle = 0
    for path in paths:
        image = read_image(path)
        x, y = image.width / 2, image.height / 2
        in_the_middle += sum(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes_of(image)) == 1
    assert in_the_middle >= 0.95 * len(paths)
