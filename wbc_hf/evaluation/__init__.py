"""Evaluation: metrics with confidence intervals, report and card of a model, comparison of models, label issues."""

from typing import TYPE_CHECKING

from wbc_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from wbc_hf.evaluation.comparison import compare_predictions, compare_reports, format_comparison
    from wbc_hf.evaluation.confidence_intervals import (
        CONFIDENCE,
        exact_limits,
        exact_rate_limits,
        format_estimate,
        format_figure,
        format_interval,
    )
    from wbc_hf.evaluation.detection import DetectionFigures, detection_figures, match_boxes
    from wbc_hf.evaluation.evaluation import Evaluation, columns_of_classes, evaluate
    from wbc_hf.evaluation.evaluation_record import EvaluatedSet, EvaluationRecord, read_record
    from wbc_hf.evaluation.figure_names import HEADLINE_NAMES
    from wbc_hf.evaluation.label_issues import find_label_issues
    from wbc_hf.evaluation.metrics import LeucocyteMetrics, compute_metrics, headline
    from wbc_hf.evaluation.model_card import render_card
    from wbc_hf.evaluation.report import REPORT_PAGE, write_report
    from wbc_hf.evaluation.reporting_checklists import CHECKLISTS_HEADING, map_checklists
    from wbc_hf.evaluation.stored_metrics import read_metrics
    from wbc_hf.evaluation.summary import format_metrics, format_table, plain_table

__all__ = [
    "CHECKLISTS_HEADING",
    "CONFIDENCE",
    "HEADLINE_NAMES",
    "REPORT_PAGE",
    "DetectionFigures",
    "EvaluatedSet",
    "Evaluation",
    "EvaluationRecord",
    "LeucocyteMetrics",
    "columns_of_classes",
    "compare_predictions",
    "compare_reports",
    "compute_metrics",
    "detection_figures",
    "evaluate",
    "exact_limits",
    "exact_rate_limits",
    "find_label_issues",
    "format_comparison",
    "format_estimate",
    "format_figure",
    "format_interval",
    "format_metrics",
    "format_table",
    "headline",
    "map_checklists",
    "match_boxes",
    "plain_table",
    "read_metrics",
    "read_record",
    "render_card",
    "write_report",
]

__getattr__ = lazy_names(__name__)
