"""One folder that says how good a model is: `report.html`, `metrics.json`, `predictions.csv` and figures."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.evaluation.evaluation import Evaluation
from wbc_hf.evaluation.evaluation_record import RECORD_FILE, EvaluationRecord
from wbc_hf.evaluation.reliability import reliability_bins, risk_coverage
from wbc_hf.evaluation.report_page import render_report_page
from wbc_hf.files import write_atomically, write_json
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.safe_text import csv_cell

REPORT_PAGE = "report.html"
_DOTS_PER_INCH = 160


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    names: Sequence[str],
    image_at: Callable[[int], PIL.Image.Image],
    log_history: Sequence[dict] = (),
    record: EvaluationRecord | None = None,
) -> None:
    """Write an evaluation into a folder: `report.html`, `metrics.json`, `predictions.csv` and `figures/`.

    The page holds everything else, and opens in a browser without a network.

    Files of an earlier report in `folder` are replaced, others left alone.

    Args:
        folder: Made if missing. `figures/` gets `confusion_matrix.png` and `misclassified.png`;
            with a log history `training_curves.png`, with a calibration `reliability.png`, with statuses
            `risk_coverage.png`.
        evaluation: Of n images.
        names: What a person finds each image by, n of them.
        image_at: Returns an image, mode RGB, by its index; called only for the mistakes that are shown.
        log_history: `Trainer.state.log_history`, empty where the training run is unknown.
        record: What was evaluated, which goes into `evaluation.json` and onto the page.

    Raises:
        WbcError: Not one name per image.
    """
    with needs_extra("figures"):
        from wbc_hf.evaluation import figures

    if len(names) != len(evaluation.labels):
        raise WbcError(f"names: {len(names)} for {len(evaluation.labels)} images: give one per image")
    metrics, labels, probabilities = evaluation.metrics, evaluation.labels, evaluation.probabilities
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    if record is not None:
        write_json(folder / RECORD_FILE, dataclasses.asdict(record))
    _write_predictions(folder / "predictions.csv", evaluation, names)
    drawn = {
        "confusion_matrix": figures.confusion_matrix_figure(np.array(metrics["confusion_matrix"])),
        "misclassified": figures.misclassified_figure(evaluation, names, image_at),
    }
    if log_history:
        drawn["training_curves"] = figures.training_curves_figure(log_history)
    if evaluation.uncalibrated is not None:
        diagrams = [reliability_bins(rows, labels) for rows in (evaluation.uncalibrated, probabilities)]
        drawn["reliability"] = figures.reliability_figure(*diagrams)
    if "review" in metrics:
        curve = risk_coverage(probabilities, labels)
        drawn["risk_coverage"] = figures.risk_coverage_figure(curve, metrics["review"])
    pictures = {}
    for name, figure in drawn.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH)
        pictures[name] = picture.getvalue()
        write_atomically(folder / "figures" / f"{name}.png", pictures[name])
    write_atomically(folder / REPORT_PAGE, render_report_page(metrics, record, pictures))


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
    if evaluation.laboratories is not None:
        columns["laboratory"] = evaluation.laboratories
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(map(csv_cell, row) for row in zip(*columns.values(), strict=True))
