"""The cells of a specimen as those that a model is adapted to, and what a person is told of it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wbc_hf.adaptation.adaptation_cell import MIN_CELLS, MIN_CLASSES, MIN_UNLABELLED, AdaptationCell, enough_labelled
from wbc_hf.adaptation.results import Adaptation
from wbc_hf.adaptation.reviewed_cells import KeptCell, add_kept_cells, group_digest
from wbc_hf.data import read_image
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.smear import Cell, CellState, Origin

MIN_PICTURES = 2  # cells of one picture are held back together, so that none can be held back of a single one
TWO_LABORATORIES = (
    "Some of these photographs look like those that the model has learned, others as if they came from another "
    "laboratory. Give those of one laboratory at a time: a model cannot be adapted to both together."
)

# Of the error on held-back cells by the number of labels, as measured in four laboratories: see
# docs/unseen-laboratory.md.
_LEARNING_EXPONENT = 0.5
_GOOD = 0.05  # share of wrong answers at which a differential is good
_MOST_LABELS = 500


def only_reviewed(cells: Iterable[Cell]) -> list[Cell]:
    """The counted cells that a person has given one of the five classes."""
    return [cell for cell in cells if cell.state is CellState.COUNTED and cell.review is not None and cell.own is None]


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

    Cells that are cut off, seen before, no cells by the model's word, or none of the five by a person's are left out;
    so are those of the laboratory's own types. Cells of one picture share its stain and its light: they are one group,
    held back together.

    Args:
        cells: Of the specimen.
        specimen: What tells its pictures from those of other specimens.
    """
    return [
        AdaptationCell(read_image(cell.image), _reviewed_class(cell), _group(cell, specimen), cell.framings)
        for cell in cells
        if _can_be_learned(cell)
    ]


@dataclass(frozen=True)
class CellSupply:
    """What a model would be adapted to, in numbers.

    Attributes:
        at_hand: Cells of the specimen that a model can learn from.
        reviewed: Those of them that a person reviewed.
        kept: Reviewed cells of other photographs that are kept of the laboratory.
        labels_suffice: Whether the labels of both together suffice to hold some back and to learn from the others;
            else they are not used.
    """

    at_hand: int
    reviewed: int
    kept: int
    labels_suffice: bool

    @property
    def suffices(self) -> bool:
        """Whether the model can be adapted to them."""
        return self.at_hand > 0 and (self.labels_suffice or self.at_hand + self.kept >= MIN_UNLABELLED)


def count_supply(cells: Iterable[Cell], specimen: str, kept: Iterable[KeptCell] = ()) -> CellSupply:
    """Count what a model would be adapted to.

    Args:
        cells, specimen: As in `cells_to_learn`.
        kept: Of the laboratory.
    """
    learned = [
        (_reviewed_class(cell), group_digest(_group(cell, specimen))) for cell in cells if _can_be_learned(cell)
    ]
    at_hand = {group for _, group in learned}
    labelled = [(label, group) for label, group in learned if label is not None]
    others = [(cell.label, cell.group) for cell in kept if cell.group not in at_hand]
    return CellSupply(len(learned), len(labelled), len(others), _enough([*labelled, *others]))


def gather_cells(
    cells: Iterable[Cell], specimen: str, origin: Origin, kept: Sequence[AdaptationCell] = ()
) -> list[AdaptationCell]:
    """Gather what a model is adapted to: the cells of a specimen, and those that are kept of its laboratory.

    Args:
        cells, specimen: As in `cells_to_learn`.
        origin: Of the photographs.
        kept: Of the laboratory.

    Returns:
        All without labels where these are too few to hold some back and to learn from the others.

    Raises:
        WbcError: The photographs come from two laboratories, or show too few cells.
    """
    if origin is Origin.MIXED:
        raise WbcError(TWO_LABORATORIES)
    own = cells_to_learn(cells, specimen)
    if not own:
        raise WbcError(
            "No cell that a model can learn from was found. Give photographs of a stained smear with whole cells."
        )
    gathered = add_kept_cells(own, kept)
    labelled = [(cell.label, cell.group) for cell in gathered if cell.label is not None]
    if _enough(labelled):
        return gathered
    if len(gathered) < MIN_UNLABELLED:
        counts = Counter(CLASS_NAMES[label] for label, _ in labelled)
        reviewed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
        raise WbcError(
            f"Too few cells: {len(gathered)}, of which are reviewed: {reviewed}. At least {MIN_CELLS} reviewed cells "
            f"in each of {MIN_CLASSES} classes are needed, from {MIN_PICTURES} photographs or more; without reviews, "
            f"at least {MIN_UNLABELLED} cells. Review more, or give more photographs."
        )
    return [replace(cell, label=None) for cell in gathered]


def _can_be_learned(cell: Cell) -> bool:
    # A band is a type of its own to whoever named it so, though the model's word for it is neutrophil.
    return (
        cell.state in (CellState.COUNTED, CellState.WAITING)
        and cell.own is None
        and (cell.review is not None or cell.prediction.status != "not_a_cell")
    )


def _reviewed_class(cell: Cell) -> int | None:
    return None if cell.review is None else class_index(cell.review.label or "")


def _group(cell: Cell, specimen: str) -> str:
    return f"{specimen}, picture {cell.picture}"


def _enough(labelled: Sequence[tuple[int | None, str]]) -> bool:
    """Whether labels, each with the group of its cell, suffice."""
    counts = Counter(CLASS_NAMES[label] for label, _ in labelled if label is not None)
    return enough_labelled(counts) and len({group for _, group in labelled}) >= MIN_PICTURES
