"""The tab of the model: what it was trained on, how good it was in its test, and its card."""

import json
import re
from pathlib import Path

import gradio as gr

from wbc_hf.adaptation import ADAPTATION_FILE, SCORES, Adaptation
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.web.rendering import render

CARD_FILE, METRICS_FILE, FIGURES_FOLDER = "README.md", "metrics.json", "figures"

HEADLINE = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
}
# Charts alone: a gallery of misclassified cells shows images whose licence may forbid passing them on.
FIGURES = {
    "confusion_matrix": "Confusion matrix on the test split",
    "reliability": "Whether the probabilities hold",
    "risk_coverage": "What is left to a person",
}

NO_REPORT = "This model's folder has no report (metrics.json): nothing is known of how good it is."
NO_CARD = "This model's folder has no card."

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_PICTURE_LINE = re.compile(r"^!\[.*\]\(.*\)\n", re.MULTILINE)


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
        "name": identity.name,
        "version": identity.version,
        "trained_on": identity.trained_on,
        "software": identity.software,
        "labels": list(predictor.labels),
        "review_threshold": None if calibration is None else calibration.review_threshold,
        "metrics": read_metrics(predictor.folder),
    }


def read_metrics(folder: Path | None) -> dict | None:
    """Read the report of a model's folder; None where there is none of this project's form.

    Raises:
        WbcError: It cannot be read.
    """
    path = _find(folder, METRICS_FILE)
    if path is None:
        return None
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WbcError(f"{path}: is not a report that training wrote ({error}). Fetch the model again.") from error
    # Others publish a file of this name too.
    reported = {"count", "per_class", "intervals", *HEADLINE}
    return metrics if isinstance(metrics, dict) and metrics.keys() >= reported else None


def read_adaptation(folder: Path | None) -> Adaptation | None:
    """Read what an adapted model's folder says of its adaptation; None of another model's.

    Raises:
        WbcError: It cannot be read.
    """
    path = _find(folder, ADAPTATION_FILE)
    if path is None:
        return None
    try:
        return Adaptation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise WbcError(
            f"{path}: is not what an adaptation of this version wrote ({error}). Adapt it again."
        ) from error


def read_card(folder: Path | None) -> str:
    """Read the card as Markdown, without its front matter and without figures, which stand beside it."""
    path = _find(folder, CARD_FILE)
    if path is None:
        return NO_CARD
    return _PICTURE_LINE.sub("", _FRONT_MATTER.sub("", path.read_text(encoding="utf-8")))


def render_report(predictor: Predictor) -> str:
    """Render what the model is, its metrics at home and elsewhere with their intervals, and its charts."""
    model = describe_model(predictor)
    charts = [
        (title, path.read_bytes())
        for name, title in FIGURES.items()
        if (path := _find(predictor.folder, f"{FIGURES_FOLDER}/{name}.png"))
    ]
    return render(
        "model",
        model=model,
        metrics=model["metrics"],
        adaptation=read_adaptation(predictor.folder),
        scores=SCORES,
        headline=HEADLINE,
        charts=charts,
        no_report=NO_REPORT,
    )


def _find(folder: Path | None, name: str) -> Path | None:
    path = None if folder is None else folder / name
    return path if path is not None and path.is_file() else None
