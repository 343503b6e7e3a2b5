"""Which cell is reviewed next."""

from collections import Counter

import numpy as np

from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import softmax
from wbc_hf.smear import Cell, Picture, Specimen, next_to_teach


def prediction(logits: np.ndarray, status: str = "review") -> Prediction:
    probabilities = softmax(logits[None])[0]
    (label, probability), *others = sorted(
        zip(CLASS_NAMES, map(float, probabilities), strict=True), key=lambda item: -item[1]
    )
    return Prediction(label, probability, tuple(others), status)


def specimen(predictions: list[Prediction], **fields: list) -> Specimen:
    made = Specimen()
    given = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
    cells = [
        Cell((0, 0, 9, 9), one, b"png", **more)
        for one, more in zip(predictions, given or [{} for _ in predictions], strict=True)
    ]
    made.add_picture(Picture(0, "field.png", (640, 480), True, b"jpeg"), cells)
    return made


def groups(seed: int, *sizes: int) -> tuple[list[Prediction], list[int]]:
    """Predictions in so many tight groups, mixed, and the group of each."""
    rng = np.random.default_rng(seed)
    middles = rng.choice([-3, 3], (len(sizes), len(CLASS_NAMES))) + 8 * np.eye(len(CLASS_NAMES))[: len(sizes)]
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return [prediction(middles[one] + rng.normal(0, 0.01, len(CLASS_NAMES))) for one in group], group.tolist()


def reviewed_in_order(made: Specimen, count: int) -> list[int]:
    order = []
    for _ in range(count):
        cell = next_to_teach(made.cells)
        assert cell is not None
        order.append(cell.number)
        made.review(cell.number, "neutrophil")
    return order


def test_each_group_of_like_cells_is_among_the_first_forty(seed: int):
    predictions, group = groups(seed, 30, 20, 6, 2)
    # As many clusters as labels that are worth giving: of a group, one of its many clusters comes first.
    order = reviewed_in_order(specimen(predictions), 40)
    assert len(set(order)) == 40
    assert {group[number - 1] for number in order} == {0, 1, 2, 3}


def test_asked_twice_it_names_the_same_cell(seed: int):
    made = specimen(groups(seed, 30, 10)[0])
    assert next_to_teach(made.cells) == next_to_teach(made.cells)


def test_all_waiting_cells_come_to_their_turn(seed: int):
    predictions, _ = groups(seed, 150, 50, 3)
    order = reviewed_in_order(specimen(predictions), len(predictions))
    assert sorted(order) == list(range(1, len(predictions) + 1))


def test_cells_that_are_all_alike_come_too():
    made = specimen([Prediction("neutrophil", 0.9, (), "review")] * 50)
    assert sorted(reviewed_in_order(made, 50)) == list(range(1, 51))
    assert next_to_teach(made.cells) is None


def test_of_many_cells_the_later_ones_come_too(seed: int):
    predictions, _ = groups(seed, 900, 110)
    made = specimen(predictions)
    for number in range(1, 1006):
        made.review(number, "neutrophil")
    assert reviewed_in_order(made, 5) == [1006, 1007, 1008, 1009, 1010]


def test_no_cell_waits():
    assert next_to_teach(specimen([prediction(np.eye(5)[0], "confident")]).cells) is None
    assert next_to_teach(()) is None


def test_what_never_counts_is_not_asked_for():
    made = specimen(
        [Prediction("monocyte", 0.6, (), "review")] * 3, cut=[True, False, False], duplicate_of=[None, None, 2]
    )
    assert reviewed_in_order(made, 1) == [2]
    assert next_to_teach(made.cells) is None


def test_classes_that_are_not_of_the_five_come_too():
    made = specimen(
        [Prediction("blast", 0.9, (("promyelocyte", 0.1),), "review"), Prediction("monocyte", 0.5, (), "review")]
    )
    assert Counter(reviewed_in_order(made, 2)) == {1: 1, 2: 1}
