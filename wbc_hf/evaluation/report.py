"""One folder that says how good a model is: `metrics.json`, `predictions.csv` and figures."""

import csv
import json
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.confidence_intervals import (
    Interval,
    bootstrap_intervals,
    count_distinct,
    draw_groups,
    mean_interval,
)
from wbc_hf.evaluation.figures import (
    GALLERY_SIZE,
    MisclassifiedCell,
    confusion_matrix_figure,
    misclassified_figure,
    reliability_figure,
    risk_coverage_figure,
    training_curves_figure,
)
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, compute_metrics
from wbc_hf.evaluation.reliability import (
    brier_interval,
    brier_score,
    calibration_error_interval,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
)
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS

_DOTS_PER_INCH = 160
_CLASS_FIGURES = ("precision", "recall", "f1", "roc_auc")
# Shares of the images at which the risk-coverage curve is written down.
_COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)

# A figure and its interval.
Estimate = tuple[float | None, Interval]


def write_report(
    folder: Path,
    *,
    references: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    groups: Sequence[Hashable],
    image_at: Callable[[int], PIL.Image.Image],
    log_history: list[dict],
    before: np.ndarray | None = None,
    temperature: float | None = None,
    accepted: np.ndarray | None = None,
    review_threshold: float | None = None,
    review_target: float | None = None,
    statuses: Sequence[str] | None = None,
    leaked: np.ndarray | None = None,
) -> dict:
    """Judge a model on the cells of a split and write everything down.

    Files of an earlier report in `folder` are replaced, others left alone.

    Args:
        folder: Made where it is missing. Gets `metrics.json`, `predictions.csv`, `figures/confusion_matrix.png`,
            `figures/training_curves.png`, `figures/misclassified.png`, with `before` `figures/reliability.png` and
            with `accepted` `figures/risk_coverage.png`.
        references: True class indices, (n,).
        probabilities: Of each class, 0 to 1, (n, 5), columns in the order of `CLASS_NAMES`. The likeliest is given.
        names: What a person finds each image by, n of them.
        groups: Group of each image: those of one group show the same cell or photograph.
        image_at: Gives the image of a cell, mode RGB, by its index; asked only for the mistakes that are shown.
        log_history: `Trainer.state.log_history`, empty where the run is not known.
        before: The probabilities without calibration, (n, 5), for a model that has one.
        temperature: What the calibration divides logits by; with `before`.
        accepted: True for each image whose answer stands without a person's look, (n,), for a model that tells.
        review_threshold: Probability below which a person should look; with `accepted`.
        review_target: The accuracy of the accepted that the threshold was chosen for, if it was for one.
        statuses: Status of each image, as `Prediction` has it, for `predictions.csv`.
        leaked: True for each image whose group was also trained or chosen on, (n,), where that was looked for.

    Returns:
        What stands in `metrics.json`. The figures of `compute_metrics`, and

        - `intervals`: of the same names, from `bootstrap_intervals`.
        - `distinct_cells`: by class name, the number of groups.
        - `calibration`, with `before`: `temperature`, and under `before` and `after` each `ece`, `brier` and their
          `intervals`.
        - `review`, with `accepted`: `threshold`, `target_accuracy`, `coverage` (share that is accepted),
          `accuracy_of_accepted` (None where none is), the `intervals` of both, and `error_at_coverage`: pairs of a
          share of the images, the most probable answers first, and of how many of those are wrong.
        - `leaked`, with `leaked`: how many images. Where there are any, `without_leaked`: figures, intervals and
          distinct cells of the others; None where there are no others.

    Raises:
        WbcError: from `compute_metrics`, or not one of `names`, `groups`, … per cell.
    """
    _check_lengths(
        len(references),
        {"names": names, "groups": groups, "before": before, "accepted": accepted}
        | {"statuses": statuses, "leaked": leaked},
    )
    metrics = _judge(references, probabilities, groups)
    weights = draw_groups(groups)
    if before is not None:
        pair = {"before": before, "after": probabilities}
        calibration = {when: _judge_calibration(rows, references, weights) for when, rows in pair.items()}
        metrics["calibration"] = {"temperature": temperature} | calibration
    if accepted is not None:
        review = _judge_review(probabilities, references, accepted, weights)
        metrics["review"] = {"threshold": review_threshold, "target_accuracy": review_target} | review
    if leaked is not None:
        metrics |= _judge_without_leaked(references, probabilities, groups, leaked)

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    given = probabilities.argmax(axis=1)
    _write_predictions(folder / "predictions.csv", references, given, probabilities, names, groups, statuses)
    mistakes = np.flatnonzero(given != references)
    cells = _most_confident_mistakes(mistakes, references, given, probabilities, names, image_at)
    figures = {
        "confusion_matrix": confusion_matrix_figure(np.array(metrics["confusion_matrix"])),
        "training_curves": training_curves_figure(log_history),
        "misclassified": misclassified_figure(cells, total=len(mistakes)),
    }
    if before is not None:
        diagrams = [reliability_bins(rows, references) for rows in (before, probabilities)]
        figures["reliability"] = reliability_figure(*diagrams)
    if accepted is not None:
        figures["risk_coverage"] = _draw_review(probabilities, references, metrics["review"])
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=_DOTS_PER_INCH)
    return metrics


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON in one step: whoever reads `path` finds the old file or the new one, never half of one.

    Raises:
        TypeError, ValueError: `value` does not go into JSON, NaN and infinity included; `path` is as it was.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # In the same folder, since os.replace does not cross file systems; the process id keeps two writers apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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


