"""The figures of a report. Every function draws what it is given, computes nothing else, and returns a Figure.

Figures are made through matplotlib's object API (no pyplot), so nothing global is left behind and no display is
needed: `figure.savefig(path)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from wbc_hf.evaluation.confidence_intervals import Interval
from wbc_hf.evaluation.reliability import ReliabilityBins, RiskCoverage
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES

GALLERY_SIZE = 40

_INK = "#222222"
_FAINT = "#767676"
_EMPTY = "#f2f2f2"
_TRAINING = "#767676"
_VALIDATION = "#0072b2"
_SECOND_SCORE = "#d55e00"
_GRID = "#e6e6e6"
_CLASS_COLOURS = {leucocyte.name: leucocyte.colour for leucocyte in LEUCOCYTES}
_GALLERY_COLUMNS = 8
_THUMBNAIL_PIXELS = 200
_NAME_LENGTH = 24
_MARKED_POINTS = 50  # a curve with more points is drawn as a plain line


@dataclass(frozen=True)
class MisclassifiedCell:
    """One cell that was given another class than its own.

    Attributes:
        image: The cell, mode RGB, any size.
        true: Its class, one of `CLASS_NAMES`.
        given: The class it was given, one of `CLASS_NAMES`.
        probability: Of the given class, 0 to 1.
        name: What a person finds the image by, usually the file name.
    """

    image: PIL.Image.Image
    true: str
    given: str
    probability: float
    name: str


def confusion_matrix_figure(matrix: np.ndarray) -> Figure:
    """Counts and row percentages; colour is the share of the true class. A class without cells has an empty row.

    Args:
        matrix: Counts, (5, 5), a row per true and a column per given class, in the order of `CLASS_NAMES`.
    """
    matrix = np.asarray(matrix)
    totals = matrix.sum(axis=1)
    # A row without cells has no shares: dividing by 1 keeps its zeros, and it is not drawn.
    shares = matrix / np.maximum(totals, 1)[:, None]

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    colours = ScalarMappable(Normalize(0, 1), colormaps["Blues"])
    axes.imshow(colours.to_rgba(shares))
    for row, total in enumerate(totals):
        if total == 0:
            _draw_empty_row(axes, row)
            continue
        for column in range(len(CLASS_NAMES)):
            _draw_count(axes, row, column, matrix[row, column], shares[row, column])

    ticks = range(len(CLASS_NAMES))
    axes.set_xticks(ticks, CLASS_NAMES, fontsize=9)
    axes.set_yticks(
        ticks, [f"{name}\n(n = {total})" for name, total in zip(CLASS_NAMES, totals, strict=True)], fontsize=9
    )
    axes.set_xlabel("given class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    _draw_cell_borders(axes)
    beside = axes.inset_axes((1.04, 0, 0.045, 1))  # as high as the matrix, whatever the layout makes of it
    bar = figure.colorbar(colours, cax=beside, format=PercentFormatter(1, decimals=0))
    bar.ax.tick_params(labelsize=8)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


def _draw_count(axes: Axes, row: int, column: int, count: int, share: float) -> None:
    if count == 0:
        axes.text(column, row, "0", ha="center", va="center", color=_FAINT, fontsize=9)
        return
    colour = "white" if share > 0.55 else _INK  # Blues is dark enough for white from about there
    axes.text(column, row - 0.1, f"{count}", ha="center", va="center", color=colour, fontsize=12)
    axes.text(column, row + 0.2, f"{share:.1%}", ha="center", va="center", color=colour, fontsize=8)


def _draw_empty_row(axes: Axes, row: int) -> None:
    width = len(CLASS_NAMES)
    strip = Rectangle((-0.48, row - 0.48), width - 0.04, 0.96, facecolor=_EMPTY, edgecolor="none")
    strip.set_zorder(2.9)  # above the borders between columns, below the text
    axes.add_patch(strip)
    axes.text((width - 1) / 2, row, "no cells of this class", ha="center", va="center", color=_FAINT, fontsize=9)


def _draw_cell_borders(axes: Axes) -> None:
    borders = np.arange(len(CLASS_NAMES) + 1) - 0.5
    axes.set_xticks(borders, minor=True)
    axes.set_yticks(borders, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def training_curves_figure(log_history: Sequence[dict]) -> Figure:
    """Loss, validation scores and learning rate over the epochs of a run; a panel without figures says so.

    Args:
        log_history: `Trainer.state.log_history`: entries with `epoch` and any of `loss`, `learning_rate`, `eval_loss`,
            `eval_macro_f1`, `eval_accuracy`. Others, such as the closing summary, are passed over.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)
    loss, scores, rate = figure.subplots(1, 3)

    _draw_curve(loss, log_history, "loss", "training", color=_TRAINING, marker="o")
    _draw_curve(loss, log_history, "eval_loss", "validation", color=_VALIDATION, marker="o")
    _finish_curves(loss, "loss", include=0)

    _draw_curve(scores, log_history, "eval_macro_f1", "macro F1", color=_VALIDATION, marker="o")
    _draw_curve(scores, log_history, "eval_accuracy", "accuracy", color=_SECOND_SCORE, marker="s", linestyle="--")
    _mark_best(scores, log_history)
    _finish_curves(scores, "validation score", include=1)

    _draw_curve(rate, log_history, "learning_rate", "learning rate", color=_TRAINING, marker="o")
    _finish_curves(rate, "learning rate", include=0)
    return figure


