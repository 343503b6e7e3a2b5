"""Tables in Markdown and a plot of a survey's results."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wbc_hf.evaluation import format_estimate, format_figure
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.detectors import DETECTORS, DetectorRow
from wbc_hf.survey.running import HOME, Row
from wbc_hf.survey.systems import SYSTEMS

_TITLE_WIDTH = 32  # letters of a panel's title on one line
_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy = macro recall",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
}
_INK, _FAINT, _OURS, _GRID = "#222222", "#767676", "#d55e00", "#e6e6e6"
_APART = {True: "yes", False: "no", None: "not known"}


def render(rows: Sequence[Row], detectors: Sequence[DetectorRow], home: str) -> str:
    """Render Markdown: accuracies side by side, all figures by test set, costs, published figures, detectors.

    Args:
        rows: At least one, with the same test sets.
        detectors: Scores of the detectors, if any.
        home: Title of the training set.
    """
    conditions = _conditions(rows)
    rows = [_without_leaked(row) for row in rows]
    sets = {HOME: home} | {name: name for name in rows[0].reports if name != HOME}
    parts = [_accuracies(rows, sets), conditions]
    for key, name in sets.items():
        report = rows[0].reports[key]
        distinct = sum(report["distinct_cells"].values())
        parts.append(f"### {name}: {report['count']} cells, {distinct} distinct\n\n{_all_figures(rows, key)}")
    parts += [f"### Costs\n\n{_costs(rows)}", f"### Published figures\n\n{_published(rows)}"]
    if detectors:
        title = f"Leucocytes found in the {detectors[0].photographs} photographs of the scoring half"
        parts.append(f"### {title}\n\n{_detectors(detectors)}")
    return "\n\n".join(parts) + "\n"


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
    lines = [
        _mark(_INK, "o", "accuracy"),
        _mark(_INK, "o", "balanced accuracy", markerfacecolor="white"),
        _mark(_FAINT, "D", "published accuracy, on other cells", markerfacecolor="white"),
        Line2D([], [], color=_FAINT, linestyle=":", label="balanced accuracy of one class for all"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    return figure


def _mark(colour: str, marker: str, label: str, markerfacecolor: str | None = None) -> Line2D:
    return Line2D(
        [], [], color=colour, marker=marker, linestyle="", markersize=5, markerfacecolor=markerfacecolor, label=label
    )


def _conditions(rows: Sequence[Row]) -> str:
    counts = sorted({row.training_cells for row in rows})
    text = f"All were trained on {' or '.join(f'{count:,}' for count in counts)} cells."
    if leaked := rows[0].reports[HOME]["leaked"]:
        text += f" Left out of the test split: {leaked} cells with near-duplicates in training or validation."
    return f"{text} Confidence intervals are 95 %, by bootstrap over distinct cells."


def _accuracies(rows: Sequence[Row], sets: dict[str, str]) -> str:
    header = ["accuracy / balanced accuracy", *sets.values(), "published accuracy, on other cells"]
    pairs = [
        [f"{row.reports[key]['accuracy']:.3f} / {row.reports[key]['balanced_accuracy']:.3f}" for key in sets]
        for row in rows
    ]
    return _table(
        header, ([_title(row), *pair, _published_accuracy(row)] for row, pair in zip(rows, pairs, strict=True))
    )


def _all_figures(rows: Sequence[Row], key: str) -> str:
    reports = [(_title(row), row.reports[key]) for row in rows]
    cells = (
        [title, *(format_estimate(report[name], report["intervals"][name]) for name in _FIGURES)]
        for title, report in reports
    )
    return _table(["", *_FIGURES.values()], cells)


def _costs(rows: Sequence[Row]) -> str:
    header = ["", "weights begin", "training, s", "images/s", "peak memory, MiB", "parameters"]
    least = {row.name: "at least " if row.resumed else "" for row in rows}
    cells = (
        [
            _title(row),
            row.start or "–",
            f"{least[row.name]}{row.seconds:.0f}",
            f"{row.images_per_second:.0f}",
            f"{least[row.name]}{row.peak_bytes / 2**20:.0f}",
            f"{row.parameters:,}",
        ]
        for row in rows
    )
    return _table(header, cells)


def _published(rows: Sequence[Row]) -> str:
    header = ["", "source", "accuracy", "on which cells", "near-duplicates kept on one side"]
    papers = [(row, SYSTEMS[row.name].published) for row in rows]
    return _table(
        header,
        (
            [_title(row), paper.source, _published_accuracy(row), paper.cells, _APART[paper.near_duplicates_apart]]
            for row, paper in papers
        ),
    )


def _detectors(detectors: Sequence[DetectorRow]) -> str:
    header = ["", "leucocytes", "found", "false boxes a photograph", "ms a photograph", "source"]
    cells = (
        [
            DETECTORS[row.name].title,
            str(row.cells),
            format_estimate(row.found, row.found_interval),
            format_estimate(row.false, row.false_interval),
            f"{row.milliseconds:.0f}",
            DETECTORS[row.name].published.source,
        ]
        for row in detectors
    )
    return _table(header, cells)


def _without_leaked(row: Row) -> Row:
    """Replace figures by those over cells without near-duplicates in training or validation."""
    return replace(row, reports={key: report.get("without_leaked") or report for key, report in row.reports.items()})


def _title(row: Row) -> str:
    return SYSTEMS[row.name].title


def _published_accuracy(row: Row) -> str:
    return format_figure(SYSTEMS[row.name].published.accuracy)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a Markdown table with names on the left and figures on the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
