"""Known sets: the table agrees with itself, and files tell the set they come from."""

import re

import pytest

from wbc_hf.data.known_sets import KNOWN_SETS, known_by_file_names, known_by_spec, photograph


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