def _series(log_history: Sequence[dict], key: str) -> tuple[list[float], list[float]]:
    entries = [(entry["epoch"], entry[key]) for entry in log_history if key in entry]
    return [epoch for epoch, _ in entries], [value for _, value in entries]


def _draw_curve(axes: Axes, log_history: Sequence[dict], key: str, label: str, **style: str) -> None:
    epochs, values = _series(log_history, key)
    if epochs:
        size = 4 if len(epochs) <= _MARKED_POINTS else 0
        axes.plot(epochs, values, label=label, markersize=size, linewidth=1.5, **style)


def _mark_best(axes: Axes, log_history: Sequence[dict]) -> None:
    """The checkpoint that is kept is the one with the best macro F1: ring it."""
    epochs, values = _series(log_history, "eval_macro_f1")
    if not epochs:
        return
    best = int(np.argmax(values))
    label = f"best: {values[best]:.3f}, epoch {epochs[best]:g}"
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgecolor": _INK}
    axes.plot(epochs[best], values[best], linestyle="none", label=label, **ring)


def _finish_curves(axes: Axes, label: str, include: float) -> None:
    """Axes, grid and legend; the value `include` is always within sight, so that a flat curve looks flat."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    if not axes.lines:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=_FAINT)
        return
    axes.update_datalim([(0, include)])
    axes.autoscale_view()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    exponents = ScalarFormatter(useMathText=True)
    exponents.set_powerlimits((-3, 4))
    axes.yaxis.set_major_formatter(exponents)
    _draw_grid(axes)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=9)


def _draw_grid(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def reliability_figure(before: ReliabilityBins, after: ReliabilityBins) -> Figure:
    """Share of right answers against the probability they were given, before and after the temperature.

    A dot on the dashed line is calibrated, one below it claims too much. At the foot of a bar stands how many images
    it rests on.
    """
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    _draw_reliability(left, before, "before")
    _draw_reliability(right, after, "after")
    left.set_ylabel("share that is right")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_reliability(axes: Axes, bins: ReliabilityBins, when: str) -> None:
    widths = bins.high - bins.low
    style = {"color": "#a6cbe3", "edgecolor": "white", "linewidth": 1}
    axes.bar(bins.low, bins.accuracy, widths, align="edge", label="share that is right, and number of images", **style)
    axes.plot(bins.confidence, bins.accuracy, "o", color=_VALIDATION, markersize=5, label="at the mean probability")
    axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1, label="perfectly calibrated")
    for low, width, count in zip(bins.low, widths, bins.count, strict=True):
        axes.text(low + width / 2, 0.02, f"{count}", ha="center", va="bottom", color=_INK, fontsize=8)
    axes.set_title(f"{when} calibration: ECE {bins.calibration_error:.3f}", fontsize=11, color=_INK)
    axes.set_xlabel("probability of the given class")
    axes.set(xlim=(1 / len(CLASS_NAMES) - 0.02, 1.02), ylim=(0, 1.04))  # the likeliest of five has at least 1/5
    _draw_grid(axes)


def risk_coverage_figure(
    curve: RiskCoverage,
    *,
    threshold: float,
    coverage: float,
    error: float | None,
    interval: Interval = None,
    target_error: float | None = None,
) -> Figure:
    """Error rate against the share of images that is answered; the review threshold and its target are marked.

    Args:
        curve: From `risk_coverage`.
        threshold: Probability below which a person should look.
        coverage, error: Share of images that is accepted and how many of those are wrong, 0 to 1. Where unfamiliar
            images are held back too, that point may lie beside the curve. `error` None where none is accepted.
        interval: Of `error`, drawn as a bar.
        target_error: The error rate that the threshold was chosen for.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.coverage, curve.error, color=_VALIDATION, linewidth=1.5, label="the most probable answers first")
    if target_error is not None:
        axes.axhline(target_error, color=_INK, linestyle="--", linewidth=1, label=f"target: {target_error:.1%} wrong")
    if error is None:
        axes.plot([], [], "o", color=_SECOND_SCORE, label=f"review below {threshold:.2f}: none accepted")
    else:
        label = f"review below {threshold:.2f}: {coverage:.1%} accepted, {error:.1%} of them wrong"
        axes.plot(coverage, error, "o", color=_SECOND_SCORE, markersize=7, label=label)
    if interval is not None:
        axes.vlines(coverage, *interval, color=_SECOND_SCORE, linewidth=1.5)
    axes.set_xlabel("share of images accepted")
    axes.set_ylabel("share of those that is wrong")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_xlim(0, 1.02)
    # The first few images of a curve jump between 0 and 100 %: what matters lies below.
    top = 1.25 * max(curve.error[-1], error or 0, target_error or 0, interval[1] if interval else 0, 0.005)
    axes.set_ylim(-0.02 * top, top)
    _draw_grid(axes)
    figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    return figure


