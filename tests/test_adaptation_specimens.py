"""The cells of a specimen that a model learns from, and what is said of how many more labels are needed."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from wbc_hf.adaptation import (
    MIN_UNLABELLED,
    Adaptation,
    AdaptationCell,
    CellSupply,
    KeptCell,
    Scores,
    cells_to_learn,
    count_supply,
    gather_cells,
    labels_needed,
)
from wbc_hf.errors import WbcError
from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import Cell, Origin, Picture, Specimen


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "violet").save(file, "PNG")
    return file.getvalue()


def specimen(pictures: int = 3, cells: int = 2, status: str = "review", *, cut: bool = False) -> Specimen:
    made = Specimen()
    for _ in range(pictures):
        cell = Cell((0, 0, 9, 9), Prediction("monocyte", 0.9, (), status), png(), cut)
        made.add_picture(Picture(0, "field.png", (640, 480), True, b"jpeg"), [cell] * cells)
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


def kept(count: int) -> tuple[list[KeptCell], list[AdaptationCell]]:
    """Cells of two classes and other photographs that are kept of a laboratory, by name and with their pictures."""
    listed = [KeptCell(2 * (index % 2), f"{index % 4}") for index in range(count)]
    images = (Image.new("RGB", (16, 16), (index, 90, 140)) for index in range(count))
    return listed, [AdaptationCell(image, cell.label, cell.group) for image, cell in zip(images, listed, strict=True)]


def gather(made: Specimen, cells: list[AdaptationCell] | tuple = (), origin: Origin = Origin.ANOTHER):
    return gather_cells(made.cells, "S 1", origin, cells)


def test_labels_count_where_some_can_be_held_back():
    made = specimen(MIN_UNLABELLED // 2)
    for number, name in enumerate(["basophil", "basophil", "monocyte"], 1):
        made.review(number, name)
    assert count_supply(made.cells, "S 1") == CellSupply(MIN_UNLABELLED, 3, 0, False)
    assert {cell.label for cell in gather(made)} == {None}
    made.review(5, "monocyte")
    assert count_supply(made.cells, "S 1") == CellSupply(MIN_UNLABELLED, 4, 0, True)
    assert [cell.label for cell in gather(made)][:6] == [0, 0, 3, None, 3, None]


@pytest.mark.parametrize("reviewed", [0, 5])
def test_kept_cells_make_up_for_what_a_specimen_has_not(reviewed: int):
    made, (listed, pictures) = specimen(5), kept(60)
    for number in range(1, reviewed + 1):
        made.review(number, "monocyte")
    assert not count_supply(made.cells, "S 1").suffices
    supply = count_supply(made.cells, "S 1", listed)
    assert supply == CellSupply(10, reviewed, 60, True) and supply.suffices
    gathered = gather(made, pictures)
    assert len(gathered) == 70
    assert sum(cell.label is not None for cell in gathered) == 60 + reviewed


def test_kept_cells_alone_are_nothing_to_adapt_to():
    listed, pictures = kept(60)
    nothing = specimen(status="not_a_cell")
    assert not count_supply(nothing.cells, "S 1", listed).suffices
    with pytest.raises(WbcError, match="No cell that a model can learn from was found"):
        gather(nothing, pictures)


def test_what_was_kept_of_these_very_photographs_does_not_count_twice():
    made = specimen(2)
    for number in range(1, 5):
        made.review(number, CLASS_NAMES[number % 2])
    own = cells_to_learn(made.cells, "S 1")
    groups = [cell.group for cell in gather(made)]
    listed = [KeptCell(cell.label, group) for cell, group in zip(own, groups, strict=True)]
    assert count_supply(made.cells, "S 1", listed) == CellSupply(4, 4, 0, True)


@pytest.mark.parametrize("status", ["review", "not_a_cell"])
def test_what_is_offered_can_be_done_and_nothing_else(status: str):
    """Pictures of no cells are many, and nothing to learn from."""
    made = specimen(MIN_UNLABELLED // 2, status=status)
    assert count_supply(made.cells, "S 1").suffices == (status == "review")
    if status == "not_a_cell":
        with pytest.raises(WbcError, match="No cell that a model can learn from"):
            gather(made)
    else:
        assert len(gather(made)) == MIN_UNLABELLED


def test_photographs_of_two_laboratories_are_refused():
    made = specimen(MIN_UNLABELLED)
    assert gather(made)
    with pytest.raises(WbcError, match="those of one laboratory at a time"):
        gather(made, origin=Origin.MIXED)


@pytest.mark.parametrize(("reviewed", "said"), [(0, "none"), (5, "neutrophil 5")])
def test_five_cells_and_one_class_are_named(reviewed: int, said: str):
    made = specimen(5, cells=1)
    for number in range(1, reviewed + 1):
        made.review(number, "neutrophil")
    assert not count_supply(made.cells, "S 1").suffices
    with pytest.raises(
        WbcError, match=rf"^Too few cells: 5, of which are reviewed: {said}\. At least 2 reviewed cells in each"
    ):
        gather(made)


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
