"""What an adaptation changed, in figures."""

from dataclasses import dataclass

STATUSES = ("confident", "review", "unfamiliar", "not_a_cell")
# What is said of labelled cells: the name in `Scores`, and how it is written.
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Diagnosis:
    """What a model says of cells without labels.

    Attributes:
        statuses: Share of each of `STATUSES`, 0 to 1; None where the model's folder does not say when to trust it.
        confidence: Mean probability of the likeliest class, 0 to 1.
        consistency: Share of cells that get the same class in another view, 0 to 1.
    """

    statuses: dict[str, float] | None
    confidence: float
    consistency: float


@dataclass(frozen=True)
class Scores:
    """How right a model is on labelled cells.

    Attributes:
        accuracy, balanced_accuracy, macro_f1: 0 to 1.
        intervals: 95 % limits of these three by name, [low, high], or None where all cells are of one group.
        recall: Of each class by name, 0 to 1; None for one without cells.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    intervals: dict[str, list[float] | None]
    recall: dict[str, float | None]


@dataclass(frozen=True)
class Adaptation:
    """What was done to a model, and what it changed. Names no file and no folder of the laboratory.

    Attributes:
        model, version: Name of the model before, and the first digits of its weights' SHA-256.
        software: Name and version of this package.
        made: When, in UTC, ISO 8601.
        seed: Of everything that was drawn.
        cells: Number of cells.
        unreadable, not_cells: Numbers of pictures that were left out: broken ones, and those without a stained cell.
        review_threshold: Answers with a lower probability should be looked at.
        target_reached: Whether held-back cells above it are right in `TARGET_ACCURACY` of cases.
        remarks: What limits the figures, in sentences.
        warning: A sentence where the adaptation did not help, else None.
        diagnosis_before, diagnosis_after: Without labels; with labels None.
        proportions: Without labels, the estimated share of each class by name, 0 to 1; with labels None.
        labelled: With labels, the number of cells of each class by name; without them None, as all that follow.
        held_back: Number of cells that the scores are of.
        folds: Number of parts in which they were held back.
        temperature: What logits are divided by, part of the weights.
        scores_before: Of the model as it was.
        scores_after: Each cell answered by a network that was adapted without it.
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