def misclassified_figure(cells: Sequence[MisclassifiedCell], total: int | None = None) -> Figure:
    """A gallery of the most confident mistakes, at most `GALLERY_SIZE` of them, most confident first.

    Args:
        cells: The mistakes, in any order.
        total: How many mistakes there were, where `cells` holds only the most confident of them: a caller need not
            read thousands of images of which 40 are shown.
    """
    total = len(cells) if total is None else total
    if not cells:
        figure = Figure(figsize=(5.0, 1.6), layout="constrained")
        figure.text(0.5, 0.5, "No cell was misclassified.", ha="center", va="center", fontsize=12, color=_INK)
        return figure

    shown = sorted(cells, key=lambda cell: cell.probability, reverse=True)[:GALLERY_SIZE]
    columns = max(3, min(_GALLERY_COLUMNS, len(shown)))  # the title is as wide as three
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(1.6 * columns, 2.08 * rows + 0.42), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.05)
    figure.suptitle(_gallery_title(len(shown), total), x=0.01, ha="left", fontsize=11, color=_INK)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, cell in zip(grid.flat, shown, strict=False):
        _draw_cell(axes, cell)
    return figure


def _gallery_title(shown: int, total: int) -> str:
    if total == 1:
        return "1 misclassified cell"
    if shown == total:
        return f"{total} misclassified cells, most confident first"
    return f"{shown} of {total} misclassified cells, most confident first"


def _draw_cell(axes: Axes, cell: MisclassifiedCell) -> None:
    size = (_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS)
    axes.imshow(PIL.ImageOps.pad(cell.image, size, color="white"))
    axes.set_title(_shorten(cell.name), fontsize=7, color=_FAINT, pad=3)
    _draw_class_line(axes, 0, f"true: {cell.true}", cell.true)
    _draw_class_line(axes, 1, f"given: {cell.given} {cell.probability:.0%}", cell.given)


def _draw_class_line(axes: Axes, line: int, text: str, name: str) -> None:
    """A square in the class's colour and the text beside it: the lighter colours would be hard to read as text."""
    top = -0.05 - 0.115 * line
    place = {"transform": axes.transAxes, "clip_on": False}
    axes.add_patch(Rectangle((0, top - 0.075), 0.075, 0.075, facecolor=_CLASS_COLOURS[name], **place))
    axes.text(0.11, top - 0.0375, text, va="center_baseline", fontsize=7, color=_INK, **place)


def _shorten(name: str) -> str:
    """The end of a long name, which is where paths and numbered files differ."""
    return name if len(name) <= _NAME_LENGTH else "…" + name[1 - _NAME_LENGTH :]
