"""The tab of the model: what it was trained on, how good it was in its test and on other images, and its card."""

import re
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wbc_hf.adaptation import ADAPTATION_FILE, SCORES, Adaptation
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import read_metrics, read_record
from wbc_hf.files import read_content, read_json, read_text
from wbc_hf.hub import CARD_FILE, METRICS_FILE, find_file
from wbc_hf.inference import Predictor
from wbc_hf.web.rendering import render

FIGURES_FOLDER = "figures"
EVALUATIONS_FOLDER = "evaluations"  # reports of `wbc-hf evaluate --output`, a folder each
_MAX_CHART_BYTES = 4 * 1024**2
_MAX_EVALUATIONS = 20

HEADLINE = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
}
# Charts alone: a gallery of misclassified cells shows images whose licence may forbid passing them on.
FIGURES = {
    "confusion_matrix": "Confusion matrix",
    "reliability": "Whether the probabilities hold",
    "risk_coverage": "What is left to a person",
}

NO_REPORT = "This model's folder has no report (metrics.json): nothing is known of how good it is."
NO_CARD = "This model's folder has no card."

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
# Not `.*`, whose time would grow with the square of a line.
_PICTURE_LINE = re.compile(r"^!\[[^\]\n]*\]\([^)\n]*\)\n", re.MULTILINE)


@dataclass(frozen=True)
class KeptEvaluation:
    """An evaluation of the model that lies in its folder.

    Attributes:
        name: Of its folder. What the images were called may be private.
        version: Of the model that was evaluated.
        metrics: As `read_metrics` gives them.
        charts: Title and PNG file of each.
    """

    name: str
    version: str
    metrics: dict
    charts: list[tuple[str, bytes]]


def add_model_tab(predictor: Predictor) -> None:
    """Lay out the tab, within a `gr.Tab`."""
    gr.HTML(render_report(predictor))
    with gr.Accordion("The model's card", open=False):
        gr.Markdown(read_card(predictor.folder))


def describe_model(predictor: Predictor) -> dict:
    """Describe the model, its classes, its calibration, and the metrics of its test with their intervals.

    Returns:
        `name`, `version`, `trained_on`, `software`, `labels`, `review_threshold` (None where the model was not
        calibrated), and `metrics`: what `metrics.json` holds, or None.
    """
    identity, calibration = predictor.identity, predictor.calibration
    return {
        **vars(identity),
        "labels": list(predictor.labels),
        "review_threshold": None if calibration is None else calibration.review_threshold,
        "metrics": None if predictor.folder is None else read_metrics(predictor.folder),
    }


def read_adaptation(folder: Path | None) -> Adaptation | None:
    """Read what an adapted model's folder says of its adaptation; None of another model's.

    Raises:
        WbcError: It cannot be read.
    """
    file = None if folder is None else find_file(folder, ADAPTATION_FILE)
    if file is None:
        return None
    advice = "Adapt the model again, or remove the file."
    adaptation = read_json(file, Adaptation, advice)
    if not adaptation.is_complete():
        raise WbcError(f"{file}: its scores are not of the classes that have labels, before and after. {advice}")
    return adaptation


def read_card(folder: Path | None) -> str:
    """Read the card as Markdown, without its front matter and without figures, which stand beside it.

    Raises:
        WbcError: It is not in UTF-8, is too large, or lies elsewhere.
    """
    file = None if folder is None else find_file(folder, CARD_FILE)
    return NO_CARD if file is None else _PICTURE_LINE.sub("", _FRONT_MATTER.sub("", read_text(file)))


def render_report(predictor: Predictor) -> str:
    """Render what the model is, its metrics at home and elsewhere with their intervals, and its charts."""
    model = describe_model(predictor)
    return render(
        "model",
        model=model,
        metrics=model["metrics"],
        adaptation=read_adaptation(predictor.folder),
        scores=SCORES,
        headline=HEADLINE,
        charts=_read_charts(predictor.folder),
        evaluations=read_evaluations(predictor.folder),
        no_report=NO_REPORT,
    )


def read_evaluations(folder: Path | None) -> list[KeptEvaluation]:
    """Read the evaluations that a model's folder keeps in `evaluations/`, the newest first.

    Raises:
        WbcError: One of them is no report of `wbc-hf evaluate`, is damaged or lies elsewhere, or there are too many.
    """
    if folder is None or not (place := folder / EVALUATIONS_FOLDER).is_dir():
        return []
    reports = sorted(report for report in place.iterdir() if not report.name.startswith("."))
    if len(reports) > _MAX_EVALUATIONS:
        raise WbcError(f"{place}: holds {len(reports)} reports; {_MAX_EVALUATIONS} are shown. Move some elsewhere.")
    found = []
    for report in reports:
        # Against the model's folder too: the report's own may be a link.
        find_file(folder, f"{EVALUATIONS_FOLDER}/{report.name}/{METRICS_FILE}")
        metrics, record = (read_metrics(report), read_record(report)) if report.is_dir() else (None, None)
        if metrics is None or record is None:
            raise WbcError(f"{report}: is no report of `wbc-hf evaluate`. Evaluate the model again, or remove it.")
        found.append((record.finished, KeptEvaluation(report.name, record.version, metrics, _read_charts(report))))
    return [evaluation for _, evaluation in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _read_charts(folder: Path | None) -> list[tuple[str, bytes]]:
    """Title and PNG file of each chart in a report's folder."""
    return [
        (title, read_content(file, _MAX_CHART_BYTES))
        for name, title in FIGURES.items()
        if folder and (file := find_file(folder, f"{FIGURES_FOLDER}/{name}.png"))
    ]
