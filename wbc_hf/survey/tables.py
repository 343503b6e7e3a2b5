"""Tables in Markdown and a plot of a survey's results."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wbc_hf.evaluation import format_estimate, format_figure
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.detectors import DETECTORS, DetectorRow
from wbc_hf.survey.running import HOME, Row
from wbc_hf.survey.systems import SYSTEMS
from wbc_hf.templates import load_templates

_TITLE_WIDTH = 32  # letters of a panel's title on one line
_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy = macro recall",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
}
_INK, _FAINT, _OURS, _GRID = "#222222", "#767676", "#d55e00", "#e6e6e6"


def render(rows: Sequence[Row], detectors: Sequence[DetectorRow], home: str) -> str:
    """Render Markdown: accuracies side by side, all figures by test set, costs, published figures, detectors.

    Args:
        rows: At least one, with the same test sets.
        detectors: Scores of the detectors, if any.
        home: Title of the training set.
    """
    templates = load_templates("wbc_hf.survey", keep_trailing_newline=True)
    templates.filters["figure"] = format_figure
    return templates.get_template("survey.md.j2").render(
        rows=[_without_leaked(row) for row in rows],
        sets={HOME: home} | {name: name for name in rows[0].reports if name != HOME},
        training_cells=[f"{count:,}" for count in sorted({row.training_cells for row in rows})],
        leaked=rows[0].reports[HOME]["leaked"],
        systems=SYSTEMS,
        figure_titles=_FIGURES,
        estimate=format_estimate,
        detectors=detectors,
        detector_classes=DETECTORS,
    )


def plot(rows: Sequence[Row], home: str) -> Figure:
    """Plot accuracy and balanced accuracy of every system on every test set, with 95 % confidence intervals.

    A system that predicts one class for all cells has a balanced accuracy of 0.2, however common that class is.
    """
    rows = [_without_leaked(row) for row in rows]
    sets = {HOME: f"{home}, test split"} | {name: name for name in rows[0].reports if name != HOME}
    figure = Figure(figsize=(3.4 + 2.6 * len(sets), 0.9 + 0.38 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    heights = range(len(rows))[::-1]
    for ax, (key, title) in zip(axes, sets.items(), strict=True):
        ax.axvline(1 / len(CLASS_NAMES), color=_FAINT, linewidth=0.8, linestyle=":")
        for height, row in zip(heights, rows, strict=True):
            report = row.reports[key]
            colour = _OURS if row.name == "ours" else _INK
            for name, shift, fill in (("accuracy", 0.16, ""), ("balanced_accuracy", -0.16, "white")):
                if interval := report["intervals"][name]:
                    ax.plot(interval, [height + shift] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
                ax.plot(report[name], height + shift, "o", color=colour, markersize=5, markerfacecolor=fill or colour)
            published = SYSTEMS[row.name].published.accuracy
            if key == HOME and published is not None:
                ax.plot(published, height, "D", color=_FAINT, markersize=5, fillstyle="none")
        ax.set_title(textwrap.fill(title, _TITLE_WIDTH), fontsize=10, color=_INK)
        ax.set_xlim(0, 1.02)
        ax.grid(axis="x", color=_GRID)
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(length=0, labelsize=9)
    axes[0].set_yticks(list(heights), [SYSTEMS[row.name].title for row in rows])
    mark = partial(Line2D, [], [], linestyle="", markersize=5)
    lines = [
        mark(color=_INK, marker="o", label="accuracy"),
        mark(color=_INK, marker="o", markerfacecolor="white", label="balanced accuracy"),
        mark(color=_FAINT, marker="D", markerfacecolor="white", label="published accuracy, on other cells"),
        Line2D([], [], color=_FAINT, linestyle=":", label="balanced accuracy of one class for all"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    return figure


def _without_leaked(row: Row) -> Row:
    """Replace figures by those over cells without near-duplicates in training or validation."""
    return replace(row, reports={key: report.get("without_leaked") or report for key, report in row.reports.items()})
