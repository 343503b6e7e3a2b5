"""The tab of the model: how good it was in its test, what its card says, and how it was calibrated."""

import json
import re
from html import escape
from pathlib import Path

import gradio as gr

from wbc_hf.errors import WbcError
from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.inference.predictor import Predictor
from wbc_hf.web.html import data_url, dot, render_empty

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

_REPORTED = {"count", "per_class", "intervals", *HEADLINE}

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_PICTURE_LINE = re.compile(r"^!\[.*\]\(.*\)\n", re.MULTILINE)


def describe_model(predictor: Predictor) -> dict:
    """Which model this is, its classes, when to trust it, and the figures of its test with their intervals.

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
    """The report of a model's folder, or None where there is none of this project's form.

    Raises:
        WbcError: It cannot be read.
    """
    path = None if folder is None else folder / METRICS_FILE
    if path is None or not path.is_file():
        return None
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WbcError(f"{path}: is no report that training wrote ({error}). Fetch the model again.") from error
    # Others publish a file of this name too.
    return metrics if isinstance(metrics, dict) and metrics.keys() >= _REPORTED else None


def read_card(folder: Path | None) -> str:
    """The card as Markdown, without its front matter and without pictures, which stand beside it."""
    path = None if folder is None else folder / CARD_FILE
    if path is None or not path.is_file():
        return NO_CARD
    return _PICTURE_LINE.sub("", _FRONT_MATTER.sub("", path.read_text(encoding="utf-8")))


def render_report(predictor: Predictor) -> str:
    """Which model this is, and the figures of its test with their intervals and charts."""
    model = describe_model(predictor)
    trained_on = model["trained_on"] or "not said"
    lines = {
        "Model": f"<b>{escape(model['name'])}</b>",
        "Version": f"<code>{model['version']}</code>",
        "Trained on": escape(trained_on),
        "Tells apart": escape(", ".join(model["labels"])),
        "Software": escape(model["software"]),
    }
    if model["review_threshold"] is not None:
        lines["Asks for review"] = f"below {100 * model['review_threshold']:.1f} % probability, or where unfamiliar"
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in lines.items())
    figures = render_empty(NO_REPORT) if model["metrics"] is None else _figures(model["metrics"])
    return f'<div class="wbc-model"><dl>{facts}</dl>{figures}{_charts(predictor.folder)}</div>'


def _figures(metrics: dict) -> str:
    tiles = "".join(
        f"<li><span>{title}</span><b>{format_figure(metrics[name], '.1%')}</b>"
        f"<small>{_limits(metrics['intervals'][name])}</small></li>"
        for name, title in HEADLINE.items()
    )
    if review := metrics.get("review"):
        tiles += (
            "<li><span>Confident answers that are right</span>"
            f"<b>{format_figure(review['accuracy_of_accepted'], '.1%')}</b><small>"
            f"{_limits(review['intervals']['accuracy_of_accepted'])}; "
            f"{100 * review['coverage']:.1f} % are confident</small></li>"
        )
    rows = "".join(
        f'<tr><th scope="row">{dot(name)}{escape(name.capitalize())}</th>'
        + "".join(_class_figure(metrics, name, key) for key in ("precision", "recall", "f1"))
        + f"<td>{int(figures['support'])}</td></tr>"
        for name, figures in metrics["per_class"].items()
    )
    return (
        f"<h3>In its test</h3><p>{int(metrics['count'])} images that it was neither trained nor chosen on. Small "
        "figures are 95 % limits, over distinct cells. They say nothing of another laboratory: judge it on your own "
        "cells. Limits from 100 to 100 % say that no mistake was seen: n cells without one leave room for 3 / n.</p>"
        f'<ul class="wbc-tiles">{tiles}</ul><div class="wbc-wide"><table><thead><tr><th scope="col">Class</th>'
        '<th scope="col">Precision</th><th scope="col">Recall</th><th scope="col">F1</th><th scope="col">Images</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _class_figure(metrics: dict, name: str, key: str) -> str:
    limits = _limits(metrics["intervals"]["per_class"][name][key])
    return f"<td>{format_figure(metrics['per_class'][name][key], '.1%')} <small>{limits}</small></td>"


def _charts(folder: Path | None) -> str:
    charts = ""
    for name, title in FIGURES.items() if folder else ():
        path = folder / FIGURES_FOLDER / f"{name}.png"
        if path.is_file():
            charts += (
                f'<figure><img alt="{title}" src="{data_url(path.read_bytes(), "image/png")}">'
                f"<figcaption>{title}</figcaption></figure>"
            )
    return f'<div class="wbc-charts">{charts}</div>'


def _limits(interval: list[float] | None) -> str:
    return "no interval" if interval is None else format_interval(interval, ".1%", between=" – ")


def add_model_tab(predictor: Predictor) -> None:
    """Lay out the tab; to be called within a `gr.Tab`."""
    gr.HTML(render_report(predictor))
    with gr.Accordion("The model's card", open=False):
        gr.Markdown(read_card(predictor.folder))
