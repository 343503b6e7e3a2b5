"""Results of a domain adaptation."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

STATUSES = ("confident", "review", "unfamiliar", "not_a_cell")
# Figures on labelled cells: name in `Scores`, and title.
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}

# What `read_json` checks of a file that holds these.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True)
class Diagnosis:
    """Predictions for cells without labels, in figures.

    Attributes:
        statuses: Share of each of `STATUSES`, 0 to 1; None for a model without a calibration.
        confidence: Mean probability of the predicted class, 0 to 1.
        consistency: Share of cells that get the same class in another view, 0 to 1.
    """

    __pydantic_config__ = STRICT

    statuses: dict[str, _Share] | None
    confidence: _Share
    consistency: _Share


@dataclass(frozen=True)
class Scores:
    """Performance on labelled cells.

    Attributes:
        accuracy, balanced_accuracy, macro_f1: 0 to 1.
        intervals: 95 % confidence intervals of these three by name, [low, high]; None where all cells are of one
            group.
        recall: Of each class by name, 0 to 1; None for one without cells.
    """

    __pydantic_config__ = STRICT

    accuracy: _Share
    balanced_accuracy: _Share
    macro_f1: _Share
    intervals: dict[str, Annotated[list[_Share], Field(min_length=2, max_length=2)] | None]
    recall: dict[str, _Share | None]


@dataclass(frozen=True)
class Adaptation:
    """What was done to a model, and what it changed. Names no file or folder of the laboratory.

    Attributes:
        model, version: Of the model before: its name, and the first digits of its weights' SHA-256.
        software: Name and version of this package.
        made: When, in UTC, ISO 8601.
        seed: Random seed.
        cells: Number of cells.
        unreadable, not_cells: Numbers of images left out: broken ones, and those without a stained cell.
        review_threshold: Predictions with a lower probability should be reviewed.
        target_reached: Whether by the calibrated probabilities enough of the predictions above it are correct.
        remarks: What limits the figures, in sentences.
        warning: A sentence if the adaptation did not help, else None.
        diagnosis_before, diagnosis_after: Without labels; with labels None.
        proportions: Without labels, the estimated share of each class by name, 0 to 1; with labels None.
        labelled: With labels, the number of cells of each class by name; without them None, as all that follow.
        held_back: Number of cells that the scores are of.
        folds: Number of cross-validation folds.
        temperature: Folded into the weights.
        scores_before: Of the model as it was.
        scores_after: Each cell predicted by a network that was adapted without it.
    """

    __pydantic_config__ = STRICT

    model: str
    version: str
    software: str
    made: str
    seed: int
    cells: _Count
    unreadable: _Count
    not_cells: _Count
    review_threshold: _Share
    target_reached: bool
    remarks: tuple[str, ...] = ()
    warning: str | None = None
    diagnosis_before: Diagnosis | None = None
    diagnosis_after: Diagnosis | None = None
    proportions: dict[str, _Share] | None = None
    labelled: dict[str, _Count] | None = None
    held_back: _Count | None = None
    folds: _Count | None = None
    temperature: float | None = None
    scores_before: Scores | None = None
    scores_after: Scores | None = None

    def is_complete(self) -> bool:
        """Whether the scores, if there are any, are of the classes that have labels, before and after."""
        if self.scores_before is None and self.scores_after is None:
            return True
        return self.labelled is not None and all(
            scores is not None
            and scores.intervals.keys() == SCORES.keys()
            and scores.recall.keys() >= self.labelled.keys()
            for scores in (self.scores_before, self.scores_after)
        )
