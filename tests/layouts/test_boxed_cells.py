"""Cells cut out of boxed fields: their classes, their names, and the set that they make."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_sets import write_yolo
from wbc_hf.data import crop_cell, load_leucocytes, paint_field, read_image
from wbc_hf.data.layouts.boxed_cells import cut_cells, find_boxed_cells
from wbc_hf.data.layouts.choose_layout import folder_rows
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES

TWO = "1 0.5 0.5 0.2 0.3\n0 0.05 0.2 0.1 0.1\n"


def named(folder: Path, names: str) -> Path:
    (folder / "boxes" / "classes.txt").write_text(names)
    return folder


def test_classes_are_those_of_the_file_beside_the_boxes(tmp_path: Path):
    folder = named(write_yolo(tmp_path, {"a": TWO, "b": "", "c": "1 0.5 0.5 0.1 0.1\n"}), "NEU\nlymph\n")
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


def write_photographs(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint_field([seed % 5], 160, 120, seed=seed).image).save(root / name)
    return root


def found(root: Path) -> list[tuple]:
    return [(cell.source, cell.class_name, cell.box, cell.split) for cell in find_boxed_cells(root)]


OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def voc(*objects: tuple) -> str:
    return f"<annotation>{''.join(OBJECT.format(*each) for each in objects)}</annotation>"


@pytest.mark.parametrize("boxes", ["annotations/a.xml", "images/a.xml", "Annotations/deep/a.xml"])
def test_boxes_of_voc(boxes: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_photographs(tmp_path, "images/a.jpg", "images/b.jpg")
    (tmp_path / boxes).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / boxes).write_text(voc(("Monocyte", 10, 20, "40.6", 50), ("RBC", 1, 2, 30, 40)))
    assert found(tmp_path) == [
        ("a_0.png", "Monocyte", (10, 20, 41, 50), None),
        ("a_1.png", "RBC", (1, 2, 30, 40), None),
    ]
    assert caplog.messages == [f"{tmp_path}: left out 1 photographs without a file of boxes, images/b.jpg for one."]


@pytest.mark.parametrize(
    ("photographs", "boxes"),
    [
        (("train/images/a.png", "valid/images/a.png"), ("train/labels/a.txt", "valid/labels/a.txt")),
        (("images/train/a.png", "images/val/a.png"), ("labels/train/a.txt", "labels/val/a.txt")),
        (("train/a.png", "val/a.png"), ("train/a.txt", "val/a.txt")),
    ],
)
@pytest.mark.parametrize("names", ["names: [eos, mono]\n", "names:\n  0: eos\n  1: mono\n"])
def test_boxes_of_yolo_in_splits(photographs: tuple, boxes: tuple, names: str, tmp_path: Path):
    write_photographs(tmp_path, *photographs)
    for path, line in zip(boxes, ("0 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.25 0.5"), strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(line)
    (tmp_path / "data.yaml").write_text(names)
    train, validation = (Path(name).with_suffix("") for name in photographs)
    assert found(tmp_path) == [
        (f"{train}_0.png", "eos", (40, 30, 120, 90), "train"),
        (f"{validation}_0.png", "mono", (60, 30, 100, 90), "validation"),
    ]


def test_boxes_of_coco(tmp_path: Path):
    write_photographs(tmp_path, "train/a.png", "test/a.png", "test/b.png")
    kinds = [{"id": 0, "name": "cells"}, {"id": 7, "name": "eos"}]
    for split, boxes in {"train": [[10, 20, 30.4, 40]], "test": [[1, 2, 3, 4], [5, 6, 7, 8]]}.items():
        content = {
            "images": [{"id": 5, "file_name": "a.png"}, {"id": 6, "file_name": "b.png"}][: 1 + (split == "test")],
            "annotations": [{"image_id": 5, "category_id": 7, "bbox": box} for box in boxes],
            "categories": kinds,
        }
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    assert found(tmp_path) == [
        ("test/a_0.png", "eos", (1, 2, 4, 6), "test"),
        ("test/a_1.png", "eos", (5, 6, 12, 14), "test"),
        ("train/a_0.png", "eos", (10, 20, 40, 60), "train"),
    ]
    cell = folder_rows(tmp_path)[2]
    assert cell["group"] == "train/a.png"
    assert read_image(cell["image"]["bytes"]).size == (60, 60)


def test_cells_of_one_photograph_stay_together(tmp_path: Path):
    lines = "0 0.3 0.5 0.2 0.3\n0 0.7 0.5 0.2 0.3\n"
    cells = load_leucocytes(named(write_yolo(tmp_path, {f"field{index}": lines for index in range(5)}), "mono\n"))
    photographs = [{source.split("_")[0] for source in rows["source"]} for rows in cells.values()]
    assert sum(map(len, photographs)) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("annotations/b.xml", voc(("eos", 1, 2, 30, 40)), "has boxes of b, but there is no such photograph"),
        ("annotations/a.xml", "<annotation>", "boxes cannot be read"),
        ("all.json", '{"images": [], "annotations": [{}], "categories": []}', "Expected is JSON of COCO"),
        ("labels/a.txt", "0 0.5 0.5 0.5 0.5", r"labels/classes.txt: there is no such file, so it is not known which"),
    ],
)
def test_boxes_that_fit_nothing_are_named(name: str, content: str, message: str, tmp_path: Path):
    write_photographs(tmp_path, "images/a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(WbcError, match=message):
        find_boxed_cells(tmp_path)


def test_a_box_without_an_area_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One of BCCD's photographs has such a box."""
    write_photographs(tmp_path, "images/a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.xml").write_text(voc(("eos", 10, 2, 10, 40), ("eos", 1, 2, 30, 40)))
    assert [cell.box for cell in find_boxed_cells(tmp_path)] == [(1, 2, 30, 40)]
    assert "a.xml: the box (10, 2, 10, 40) (left, top, right, bottom) has no area" in caplog.text


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
