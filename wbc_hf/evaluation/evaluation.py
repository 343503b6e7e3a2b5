"""`evaluate`: the one function that evaluates a classifier. It takes predictions, not a model."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import ArrayLike

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.confidence_intervals import bootstrap_intervals, count_distinct, draw_groups, share_interval
from wbc_hf.evaluation.metrics import check_labels, check_scores, compute_metrics
from wbc_hf.evaluation.reliability import (
    brier_interval,
    brier_score,
    calibration_error_interval,
    expected_calibration_error,
    risk_coverage,
)
from wbc_hf.evaluation.summary import format_metrics
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.modeling import TARGET_ACCURACY, TARGET_ELSEWHERE, Calibration, undo_temperature

# Coverages at which the risk–coverage curve is written down.
_COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Evaluation:
    """A classifier's predictions on labelled images, and how good they are.

    Attributes:
        labels: True class indices, (n,).
        probabilities: Of each class, (n, 5), columns in the order of `CLASS_NAMES`.
        groups: Group of each image, n of them.
        statuses: Status of each prediction, n of them, or None.
        laboratories: Laboratory of each image, n of them, or None.
        uncalibrated: `probabilities` before temperature scaling, (n, 5), or None.
        metrics: A dictionary that goes into JSON: all figures of `compute_metrics`, and

            - `intervals`: their 95 % confidence intervals under the same names, from `bootstrap_intervals`.
            - `distinct_cells`: number of groups by class name.
            - `calibration`, with a calibration: `temperature`, and under `before` and `after` temperature scaling
              `ece`, `brier` and their `intervals`.
            - `review`, with statuses: `threshold`, `target_accuracy`, `coverage` (share of images that are accepted
              without review), `accuracy_of_accepted` (None if none is), the `intervals` of both, and
              `error_at_coverage`: pairs of a coverage and the error rate of that share of most probable predictions.
              `left_out`, where the calibration has them: the laboratories that the threshold was chosen on.
            - `leaked`, with `leaked`: how many images; if any, `without_leaked`: figures, intervals and distinct
              cells of the others, None if there are no others.
            - `laboratories`, with images of several: by name, figures, intervals and distinct cells of its images,
              and with statuses their `review`.
            - `unseen`, where given: the same by name of a laboratory for models that were trained without it.
            - `comparison`, from `evaluate_predictor` with another model: its `model` and `version`, and what
              `compare_predictions` gives.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    groups: Sequence[Hashable]
    statuses: Sequence[str] | None
    laboratories: Sequence[str] | None
    uncalibrated: np.ndarray | None
    metrics: dict

    @property
    def given(self) -> np.ndarray:
        """Indices of the predicted classes, (n,)."""
        return self.probabilities.argmax(axis=1)

    def __str__(self) -> str:
        return format_metrics(self.metrics)


