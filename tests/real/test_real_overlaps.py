"""Overlapping fields of a real smear are found, with the leucocyte that both show; neighbours in number stay apart."""

import csv
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from wbc_hf.data import Box, read_image
from wbc_hf.smear.overlaps import FieldIndex, describe_field, match_cells

DATA = Path(os.environ.get("WBC_HF_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "bccd"
PAIRS = 12
FIELDS = 40

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA}; WBC_HF_DATA names another folder"),
]


def listed_pairs() -> list[tuple[str, str, float]]:
    with (DATA / "overlap_pairs.csv").open(newline="") as file:
        return [(row["a"], row["b"], float(row["wbc_iou"])) for row in csv.DictReader(file)]


def picture(name: str) -> Path:
    return DATA / "fields" / "images" / f"BloodImage_{name}.jpg"


def boxes(name: str) -> list[Box]:
    cells = ElementTree.parse(DATA / "fields" / "annotations" / f"BloodImage_{name}.xml").iter("object")
    return [
        tuple(int(cell.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
        for cell in cells
        if cell.findtext("name") == "WBC"
    ]


def test_a_leucocyte_in_two_fields_is_matched():
    pairs = [(first, second) for first, second, iou in listed_pairs() if iou > 0.4][:PAIRS]
    for first, second in pairs:
        index = FieldIndex()
        index.add(describe_field(read_image(picture(first))))
        (overlap,) = index.add(describe_field(read_image(picture(second))))
        assert match_cells(boxes(second), boxes(first), overlap), (first, second)


def test_other_fields_stay_apart():
    overlapping = {name for first, second, _ in listed_pairs() for name in (first, second)}
    # These two show one place in different focus, which the list lacks.
    overlapping |= {"00037", "00038"}
    apart = [path for path in sorted(picture("").parent.iterdir()) if path.stem[-5:] not in overlapping][:FIELDS]
    index = FieldIndex()
    assert [index.add(describe_field(read_image(path))) for path in apart] == [[]] * FIELDS
