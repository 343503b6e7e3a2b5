"""The cells of a specimen that a model learns from, and what is said of how many more labels are needed."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from wbc_hf.adaptation import (
    Adaptation,
    Scores,
    cells_to_learn,
    count_usable_labels,
    labels_needed,
    with_usable_labels,
)
from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import Cell, Specimen


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "violet").save(file, "PNG")
    return file.getvalue()


def specimen(pictures: int = 3, cells: int = 2, status: str = "review", *, cut: bool = False) -> Specimen:
    made = Specimen()
    for _ in range(pictures):
        cell = Cell((0, 0, 9, 9), Prediction("monocyte", 0.9, (), status), png(), cut)
        made.add_picture("field.png", (640, 480), b"jpeg", [cell] * cells, is_field=True)
    return made


def test_reviewed_cells_have_labels_and_others_none():
    made = specimen()
    made.review(1, "basophil")
    made.review(2, None)  # none of the five: not learned
    learned = cells_to_learn(made.cells, "S 1")
    assert [cell.label for cell in learned] == [0, None, None, None, None]
    assert [cell.group for cell in learned[:2]] == ["S 1, picture 1", "S 1, picture 2"]
    assert learned[0].image.size == (16, 16)


@pytest.mark.parametrize("odd", [{"status": "not_a_cell"}, {"cut": True}])
def test_what_is_no_whole_cell_is_learned_only_where_a_person_says_so(odd: dict):
    made = specimen(**odd)
    made.review(3, "monocyte")
    assert [cell.label for cell in cells_to_learn(made.cells, "S 1")] == [3]


def test_labels_count_where_some_can_be_held_back():
    made = specimen()
    for number, name in enumerate(["basophil", "basophil", "monocyte"], 1):
        made.review(number, name)
    assert count_usable_labels(made.cells) == 0
    assert {cell.label for cell in with_usable_labels(cells_to_learn(made.cells, "S 1"))} == {None}
    made.review(5, "monocyte")
    assert count_usable_labels(made.cells) == 4
    assert [cell.label for cell in with_usable_labels(cells_to_learn(made.cells, "S 1"))] == [0, 0, 3, None, 3, None]


def adaptation(accuracy: float, labels: int) -> Adaptation:
    scores = Scores(accuracy, accuracy, accuracy, dict.fromkeys(("accuracy",)), dict.fromkeys(CLASS_NAMES))
    return Adaptation(
        "base", "0123", "wbc_hf", "2026-01-01", 0, labels, 0, 0, 0.9, True, labelled={"monocyte": labels},
        scores_before=replace(scores, accuracy=0.5), scores_after=scores,
    )  # fmt: skip


def test_the_labels_that_are_needed_follow_the_learning_curve():
    assert labels_needed(adaptation(0.96, 40)) == "That is good: 95% were aimed at."
    assert labels_needed(adaptation(0.90, 40)) == "For 95%, about 160 labels are needed; there are 40."
    assert labels_needed(adaptation(0.50, 40)) == "For 95%, more than 500 labels would be needed."
