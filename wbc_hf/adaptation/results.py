"""Results of a domain adaptation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATUSES = ("confident", "review", "unfamiliar", "not_a_cell")
# Figures on labelled cells: name in `Scores`, and title.
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Diagnosis:
    """Predictions for cells without labels, in figures.

    Attributes:
        statuses: Share of each of `STATUSES`, 0 to 1; None for a model without a calibration.
        confidence: Mean probability of the predicted class, 0 to 1.
        consistency: Share of cells that get the same class in another view, 0 to 1.
    """

    statuses: dict[str, float] | None
    confidence: float
    consistency: float


@dataclass(frozen=True)
class Scores:
    """Performance on labelled cells.

    Attributes:
        accuracy, balanced_accuracy, macro_f1: 0 to 1.
        intervals: 95 % confidence intervals of these three by name, [low, high]; None where all cells are of one
            group.
        recall: Of each class by name, 0 to 1; None for one without cells.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    intervals: dict[str, list[float] | None]
    recall: dict[str, float | None]


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
        target_reached: Whether `TARGET_ACCURACY` of the held-back cells above it are correct.
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

    model: str
    version: str
    software: str
    made: str
    seed: int
    cells: int
    unreadable: int
    not_cells: int
    review_threshold: float
    target_reached: bool
    remarks: tuple[str, ...] = ()
    warning: str | None = None
    diagnosis_before: Diagnosis | None = None
    diagnosis_after: Diagnosis | None = None
    proportions: dict[str, float] | None = None
    labelled: dict[str, int] | None = None
    held_back: int | None = None
    folds: int | None = None
    temperature: float | None = None
    scores_before: Scores | None = None
    scores_after: Scores | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Adaptation":
        """Read what `dataclasses.asdict` made, after JSON.

        Raises:
            KeyError, TypeError: It is something else, or of another version of this project.
        """
        nested = {
            name: None if values[name] is None else of(**values[name])
            for of, names in (
                (Diagnosis, ("diagnosis_before", "diagnosis_after")),
                (Scores, ("scores_before", "scores_after")),
            )
            for name in names
        }
        return cls(**{**values, **nested, "remarks": tuple(values["remarks"])})
