"""One folder that says how good a model is: `metrics.json`, `predictions.csv` and figures."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.confidence_intervals import Interval
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
from wbc_hf.evaluation.metrics import HEADLINE_NAMES
from wbc_hf.evaluation.reliability import reliability_bins, risk_coverage
from wbc_hf.files import write_atomically
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS

_DOTS_PER_INCH = 160
_CLASS_FIGURES = ("precision", "recall", "f1", "roc_auc")

# A figure and its interval.
Estimate = tuple[float | None, Interval]


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
        folder: Made if missing. `figures/` gets `confusion_matrix.png`, `misclassified.png` and `training_curves.png`;
            with a calibration `reliability.png`, with statuses `risk_coverage.png`.
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
        "training_curves": training_curves_figure(list(log_history)),
        "misclassified": misclassified_figure(
            _most_confident_mistakes(mistakes, evaluation, names, image_at), total=len(mistakes)
        ),
    }
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


def format_metrics(metrics: dict) -> str:
    """What `write_report` returns as plain text for a terminal, at most 80 columns wide, "-" for what is not defined.

    Every figure stands with its 95 % interval, and a class of fewer than `ENOUGH_CELLS` distinct cells with a star.
    """
    parts = [_headline_table(metrics), _class_table(metrics), _matrix_table(metrics)]
    if "calibration" in metrics:
        parts.append(_calibration_table(metrics["calibration"]))
    if "review" in metrics:
        parts.append(_review_table(metrics["review"]))
    return "\n\n".join(parts)


def _headline_table(metrics: dict) -> str:
    columns = {"all images": metrics}
    if metrics.get("without_leaked"):
        columns["not trained on"] = metrics["without_leaked"]
    lines = _estimate_lines("", {name: _headline_estimates(figures) for name, figures in columns.items()})
    counts = "".join(f"{figures['count']:>8}{'':18}" for figures in columns.values())
    lines.insert(1, f"{'images':<22}{counts}".rstrip())
    if metrics.get("leaked"):
        lines.append(_leak_line(metrics))
    return "\n".join(lines)


def _headline_estimates(metrics: dict) -> dict[str, Estimate]:
    names = {name: name.replace("_", " ") for name in HEADLINE_NAMES} | {"roc_auc": "macro roc auc"}
    return {title: (metrics[name], metrics["intervals"][name]) for name, title in names.items()}


def _leak_line(metrics: dict) -> str:
    line = f"{metrics['leaked']} of the images show cells that were also trained or chosen on"
    return f"{line}." if metrics["without_leaked"] else f"{line}: none is left to judge by."


def _estimate_lines(title: str, columns: dict[str, dict[str, Estimate]]) -> list[str]:
    """A line per figure with value and limits under each heading; all columns have the same figures."""
    lines = [f"{title:<22}" + "".join(f"{'':3}{heading:<23}" for heading in columns)]
    for name in next(iter(columns.values())):
        estimates = [column[name] for column in columns.values()]
        lines.append(f"{name:<22}" + "".join(f"{_three_places(v):>8}  {_limits(i):<16}" for v, i in estimates))
    return [line.rstrip() for line in lines]


def _class_table(metrics: dict) -> str:
    headings = "".join(f"{figure.replace('_', ' '):>13}" for figure in _CLASS_FIGURES)
    lines = [f"{'class':<12}{headings}{'images':>8}{'cells':>8}"]
    for name, figures in metrics["per_class"].items():
        distinct, intervals = metrics["distinct_cells"][name], metrics["intervals"]["per_class"][name]
        mark = " *" if distinct < ENOUGH_CELLS else ""
        values = "".join(f"{_three_places(figures[key]):>13}" for key in _CLASS_FIGURES)
        lines.append(f"{name + mark:<12}{values}{figures['support']:>8}{distinct:>8}")
        if any(intervals.values()):
            # No figure of a class is negative: a dash cannot be taken for a sign, and four of them fit the width.
            limits = (_limits(intervals[key], between="-") for key in _CLASS_FIGURES)
            lines.append(f"{'':<12}" + "".join(f"{text:>13}" for text in limits))
    if min(metrics["distinct_cells"].values()) < ENOUGH_CELLS:
        lines.append(f"* fewer than {ENOUGH_CELLS} distinct cells: too few to judge the class by")
    return "\n".join(lines)


def _matrix_table(metrics: dict) -> str:
    lines = [f"{'true / given':<12}" + "".join(f"{name:>12}" for name in CLASS_NAMES)]
    for name, row in zip(CLASS_NAMES, metrics["confusion_matrix"], strict=True):
        lines.append(f"{name:<12}" + "".join(f"{count:>12}" for count in row))
    return "\n".join(lines)


def _calibration_table(calibration: dict) -> str:
    names = {"ece": "calibration error", "brier": "brier score, 0 to 2"}
    columns = {
        f"{when} calibration": {title: (judged[key], judged["intervals"][key]) for key, title in names.items()}
        for when, judged in ((when, calibration[when]) for when in ("before", "after"))
    }
    return "\n".join(_estimate_lines("", columns))


def _review_table(review: dict) -> str:
    names = {"coverage": "accepted", "accuracy_of_accepted": "right among those"}
    estimates = {title: (review[key], review["intervals"][key]) for key, title in names.items()}
    return "\n".join(_estimate_lines("", {f"review below {review['threshold']:.3f}": estimates}))


def _three_places(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _limits(interval: Interval, between: str = " to ") -> str:
    return "-" if interval is None else between.join(f"{limit:.3f}" for limit in interval)


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
