"""One folder that says how good a model is: `metrics.json`, `predictions.csv` and three figures."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.figures import (
    GALLERY_SIZE,
    MisclassifiedCell,
    confusion_matrix_figure,
    misclassified_figure,
    training_curves_figure,
)
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, compute_metrics
from wbc_hf.labels import CLASS_NAMES

_DOTS_PER_INCH = 160
_CLASS_FIGURES = ("precision", "recall", "f1", "roc_auc", "support")


def write_report(
    folder: Path,
    *,
    references: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    image_at: Callable[[int], PIL.Image.Image],
    log_history: list[dict],
) -> dict:
    """Judge a model on the cells of a split and write everything down.

    Files of an earlier report in `folder` are replaced, others left alone.

    Args:
        folder: Made where it is missing. Gets `metrics.json`, `predictions.csv`, `figures/confusion_matrix.png`,
            `figures/training_curves.png` and `figures/misclassified.png`.
        references: True class indices, (n,).
        probabilities: Of each class, 0 to 1, (n, 5), columns in the order of `CLASS_NAMES`. The likeliest is given.
        names: What a person finds each image by, n of them.
        image_at: Gives the image of a cell, mode RGB, by its index; asked only for the mistakes that are shown.
        log_history: `Trainer.state.log_history`, empty where the run is not known.

    Returns:
        The figures of `compute_metrics`, as they stand in `metrics.json`.

    Raises:
        WbcError: from `compute_metrics`, or another number of names than of cells.
    """
    if len(names) != len(references):
        raise WbcError(f"{len(names)} names for {len(references)} cells: give one name per cell")
    given = probabilities.argmax(axis=1)
    metrics = compute_metrics(references, given, probabilities)

    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    _write_predictions(folder / "predictions.csv", references, given, probabilities, names)

    mistakes = np.flatnonzero(given != references)
    cells = _most_confident_mistakes(mistakes, references, given, probabilities, names, image_at)
    _save(confusion_matrix_figure(np.array(metrics["confusion_matrix"])), figures / "confusion_matrix.png")
    _save(training_curves_figure(log_history), figures / "training_curves.png")
    _save(misclassified_figure(cells, total=len(mistakes)), figures / "misclassified.png")
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
    """The figures of `compute_metrics` as plain text for a terminal, at most 80 columns wide, "-" for None."""
    return "\n\n".join((_headline_table(metrics), _class_table(metrics), _matrix_table(metrics)))


def _headline_table(metrics: dict) -> str:
    lines = [f"{'cells':<22}{metrics['count']:>8}"]
    lines += [f"{name.replace('_', ' '):<22}{_three_places(metrics[name]):>8}" for name in HEADLINE_NAMES]
    lines.append(f"{'macro roc auc':<22}{_three_places(metrics['roc_auc']):>8}")
    return "\n".join(lines)


def _class_table(metrics: dict) -> str:
    lines = [f"{'class':<12}" + "".join(f"{figure.replace('_', ' '):>11}" for figure in _CLASS_FIGURES)]
    for name, figures in metrics["per_class"].items():
        cells = [str(figures[key]) if key == "support" else _three_places(figures[key]) for key in _CLASS_FIGURES]
        lines.append(f"{name:<12}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def _matrix_table(metrics: dict) -> str:
    lines = [f"{'true / given':<12}" + "".join(f"{name:>12}" for name in CLASS_NAMES)]
    for name, row in zip(CLASS_NAMES, metrics["confusion_matrix"], strict=True):
        lines.append(f"{name:<12}" + "".join(f"{count:>12}" for count in row))
    return "\n".join(lines)


def _three_places(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _write_predictions(
    path: Path, references: np.ndarray, given: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "true", "given", "probability", *(f"probability_{name}" for name in CLASS_NAMES)])
        for name, true, best, row in zip(names, references, given, probabilities, strict=True):
            columns = [f"{probability:.6f}" for probability in row]
            writer.writerow([name, CLASS_NAMES[true], CLASS_NAMES[best], columns[best], *columns])


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


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DOTS_PER_INCH)
