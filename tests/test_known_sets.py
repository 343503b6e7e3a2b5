"""Known sets: the table agrees with itself, and files tell the set they come from."""

import re

import pytest

from wbc_hf.data.known_sets import (
    KNOWN_SETS,
    known_by_file_names,
    known_by_spec,
    laboratory_name,
    photograph,
    slide,
)


@pytest.mark.parametrize("known", KNOWN_SETS, ids=lambda known: known.title)
def test_the_table_agrees_with_itself(known):
    assert known.licence
    if known.file_pattern:
        re.compile(known.file_pattern)


def test_titles_and_specs_are_unique():
    assert len({known.title for known in KNOWN_SETS}) == len(KNOWN_SETS)
    specs = [known.spec for known in KNOWN_SETS if known.spec]
    assert len(set(specs)) == len(specs)


def test_by_spec():
    assert known_by_spec("kaggle:brikwerk/bccd-white-blood-cell").title.startswith("BCCD White Blood Cell")
    assert known_by_spec("kaggle:paultimothymooney/blood-cells").laboratory == "BCCD"
    assert known_by_spec("synthetic").laboratory == "painted"
    assert known_by_spec("kaggle:me/cells") is None
    assert known_by_spec("data/cells") is None


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (
            ["basophil/BA_100102.jpg", "neutrophil/SNE_1.jpg", "neutrophil/BNE_23.jpg"],
            "PBC, Hospital Clinic Barcelona",
        ),
        (["monocyte/BloodImage_00007_0.jpg"], "BCCD, one leucocyte cut out per file"),
        (["basophil/20190526_163027_0.jpg", "neutrophil/95-8-10-1_12_3.jpg"], "Raabin-WBC"),
        (["B-30_0102_0.png", "N-2_0001_1.png"], "Chulalongkorn University"),
        (["TRAIN/EOSINOPHIL/_0_1169.jpeg", "TEST/EOSINOPHIL/_10_44.jpeg"], "Blood Cell Images (Kaggle"),
        (["basophil/BA_100102.jpg", "basophil/mine.jpg"], None),
        (["basophil/1.jpg"], None),
        ([], None),
    ],
)
def test_by_file_names(names: list[str], title: str | None):
    known = known_by_file_names(names)
    assert known is None if title is None else known.title.startswith(title)


def test_photographs():
    assert photograph("neutrophil/BloodImage_00136_1.jpg") == "BloodImage_00136"
    assert photograph("basophil/BA_100102.jpg") is None
    assert photograph("TRAIN/EOSINOPHIL/_0_1169.jpeg") is None
    assert photograph("painted-00001") is None


def test_slides():
    assert slide("Raabin/basophil/20190526_163027_0.jpg") == "20190526"
    assert slide("neutrophil/95-8-10-1_12_3.jpg") == "95-8-10-1"
    assert photograph("neutrophil/95-8-10-1_12_3.jpg") == "95-8-10-1_12"
    assert slide("B-30_0102_0.png") == "B-30"
    assert slide("neutrophil/BloodImage_00136_1.jpg") is None


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("kaggle:me/cells", "cells"),
        ("me/smears", "smears"),
        ("/data/ours/", "ours"),
    ],
)
def test_laboratories_have_short_names(spec: str, name: str):
    assert laboratory_name(spec) == name
