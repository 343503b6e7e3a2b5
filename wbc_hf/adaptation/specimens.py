"""The cells of a specimen as those that a model is adapted to, and what a person is told of it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from wbc_hf.adaptation.cells import AdaptationCell, count_classes, enough_labelled
from wbc_hf.adaptation.results import Adaptation
from wbc_hf.data import read_image
from wbc_hf.labels import class_index
from wbc_hf.smear import Cell, CellState

MIN_PICTURES = 2  # cells of one picture are held back together, so that none can be held back of a single one

# Of the error on held-back cells by the number of labels, as measured in four laboratories: see
# docs/unseen-laboratory.md.
_LEARNING_EXPONENT = 0.5
_GOOD = 0.05  # share of wrong answers at which a differential is good
_MOST_LABELS = 500


def is_reviewed(cell: Cell) -> bool:
    """Whether a person has given a cell that counts one of the five classes."""
    return cell.state is CellState.COUNTED and cell.review is not None


def labels_needed(adaptation: Adaptation) -> str:
    """A sentence that says after about how many labels 95 % of the cells will be right.

    It continues the learning curve from the cells that were held back: the error falls with the root of the number of
    labels, as it did in the laboratories that were measured.

    Args:
        adaptation: With labels.
    """
    assert adaptation.labelled is not None and adaptation.scores_after is not None
    labels = sum(adaptation.labelled.values())
    wrong = 1 - adaptation.scores_after.accuracy
    if wrong <= _GOOD:
        return f"That is good: {1 - _GOOD:.0%} were aimed at."
    needed = labels * (wrong / _GOOD) ** (1 / _LEARNING_EXPONENT)
    if needed > _MOST_LABELS:
        return f"For {1 - _GOOD:.0%}, more than {_MOST_LABELS} labels would be needed."
    return f"For {1 - _GOOD:.0%}, about {math.ceil(needed / 10) * 10} labels are needed; there are {labels}."


def cells_to_learn(cells: Iterable[Cell], specimen: str) -> list[AdaptationCell]:
    """The cells of a specimen that a model can learn from, with the labels of those that a person reviewed.

    Cells that are cut off, seen before, none of the five by a person's word, or no cells by the model's are left out.
    Cells of one picture share its stain and its light: they are one group, held back together.

    Args:
        cells: Of the specimen.
        specimen: What tells its pictures from those of other specimens.
    """
    return [
        AdaptationCell(
            read_image(cell.image),
            None if cell.review is None else class_index(cell.review.label or ""),
            f"{specimen}, picture {cell.picture}",
        )
        for cell in cells
        if cell.state in (CellState.COUNTED, CellState.WAITING)
        and (cell.review is not None or cell.prediction.status != "not_a_cell")
    ]


def with_usable_labels(cells: Sequence[AdaptationCell]) -> list[AdaptationCell]:
    """The cells, all without labels where too few have one to hold some back and to learn from the others."""
    enough = _enough([(cell.label, cell.group) for cell in cells if cell.label is not None])
    return list(cells) if enough else [replace(cell, label=None) for cell in cells]


def count_usable_labels(cells: Iterable[Cell]) -> int:
    """Number of reviewed cells of a specimen; 0 where they are too few to hold some back."""
    labelled = [(class_index(cell.label or ""), f"{cell.picture}") for cell in cells if is_reviewed(cell)]
    return len(labelled) if _enough(labelled) else 0


def _enough(labelled: Sequence[tuple[int | None, str]]) -> bool:
    """Whether labels, each with the group of its cell, suffice."""
    labels = np.array([label for label, _ in labelled], dtype=np.int64)
    return enough_labelled(count_classes(labels)) and len({group for _, group in labelled}) >= MIN_PICTURES