def _check_lengths(count: int, given: dict[str, Sequence | np.ndarray | None]) -> None:
    for what, values in given.items():
        if values is not None and len(values) != count:
            raise WbcError(f"{what}: {len(values)} for {count} cells: give one per cell")


# ---- judging


def _judge(references: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable]) -> dict:
    return compute_metrics(references, probabilities.argmax(axis=1), probabilities) | {
        "intervals": bootstrap_intervals(references, probabilities, groups),
        "distinct_cells": count_distinct(references, groups),
    }


def _judge_without_leaked(
    references: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable], leaked: np.ndarray
) -> dict:
    """`leaked` and, where there are any, `without_leaked`."""
    count = int(np.sum(leaked))
    if count == 0:
        return {"leaked": 0}
    kept = np.flatnonzero(~leaked)
    if not len(kept):
        return {"leaked": count, "without_leaked": None}
    others = _judge(references[kept], probabilities[kept], [groups[index] for index in kept])
    return {"leaked": count, "without_leaked": others}


def _judge_calibration(probabilities: np.ndarray, references: np.ndarray, weights: np.ndarray) -> dict:
    return {
        "ece": expected_calibration_error(probabilities, references),
        "brier": brier_score(probabilities, references),
        "intervals": {
            "ece": calibration_error_interval(probabilities, references, weights),
            "brier": brier_interval(probabilities, references, weights),
        },
    }


def _judge_review(
    probabilities: np.ndarray, references: np.ndarray, accepted: np.ndarray, weights: np.ndarray
) -> dict:
    right = probabilities.argmax(axis=1) == references
    curve = risk_coverage(probabilities, references, probabilities.max(axis=1))
    return {
        "coverage": float(accepted.mean()),
        "accuracy_of_accepted": float(right[accepted].mean()) if accepted.any() else None,
        "intervals": {
            "coverage": mean_interval(accepted, weights),
            "accuracy_of_accepted": mean_interval(right, weights, among=accepted),
        },
        "error_at_coverage": [[coverage, curve.error_at(coverage)] for coverage in _COVERAGES],
    }


def _draw_review(probabilities: np.ndarray, references: np.ndarray, review: dict) -> Figure:
    accuracy, interval = review["accuracy_of_accepted"], review["intervals"]["accuracy_of_accepted"]
    target = review["target_accuracy"]
    return risk_coverage_figure(
        risk_coverage(probabilities, references, probabilities.max(axis=1)),
        threshold=review["threshold"],
        coverage=review["coverage"],
        error=None if accuracy is None else 1 - accuracy,
        interval=None if interval is None else [1 - interval[1], 1 - interval[0]],
        target_error=None if target is None else 1 - target,
    )


# ---- writing


def _write_predictions(
    path: Path,
    references: np.ndarray,
    given: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    groups: Sequence[Hashable],
    statuses: Sequence[str] | None,
) -> None:
    header = ["name", "true", "given", "probability", *(f"probability_{name}" for name in CLASS_NAMES), "group"]
    added = zip(groups, strict=True) if statuses is None else zip(groups, statuses, strict=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header if statuses is None else [*header, "status"])
        for name, true, best, row, more in zip(names, references, given, probabilities, added, strict=True):
            columns = [f"{probability:.6f}" for probability in row]
            writer.writerow([name, CLASS_NAMES[true], CLASS_NAMES[best], columns[best], *columns, *more])


def _most_confident_mistakes(
    mistakes: np.ndarray,
    references: np.ndarray,
    given: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    image_at: Callable[[int], PIL.Image.Image],
) -> list[MisclassifiedCell]:
    """As many of the mistakes as the gallery shows, with their images; `mistakes` are indices of cells."""
    confidence = probabilities[mistakes, given[mistakes]]
    shown = mistakes[np.argsort(-confidence, kind="stable")][:GALLERY_SIZE]
    return [
        MisclassifiedCell(
            image=image_at(int(index)),
            true=CLASS_NAMES[references[index]],
            given=CLASS_NAMES[given[index]],
            probability=float(probabilities[index, given[index]]),
            name=names[index],
        )
        for index in shown
    ]
