"""Cells cut out of boxed fields: their classes, their names, and the set that they make."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_sets import write_yolo
from wbc_hf.data import crop_cell, load_leucocytes, read_image
from wbc_hf.data.boxed_cells import cut_cells, find_boxed_cells, is_boxed_folder
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES

TWO = "1 0.5 0.5 0.2 0.3\n0 0.05 0.2 0.1 0.1\n"


def named(folder: Path, names: str) -> Path:
    (folder / "boxes" / "classes.txt").write_text(names)
    return folder


def test_classes_are_those_of_the_file_beside_the_boxes(tmp_path: Path):
    folder = named(write_yolo(tmp_path, {"a": TWO, "b": "", "c": "1 0.5 0.5 0.1 0.1\n"}), "NEU\nlymph\n")
    assert is_boxed_folder(folder)
    assert not is_boxed_folder(folder / "images")
    assert [(cell.source, cell.class_name, cell.box) for cell in find_boxed_cells(folder)] == [
        ("a_0.png", "NEU", (0, 18, 16, 30)),
        ("a_1.png", "lymph", (64, 42, 96, 78)),
        ("c_0.png", "lymph", (72, 54, 88, 66)),
    ]


def test_cells_are_framed_as_the_page_frames_them(tmp_path: Path):
    cells = find_boxed_cells(named(write_yolo(tmp_path, {"a": TWO}), "NEU\nlymph\n"))
    field = read_image(tmp_path / "images" / "a.png")
    border, middle = cut_cells(cells)
    assert np.array_equal(border, crop_cell(field, (0, 18, 16, 30)))
    assert np.array_equal(border, np.asarray(field)[12:36, :24])
    assert middle.size == (54, 54)


def test_classes_of_a_public_set_are_known_and_its_slides_stay_together(tmp_path: Path):
    names = [f"{slide}_{number:04d}" for slide in ("B-1", "B-2", "B-3", "B-4", "B-5") for number in (3, 11)]
    cells = load_leucocytes(write_yolo(tmp_path, dict.fromkeys(names, "2 0.5 0.5 0.3 0.4\n")))
    assert cells.provenance.title == "Chulalongkorn University (Bekti et al.)"
    assert {CLASS_NAMES[label] for rows in cells.values() for label in rows["label"]} == {"basophil"}
    slides = [slide for rows in cells.values() for slide in {source[:3] for source in rows["source"]}]
    assert Counter(slides) == dict.fromkeys(("B-1", "B-2", "B-3", "B-4", "B-5"), 1)
    assert cells["train"][0]["image"].size == (72, 72)


def test_fields_and_class_folders_are_loaded_together(tmp_path: Path):
    fields = {f"field{index}": "0 0.5 0.5 0.3 0.4\n" for index in range(4)}
    named(write_yolo(tmp_path / "fields", fields), "mono\n")
    cells = load_leucocytes([tmp_path / "fields", "synthetic:4"])
    assert {name: Counter(rows["laboratory"])["fields"] for name, rows in cells.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("names", "boxes", "message"),
    [
        (None, "0 0.5 0.5 0.1 0.1\n", "classes.txt: there is no such file, so it is not known which class"),
        (
            "mono\neos\n",
            "2 0.5 0.5 0.1 0.1\n",
            r"a.txt: a box is of class 2, but the classes are 0 to 1 \(mono",
        ),
        ("RBC\n", "0 0.5 0.5 0.1 0.1\n", "the class 'RBC' is not one of the five leucocytes"),
        ("mono\n", "0 0.5 0.5\n", "boxes cannot be read"),
    ],
)
def test_what_makes_no_set_is_named(names: str | None, boxes: str, message: str, tmp_path: Path):
    folder = write_yolo(tmp_path, {"a": boxes})
    if names is not None:
        named(folder, names)
    with pytest.raises(WbcError, match=message):
        load_leucocytes(folder)
