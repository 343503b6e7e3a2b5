"""Judging: metrics, figures and the report of a model on a split."""

from wbc_hf.evaluation.figures import (
    MisclassifiedCell,
    confusion_matrix_figure,
    misclassified_figure,
    training_curves_figure,
)
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, LeucocyteMetrics, compute_metrics, headline
from wbc_hf.evaluation.model_card import render_card
from wbc_hf.evaluation.report import format_metrics, write_json, write_report

__all__ = [
    "HEADLINE_NAMES",
    "LeucocyteMetrics",
    "MisclassifiedCell",
    "compute_metrics",
    "confusion_matrix_figure",
    "format_metrics",
    "headline",
    "misclassified_figure",
    "render_card",
    "training_curves_figure",
    "write_json",
    "write_report",
]
