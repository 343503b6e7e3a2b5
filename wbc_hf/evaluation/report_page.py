"""The report as one HTML file that needs nothing beside it, and no network."""

import base64
from collections.abc import Mapping

from wbc_hf.evaluation.confidence_intervals import format_estimate, format_figure, format_interval
from wbc_hf.evaluation.evaluation_record import EvaluationRecord
from wbc_hf.evaluation.figure_names import HEADLINE_NAMES
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS, LEUCOCYTES
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.templates import load_templates

_CLASS_FIGURES = {"precision": "Precision", "recall": "Recall", "f1": "F1", "roc_auc": "ROC AUC"}
_HEADLINE = {name: name.replace("_", " ").capitalize().replace(" f1", " F1") for name in HEADLINE_NAMES} | {
    "roc_auc": "Macro ROC AUC"
}
# Sections of the page that an evaluation may lack.
_OPTIONAL = ("leaked", "without_leaked", "comparison", "laboratories", "unseen", "calibration", "review")


def render_report_page(metrics: dict, record: EvaluationRecord | None, figures: Mapping[str, bytes]) -> str:
    """Render an evaluation as HTML: every figure with its interval, and the charts.

    Args:
        metrics: Of an `Evaluation`.
        record: What was evaluated, where that is known.
        figures: PNG files by the names of `write_report`. Those of a name that it does not know are left out.
    """
    page = _TEMPLATES.get_template("report.html.j2").render(
        metrics=dict.fromkeys(_OPTIONAL) | metrics,
        record=record,
        charts={name: base64.b64encode(png).decode() for name, png in figures.items()},
        headline=_HEADLINE,
        class_figures=_CLASS_FIGURES,
        class_names=CLASS_NAMES,
        colours={leucocyte.name: leucocyte.colour for leucocyte in LEUCOCYTES},
        enough_cells=ENOUGH_CELLS,
    )
    return escape_surrogates(page)


_TEMPLATES = load_templates("wbc_hf.evaluation")
_TEMPLATES.filters |= {"figure": format_figure, "interval": format_interval}
_TEMPLATES.globals["estimate"] = format_estimate
