"""Photographs with boxes: reading them, and keeping those that overlap on one side."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_sets import write_yolo
from wbc_hf.data.fields import read_boxed_fields, split_boxed_fields
from wbc_hf.errors import WbcError

OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def write_fields(folder: Path, count: int) -> Path:
    """Empty photographs, the i-th with a leucocyte at (i, 2, 20, 30) and a red cell."""
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        name = f"BloodImage_{index:05d}"
        Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(folder / "images" / f"{name}.jpg")
        objects = OBJECT.format("WBC", index, 2, 20, 30) + OBJECT.format("RBC", 1, 1, 9, 9)
        (folder / "annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


def numbers(fields: list) -> list[int]:
    return [int(field.name[-5:]) for field in fields]


def test_leucocytes_are_read_and_red_cells_are_not(tmp_path: Path):
    fields = read_boxed_fields(write_fields(tmp_path / "fields", 3))
    assert [field.boxes for field in fields] == [((index, 2, 20, 30),) for index in range(3)]
    assert numbers(fields) == [0, 1, 2]
    assert fields[0].read().size == (40, 32)


def test_without_known_overlaps_the_halves_are_by_name(tmp_path: Path):
    halves = split_boxed_fields(write_fields(tmp_path / "fields", 7))
    assert numbers(halves["tuning"]) == [0, 1, 2]
    assert numbers(halves["scoring"]) == [3, 4, 5, 6]


def test_a_photograph_that_overlaps_one_for_tuning_goes_there(tmp_path: Path):
    folder = write_fields(tmp_path / "fields", 6)
    (tmp_path / "overlap_pairs.csv").write_text("a,b\n00001,00004\n00003,00005\n00002,00999\n")
    halves = split_boxed_fields(folder)
    assert numbers(halves["tuning"]) == [0, 1, 2, 4]
    assert numbers(halves["scoring"]) == [3, 5]


def test_a_folder_without_photographs_is_named(tmp_path: Path):
    with pytest.raises(
        WbcError, match=r"holds no photographs with boxes\. Expected are photographs in images/"
    ) as error:
        read_boxed_fields(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize(
    "text", [None, "", "<annotation>" + OBJECT.format("WBC", "left", 2, 20, 30) + "</annotation>", "<a><object>"]
)
def test_boxes_that_cannot_be_read_are_named(tmp_path: Path, text: str | None):
    folder = write_fields(tmp_path / "fields", 2)
    path = folder / "annotations" / "BloodImage_00001.xml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(WbcError, match="boxes cannot be read") as error:
        read_boxed_fields(folder)
    assert str(path) in str(error.value)


# ---- boxes of YOLO


def test_boxes_in_shares_of_the_photograph_become_pixels(tmp_path: Path):
    folder = write_yolo(tmp_path, {"a": "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.1 0.1\n", "b": "\n"})
    assert [field.boxes for field in read_boxed_fields(folder)] == [((60, 30, 100, 90),), ()]
    assert [len(field.boxes) for field in read_boxed_fields(folder, (0, 1))] == [2, 0]


def test_photographs_of_one_slide_stay_together_and_each_type_is_on_both_sides(tmp_path: Path):
    names = [f"{slide}_{number:04d}" for slide in ("B-1", "B-2", "B-3", "E-7", "E-8", "E-9") for number in (3, 11)]
    halves = split_boxed_fields(write_yolo(tmp_path, dict.fromkeys(names, "0 0.5 0.5 0.2 0.2\n")))
    slides = {side: {field.name.split("_")[0] for field in fields} for side, fields in halves.items()}
    assert slides == {"tuning": {"B-1", "B-3", "E-7", "E-9"}, "scoring": {"B-2", "E-8"}}


def test_a_copy_of_a_photograph_stays_on_its_side(tmp_path: Path):
    folder = write_yolo(tmp_path, dict.fromkeys("abcdef", ""))
    (folder / "images" / "f.png").write_bytes((folder / "images" / "b.png").read_bytes())
    halves = split_boxed_fields(folder)
    assert [field.name for field in halves["scoring"]] == ["b", "e", "f"]


@pytest.mark.parametrize("lines", [None, "0 0.5 0.5\n", "cell 0.5 0.5 0.1 0.1\n"])
def test_lines_of_boxes_that_cannot_be_read_are_named(tmp_path: Path, lines: str | None):
    folder = write_yolo(tmp_path, {"a": lines or ""})
    if lines is None:
        (folder / "boxes" / "a.txt").unlink()
    with pytest.raises(WbcError, match="boxes cannot be read") as error:
        read_boxed_fields(folder)
    assert str(folder / "boxes" / "a.txt") in str(error.value)