def evaluate(
    labels: ArrayLike,
    probabilities: np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    statuses: Sequence[str] | None = None,
    laboratories: Sequence[str] | None = None,
    calibration: Calibration | None = None,
    leaked: np.ndarray | None = None,
    unseen: Mapping[str, dict] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate predictions against true labels, with 95 % confidence intervals.

    Args:
        labels: True class indices, (n,), n >= 1, each an index into `CLASS_NAMES`.
        probabilities: Of each class, 0 to 1, (n, 5), columns in the order of `CLASS_NAMES`. The likeliest class is the
            predicted one.
        groups: Group of each image: images of one group show the same cell or photograph. By default each image
            shows a cell of its own.
        statuses: Status of each prediction, as in `Prediction`. Images of status "confident" are accepted, a person
            reviews the others.
        laboratories: Laboratory of each image; of several, each gets figures of its own.
        calibration: Of the model, if it has one: its temperature and its review threshold.
        leaked: True for each image whose group was also in training or validation, bool (n,).
        unseen: What to expect elsewhere: metrics by name of a laboratory, by models that were trained without it.
        seed: Random seed of the bootstrap.

    Raises:
        WbcError: No images, a label that is not a class index, probabilities of another shape or not finite, or not
            one of `groups`, `statuses`, `laboratories` or `leaked` per image.
    """
    labels, _ = check_labels(labels, labels)
    probabilities = np.asarray(probabilities)
    check_scores(probabilities, len(labels))
    given = {"groups": groups, "statuses": statuses, "laboratories": laboratories, "leaked": leaked}
    for what, values in given.items():
        if values is not None and len(values) != len(labels):
            raise WbcError(f"{what}: {len(values)} for {len(labels)} images: give one per image")
    groups = range(len(labels)) if groups is None else groups
    metrics = _figures(labels, probabilities, groups, seed)
    weights = draw_groups(groups, seed=seed)
    accepted = None if statuses is None else np.array(statuses) == "confident"
    uncalibrated = None
    if calibration is not None:
        uncalibrated = undo_temperature(probabilities, calibration.temperature)
        metrics["calibration"] = {
            "temperature": calibration.temperature,
            "before": _calibration_figures(labels, uncalibrated, weights),
            "after": _calibration_figures(labels, probabilities, weights),
        }
    if accepted is not None:
        left_out = () if calibration is None else calibration.left_out
        metrics["review"] = {
            "threshold": None if calibration is None else calibration.review_threshold,
            "target_accuracy": TARGET_ELSEWHERE if left_out else TARGET_ACCURACY,
        } | _review_figures(labels, probabilities, accepted, groups, seed)
        if left_out:
            metrics["review"]["left_out"] = list(left_out)
    if laboratories is not None and len(set(laboratories)) > 1:
        metrics["laboratories"] = {
            name: _figures_of(np.array(laboratories) == name, labels, probabilities, groups, accepted, seed)
            for name in dict.fromkeys(laboratories)
        }
    if unseen:
        metrics["unseen"] = dict(unseen)
    if leaked is not None:
        metrics["leaked"] = int(np.sum(leaked))
        if leaked.any():
            kept = ~leaked
            others = _figures_of(kept, labels, probabilities, groups, None, seed) if kept.any() else None
            metrics["without_leaked"] = others
    return Evaluation(labels, probabilities, groups, statuses, laboratories, uncalibrated, metrics)


def columns_of_classes(names: Sequence[str]) -> np.ndarray:
    """The matrix that brings the columns of a model's probabilities into the order of `CLASS_NAMES`.

    Args:
        names: The model's classes, k of them, in any known spelling.

    Returns:
        Zeros and ones, (k, 5): multiply probabilities, (n, k), by it.

    Raises:
        WbcError: A name that is not one of a leucocyte.
    """
    indices = [index for name in names if (index := class_index(name)) is not None]
    if len(indices) < len(names):
        raise WbcError(
            f"The model's classes ({', '.join(names)}) are not all leucocytes, so its predictions cannot be compared "
            f"with labels. A model of {', '.join(CLASS_NAMES)} is needed."
        )
    return np.eye(len(CLASS_NAMES), dtype=np.float32)[indices]


def _figures(labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable], seed: int) -> dict:
    return compute_metrics(labels, probabilities.argmax(axis=1), probabilities) | {
        "intervals": bootstrap_intervals(labels, probabilities, groups, seed=seed),
        "distinct_cells": count_distinct(labels, groups),
    }


def _figures_of(
    chosen: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[Hashable],
    accepted: np.ndarray | None,
    seed: int,
) -> dict:
    """Figures of the images where `chosen` is true, with those of review where it is known which are accepted."""
    labels, probabilities, groups = labels[chosen], probabilities[chosen], list(compress(groups, chosen))
    figures = _figures(labels, probabilities, groups, seed)
    if accepted is not None:
        figures["review"] = _review_figures(labels, probabilities, accepted[chosen], groups, seed)
    return figures


def _calibration_figures(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict:
    return {
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "intervals": {
            "ece": calibration_error_interval(probabilities, labels, weights),
            "brier": brier_interval(probabilities, labels, weights),
        },
    }


def _review_figures(
    labels: np.ndarray, probabilities: np.ndarray, accepted: np.ndarray, groups: Sequence[Hashable], seed: int
) -> dict:
    weights = draw_groups(groups, seed=seed)
    right = probabilities.argmax(axis=1) == labels
    curve = risk_coverage(probabilities, labels)
    return {
        "coverage": float(accepted.mean()),
        "accuracy_of_accepted": float(right[accepted].mean()) if accepted.any() else None,
        "intervals": {
            "coverage": share_interval(accepted, groups, weights),
            "accuracy_of_accepted": share_interval(right, groups, weights, among=accepted),
        },
        "error_at_coverage": [[coverage, curve.error_at(coverage)] for coverage in _COVERAGES],
    }
