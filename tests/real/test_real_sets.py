"""The real image sets load as their README says, and their known copies stay together.

They lie beside the repository in `../shared/data`, or where the variable WBC_HF_DATA says.
"""

import csv
import logging
import os
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from wbc_hf.data import Leucocytes, load_leucocytes, may_be_stained_cell, read_image
from wbc_hf.data.known_sets import slide
from wbc_hf.labels import CLASS_NAMES

DATA = Path(os.environ.get("WBC_HF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no image sets in {DATA}; WBC_HF_DATA says where they are"),
]

# Cells per class as the sets' README counts them, in the order of `CLASS_NAMES`.
SIZES = {
    "pbc": (989, 2604, 984, 1157, 2786),
    "bccd/crops": (3, 88, 33, 20, 207),
    "tecom": (1, 22, 53, 48, 176),
    "kaggle_augmented": (0, 252, 48, 60, 684),
    "raabin": (218, 201, 242, 242, 242),
    "chula_fields": (100, 100, 110, 86, 112),
}
# A box three pixels wide.
SKIPPED = {"chula_fields": ["L-8_0730_1.png"]}
CUT_HERE = ("pbc", "bccd/crops", "tecom")
SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}


@cache
def loaded(name: str) -> Leucocytes:
    return load_leucocytes(DATA / name, near_duplicates=False)  # test_real_near_duplicates.py compares


def sizes(labels: list[int]) -> tuple[int, ...]:
    counts = Counter(labels)
    return tuple(counts[index] for index in range(len(CLASS_NAMES)))


def pairs(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [pytest.param(it, marks=pytest.mark.long) if it == "pbc" else it for it in SIZES])
def test_every_cell_is_read(name: str):
    cells = loaded(name)
    assert sizes([label for split in cells.values() for label in split["label"]]) == SIZES[name]
    assert [error.name for error in cells.provenance.skipped] == SKIPPED.get(name, [])
    assert cells.provenance.contradictions == 0


@pytest.mark.parametrize(
    ("name", "least"), [("pbc", 0.99), ("bccd/crops", 0.99), ("tecom", 0.99), ("raabin", 0.99), ("chula_fields", 0.8)]
)
def test_stained_cells_of_every_laboratory_may_be_cells(name: str, least: float):
    cells = loaded(name)["test"]
    assert np.mean([may_be_stained_cell(read_image(image)) for image in cells["image"]]) >= least


@pytest.mark.parametrize("name", SIZES)
def test_no_group_crosses_splits(name: str):
    groups = {split: set(rows["group"]) for split, rows in loaded(name).items()}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert loaded(name).provenance.groups_across == 0


@pytest.mark.parametrize(("name", "slides"), [("raabin", 20), ("chula_fields", 20)])
def test_no_slide_crosses_splits(name: str, slides: int):
    sides: dict[str, set[str]] = {}
    for split, rows in loaded(name).items():
        for source in rows["source"]:
            sides.setdefault(slide(source), set()).add(split)
    assert None not in sides
    assert len(sides) > slides
    assert all(len(splits) == 1 for splits in sides.values())


@pytest.mark.parametrize("name", CUT_HERE)
def test_every_class_is_cut_in_the_same_shares(name: str):
    for split, rows in loaded(name).items():
        for class_name, count, total in zip(CLASS_NAMES, sizes(rows["label"]), SIZES[name], strict=True):
            # 1 %; in classes so small that a cell is more than that, to the next cell.
            assert abs(count - SHARES[split] * total) <= max(0.01 * total, 1.5), (split, class_name)


def test_classes_of_few_cells(caplog: pytest.LogCaptureFixture):
    bccd = loaded("bccd/crops")
    assert [sizes(rows["label"])[0] for rows in bccd.values()] == [1, 1, 1]
    with caplog.at_level(logging.WARNING):
        tecom = load_leucocytes(DATA / "tecom", near_duplicates=False)
    assert [sizes(rows["label"])[0] for rows in tecom.values()] == [1, 0, 0]
    assert caplog.messages == [
        f"{DATA / 'tecom'}: validation has no basophil, test has no basophil; nothing can be measured of them there."
    ]


def test_given_splits_are_kept_and_validation_is_cut_from_training():
    cells = loaded("kaggle_augmented")
    assert cells.provenance.given_splits
    assert sizes(cells["test"]["label"]) == (0, 24, 0, 12, 72)
    assert sizes([*cells["train"]["label"], *cells["validation"]["label"]]) == (0, 228, 48, 48, 612)
    for split, folder in (("train", "TRAIN"), ("validation", "TRAIN"), ("test", "TEST")):
        assert {source.split("/")[0] for source in cells[split]["source"]} == {folder}
    assert len(cells["validation"]) == pytest.approx(0.15 * 936, abs=3)


def test_identical_files_of_pbc_share_a_group():
    group = {
        Path(source).name: name
        for rows in loaded("pbc").values()
        for source, name in zip(rows["source"], rows["group"], strict=True)
    }
    exact = [
        (row["a"], row["b"]) for row in pairs(DATA / "pbc" / "overlap_pairs.csv") if row["kind"] == "exact_duplicate"
    ]
    assert len(exact) == 12
    for first, second in exact:
        assert group[first] == group[second], (first, second)


@pytest.mark.parametrize(
    ("name", "title", "licence"),
    [
        ("pbc", "PBC, Hospital Clinic Barcelona (Acevedo et al. 2020)", "CC-BY-4.0"),
        ("bccd/crops", "BCCD, one leucocyte cut out per file (Cheng 2017)", "MIT"),
        ("kaggle_augmented", "Blood Cell Images (Kaggle, paultimothymooney)", "none stated"),
        ("raabin", "Raabin-WBC (Kouzehkanan et al. 2022)", "free for research"),
        ("chula_fields", "Chulalongkorn University (Bekti et al.)", "MIT"),
    ],
)
def test_sets_are_told_by_their_file_names(name: str, title: str, licence: str):
    assert loaded(name).provenance.title == title
    assert loaded(name).provenance.licence == licence
