"""Judging: metrics with their intervals, figures, the report of a model on a split, and one model beside another."""

from wbc_hf.evaluation.comparison import compare_reports, format_comparison
from wbc_hf.evaluation.confidence_intervals import (
    bootstrap_intervals,
    draw_groups,
    format_estimate,
    format_figure,
    format_interval,
    paired_difference,
)
from wbc_hf.evaluation.detection import DetectionFigures, detection_figures, match_boxes
from wbc_hf.evaluation.evaluation import Evaluation, columns_of_classes, evaluate
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, LeucocyteMetrics, compute_metrics, headline
from wbc_hf.evaluation.model_card import render_card
from wbc_hf.evaluation.reliability import brier_score, expected_calibration_error, risk_coverage
from wbc_hf.evaluation.report import write_json, write_report
from wbc_hf.evaluation.summary import format_metrics

__all__ = [
    "HEADLINE_NAMES",
    "DetectionFigures",
    "Evaluation",
    "LeucocyteMetrics",
    "bootstrap_intervals",
    "brier_score",
    "columns_of_classes",
    "compare_reports",
    "compute_metrics",
    "detection_figures",
    "draw_groups",
    "evaluate",
    "expected_calibration_error",
    "format_comparison",
    "format_estimate",
    "format_figure",
    "format_interval",
    "format_metrics",
    "headline",
    "match_boxes",
    "paired_difference",
    "render_card",
    "risk_coverage",
    "write_json",
    "write_report",
]
