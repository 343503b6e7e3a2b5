"""What a survey found, as tables in Markdown and as one plot."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wbc_hf.evaluation import format_estimate
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.detectors import DETECTORS, DetectorRow
from wbc_hf.survey.running import HOME, Row
from wbc_hf.survey.systems import SYSTEMS

_TITLE_WIDTH = 32  # letters of a panel's title on one line
_Line = TypeVar("_Line")

_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy = macro recall",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
}
_INK, _FAINT, _OURS, _GRID = "#222222", "#767676", "#d55e00", "#e6e6e6"
_APART = {True: "yes", False: "no", None: "not known"}


def render(rows: Sequence[Row], detectors: Sequence[DetectorRow], home: str) -> str:
    """Markdown: accuracies side by side, all figures for each test set, cost and published figures, detectors.

    Args:
        rows: With the same test sets, one at least.
        detectors: None, or those that were scored.
        home: What the set is called that was learnt from.
    """
    conditions = _conditions(rows)
    rows = [_without_leaked(row) for row in rows]
    sets = {HOME: home} | {name: name for name in rows[0].reports if name != HOME}
    parts = [_accuracies(rows, sets), conditions]
    parts += [f"### {_title(rows[0].reports[key], name)}\n\n{_all_figures(rows, key)}" for key, name in sets.items()]
    parts.append(f"### What they cost\n\n{_costs(rows)}")
    parts.append(f"### What was published\n\n{_published(rows)}")
    if detectors:
        title = f"Leucocytes found in the {detectors[0].photographs} photographs of the scoring half"
        parts.append(f"### {title}\n\n{_detectors(detectors)}")
    return "\n\n".join(parts) + "\n"


def plot(rows: Sequence[Row], home: str) -> Figure:
    """Accuracy and balanced accuracy of every system on every test set, with their intervals.

    Who gives one class to all cells has a balanced accuracy of 0.2, however common that class is.
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
            for name, shift, fill in (("accuracy", 0.16, "full"), ("balanced_accuracy", -0.16, "none")):
                if interval := report["intervals"][name]:
                    ax.plot(interval, [height + shift] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
                ax.plot(
                    report[name],
                    height + shift,
                    "o",
                    color=colour,
                    markersize=5,
                    fillstyle=fill,
                    markerfacecolor=colour if fill == "full" else "white",
                )
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
    marks = {
        "accuracy": {"marker": "o", "color": _INK},
        "balanced accuracy": {"marker": "o", "color": _INK, "markerfacecolor": "white"},
        "accuracy that was published, on other cells": {"marker": "D", "color": _FAINT, "markerfacecolor": "white"},
        "balanced accuracy of one class for all": {"linestyle": ":", "color": _FAINT},
    }
    lines = [
        Line2D([], [], **{"linestyle": "", "markersize": 5, "label": label} | style) for label, style in marks.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    return figure


def _conditions(rows: Sequence[Row]) -> str:
    counts = sorted({row.training_cells for row in rows})
    told = f"All learnt from {' or '.join(f'{count:,}' for count in counts)} cells."
    if leaked := rows[0].reports[HOME]["leaked"]:
        told += f" Left out of the test split: {leaked} cells of which copies were trained or chosen on."
    return f"{told} Intervals are 95 %, by bootstrap over distinct cells."


def _accuracies(rows: Sequence[Row], sets: dict[str, str]) -> str:
    def line(row: Row) -> list[str]:
        return [_name(row), *(_pair(row.reports[key]) for key in sets), _published_accuracy(row)]

    return _table(["accuracy / balanced accuracy", *sets.values(), "published accuracy, on other cells"], rows, line)


def _all_figures(rows: Sequence[Row], key: str) -> str:
    return _table(
        ["", *_FIGURES.values()],
        rows,
        lambda row: [_name(row), *(_estimate(row.reports[key], figure) for figure in _FIGURES)],
    )


def _costs(rows: Sequence[Row]) -> str:
    def line(row: Row) -> list[str]:
        least = "at least " if row.resumed else ""
        return [
            _name(row),
            row.start or "–",
            f"{least}{row.seconds:.0f}",
            f"{row.images_per_second:.0f}",
            f"{least}{row.peak_bytes / 2**20:.0f}",
            f"{row.parameters:,}",
        ]

    header = ["", "weights begin", "training, s", "images/s", "peak memory, MiB", "learnt numbers"]
    return _table(header, rows, line)


def _published(rows: Sequence[Row]) -> str:
    def line(row: Row) -> list[str]:
        published = SYSTEMS[row.name].published
        return [
            _name(row),
            published.source,
            _published_accuracy(row),
            published.cells,
            _APART[published.copies_apart],
        ]

    return _table(["", "source", "accuracy", "on which cells", "copies of a cell kept apart"], rows, line)


def _detectors(detectors: Sequence[DetectorRow]) -> str:
    def line(row: DetectorRow) -> list[str]:
        detector = DETECTORS[row.name]
        found, false = format_estimate(row.found, row.found_interval), format_estimate(row.false, row.false_interval)
        return [detector.title, str(row.cells), found, false, f"{row.milliseconds:.0f}", detector.published.source]

    header = ["", "leucocytes", "found", "false boxes a photograph", "ms a photograph", "source"]
    return _table(header, detectors, line)


def _without_leaked(row: Row) -> Row:
    """With the figures over cells of which no copy was trained or chosen on."""
    return replace(row, reports={key: report.get("without_leaked") or report for key, report in row.reports.items()})


def _title(report: dict, name: str) -> str:
    return f"{name}: {report['count']} cells, {sum(report['distinct_cells'].values())} distinct"


def _name(row: Row) -> str:
    return SYSTEMS[row.name].title


def _published_accuracy(row: Row) -> str:
    accuracy = SYSTEMS[row.name].published.accuracy
    return "–" if accuracy is None else f"{accuracy:.3f}"


def _estimate(report: dict, figure: str) -> str:
    return format_estimate(report[figure], report["intervals"][figure])


def _pair(report: dict) -> str:
    return f"{report['accuracy']:.3f} / {report['balanced_accuracy']:.3f}"


def _table(header: Sequence[str], rows: Sequence[_Line], line: Callable[[_Line], Sequence[str]]) -> str:
    """A Markdown table: names on the left, figures on the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *map(line, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
