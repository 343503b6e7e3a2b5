"""An evaluation as plain text for a terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from wbc_hf.evaluation.confidence_intervals import format_figure, format_interval
from wbc_hf.evaluation.figure_names import HEADLINE_NAMES
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS

_WIDTH = 80
_CLASS_FIGURES = ("precision", "recall", "f1", "roc_auc")


def format_metrics(metrics: dict) -> str:
    """The `metrics` of an `Evaluation` as tables, at most 80 columns wide, "–" for what is not defined.

    Every figure stands with its 95 % confidence interval. A star marks a class of fewer than `ENOUGH_CELLS` distinct
    cells.
    """
    columns = {f"{metrics['count']} images": metrics}
    if metrics.get("without_leaked"):
        columns[f"{metrics['without_leaked']['count']} not leaked"] = metrics["without_leaked"]
    titles = {name: name.replace("_", " ") for name in HEADLINE_NAMES} | {"roc_auc": "macro roc auc"}
    parts = [format_table(_estimates(columns, titles)) + _leak_line(metrics)]
    if "laboratories" in metrics:
        parts.append(format_table(_laboratory_table(metrics["laboratories"])))
    parts += [format_table(_class_table(metrics)) + _few_cells_line(metrics), format_table(_confusion_table(metrics))]
    if "calibration" in metrics:
        stages = {stage: metrics["calibration"][stage] for stage in ("before", "after")}
        names = {"ece": "calibration error (ECE)", "brier": "Brier score, 0 to 2"}
        parts.append(format_table(_estimates(stages, names, "temperature scaling")))
    if "review" in metrics:
        review = metrics["review"]
        below = "" if review["threshold"] is None else f" below {review['threshold']:.3f}"
        names = {"coverage": "accepted without review", "accuracy_of_accepted": "accuracy of accepted"}
        parts.append(format_table(_estimates({f"review{below}": review}, names)))
    return "\n\n".join(parts)


def format_table(table: Table, width: int = _WIDTH) -> str:
    """A table as text without colours, `width` columns at most, no spaces at the ends of lines."""
    console = Console(width=width, color_system=None, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def plain_table(*headings: str) -> Table:
    """An empty table without lines: names on the left, figures on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def _estimates(columns: Mapping[str, dict], titles: Mapping[str, str], heading: str = "") -> Table:
    """A row per figure: under each heading the figure, beside it its confidence interval."""
    table = plain_table(heading, *(text for name in columns for text in (name, "95 % CI")))
    for key, title in titles.items():
        pairs = ((format_figure(c[key]), format_interval(c["intervals"][key])) for c in columns.values())
        table.add_row(title, *(text for pair in pairs for text in pair))
    return table


def _laboratory_table(laboratories: Mapping[str, dict]) -> Table:
    table = plain_table("laboratory", "images", "accuracy", "95 % CI", "balanced", "95 % CI")
    for name, figures in laboratories.items():
        pairs = ((figures[key], figures["intervals"][key]) for key in ("accuracy", "balanced_accuracy"))
        estimates = (text for value, interval in pairs for text in (format_figure(value), format_interval(interval)))
        table.add_row(name, str(figures["count"]), *estimates)
    return table


def _class_table(metrics: dict) -> Table:
    table = plain_table("class", *(figure.replace("_", " ") for figure in _CLASS_FIGURES), "images", "cells")
    for name, figures in metrics["per_class"].items():
        distinct, intervals = metrics["distinct_cells"][name], metrics["intervals"]["per_class"][name]
        mark = " *" if distinct < ENOUGH_CELLS else ""
        values = (format_figure(figures[key]) for key in _CLASS_FIGURES)
        table.add_row(name + mark, *values, str(figures["support"]), str(distinct))
        if any(intervals.values()):
            # No figure of a class is negative: a dash cannot be taken for a sign, and four of them fit the width.
            table.add_row("", *(format_interval(intervals[key], between="–") for key in _CLASS_FIGURES))
    return table


def _confusion_table(metrics: dict) -> Table:
    table = plain_table("true / predicted", *CLASS_NAMES)
    for name, row in zip(CLASS_NAMES, metrics["confusion_matrix"], strict=True):
        table.add_row(name, *map(str, row))
    return table


def _leak_line(metrics: dict) -> str:
    if not metrics.get("leaked"):
        return ""
    line = f"\n{metrics['leaked']} of the images show cells that were also in training or validation"
    return f"{line}." if metrics["without_leaked"] else f"{line}: none is left to evaluate on."


def _few_cells_line(metrics: dict) -> str:
    if min(metrics["distinct_cells"].values()) >= ENOUGH_CELLS:
        return ""
    return f"\n* fewer than {ENOUGH_CELLS} distinct cells: too few to evaluate the class"
