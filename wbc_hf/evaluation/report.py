"""One folder that says how good a model is: `metrics.json`, `predictions.csv` and figures."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.evaluation import Evaluation
from wbc_hf.evaluation.figures import (
    GALLERY_SIZE,
    MisclassifiedCell,
    confusion_matrix_figure,
    misclassified_figure,
    reliability_figure,
    risk_coverage_figure,
    training_curves_figure,
)
from wbc_hf.evaluation.reliability import reliability_bins, risk_coverage
from wbc_hf.files import write_atomically
from wbc_hf.labels import CLASS_NAMES

_DOTS_PER_INCH = 160


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    names: Sequence[str],
    image_at: Callable[[int], PIL.Image.Image],
    log_history: Sequence[dict] = (),
) -> None:
    """Write an evaluation into a folder: `metrics.json`, `predictions.csv` and `figures/`.

    Files of an earlier report in `folder` are replaced, others left alone.

    Args:
        folder: Made if missing. `figures/` gets `confusion_matrix.png` and `misclassified.png`;
            with a log history `training_curves.png`, with a calibration `reliability.png`, with statuses
            `risk_coverage.png`.
        evaluation: Of n images.
        names: What a person finds each image by, n of them.
        image_at: Returns an image, mode RGB, by its index; called only for the mistakes that are shown.
        log_history: `Trainer.state.log_history`, empty where the training run is unknown.

    Raises:
        WbcError: Not one name per image.
    """
    if len(names) != len(evaluation.labels):
        raise WbcError(f"names: {len(names)} for {len(evaluation.labels)} images: give one per image")
    metrics, labels, probabilities = evaluation.metrics, evaluation.labels, evaluation.probabilities
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    _write_predictions(folder / "predictions.csv", evaluation, names)
    mistakes = np.flatnonzero(evaluation.given != labels)
    figures = {
        "confusion_matrix": confusion_matrix_figure(np.array(metrics["confusion_matrix"])),
        "misclassified": misclassified_figure(
            _most_confident_mistakes(mistakes, evaluation, names, image_at), total=len(mistakes)
        ),
    }
    if log_history:
        figures["training_curves"] = training_curves_figure(log_history)
    if evaluation.uncalibrated is not None:
        diagrams = [reliability_bins(rows, labels) for rows in (evaluation.uncalibrated, probabilities)]
        figures["reliability"] = reliability_figure(*diagrams)
    if "review" in metrics:
        figures["risk_coverage"] = _draw_review(probabilities, labels, metrics["review"])
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=_DOTS_PER_INCH)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON in one step: whoever reads `path` finds the old file or the new one, never half of one.

    Raises:
        TypeError, ValueError: `value` does not go into JSON, NaN and infinity included; `path` is as it was.
    """
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _draw_review(probabilities: np.ndarray, labels: np.ndarray, review: dict) -> Figure:
    accuracy, interval = review["accuracy_of_accepted"], review["intervals"]["accuracy_of_accepted"]
    target = review["target_accuracy"]
    return risk_coverage_figure(
        risk_coverage(probabilities, labels),
        threshold=review["threshold"],
        coverage=review["coverage"],
        error=None if accuracy is None else 1 - accuracy,
        interval=None if interval is None else [1 - interval[1], 1 - interval[0]],
        target_error=None if target is None else 1 - target,
    )


def _write_predictions(path: Path, evaluation: Evaluation, names: Sequence[str]) -> None:
    columns: dict[str, Iterable] = {
        "name": names,
        "true": [CLASS_NAMES[label] for label in evaluation.labels],
        "given": [CLASS_NAMES[given] for given in evaluation.given],
        "probability": [f"{probability:.6f}" for probability in evaluation.probabilities.max(axis=1)],
    }
    for name, probabilities in zip(CLASS_NAMES, evaluation.probabilities.T, strict=True):
        columns[f"probability_{name}"] = [f"{probability:.6f}" for probability in probabilities]
    columns["group"] = evaluation.groups
    if evaluation.statuses is not None:
        columns["status"] = evaluation.statuses
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _most_confident_mistakes(
    mistakes: np.ndarray, evaluation: Evaluation, names: Sequence[str], image_at: Callable[[int], PIL.Image.Image]
) -> list[MisclassifiedCell]:
    """As many of the mistakes as the gallery shows, with their images; `mistakes` are indices of images."""
    confidence = evaluation.probabilities.max(axis=1)
    shown = mistakes[np.argsort(-confidence[mistakes], kind="stable")][:GALLERY_SIZE]
    return [
        MisclassifiedCell(
            image=image_at(int(index)),
            true=CLASS_NAMES[evaluation.labels[index]],
            given=CLASS_NAMES[evaluation.given[index]],
            probability=float(confidence[index]),
            name=names[index],
        )
        for index in shown
    ]
