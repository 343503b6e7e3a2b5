"""The figures of a report. Each function draws what it is given and returns a Figure: `figure.savefig(path)`.

Figures are made through matplotlib's object API, so nothing global is left behind and no display is needed. Only
`write_report` imports this module, when it needs it: matplotlib takes a while.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter
from sklearn.metrics import ConfusionMatrixDisplay

from wbc_hf.evaluation.evaluation import Evaluation
from wbc_hf.evaluation.reliability import ReliabilityBins, RiskCoverage
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES

GALLERY_SIZE = 40

_INK = "#222222"
_FAINT = "#767676"
_TRAINING = "#767676"
_VALIDATION = "#0072b2"
_SECOND_SCORE = "#d55e00"
_GRID = "#e6e6e6"
_CLASS_COLOURS = {leucocyte.name: leucocyte.colour for leucocyte in LEUCOCYTES}
_GALLERY_COLUMNS = 8
_THUMBNAIL_PIXELS = 200
_NAME_LENGTH = 24
_MARKED_POINTS = 50  # a curve with more points is drawn as a plain line


def confusion_matrix_figure(matrix: np.ndarray) -> Figure:
    """Draw counts and row percentages; the colour is the share of the true class.

    Args:
        matrix: Counts, (5, 5), a row per true and a column per predicted class, in the order of `CLASS_NAMES`.
    """
    totals = matrix.sum(axis=1)
    # A row without cells has no shares: dividing by 1 keeps its zeros.
    shares = matrix / np.maximum(totals, 1)[:, None]
    figure = Figure(figsize=(6.8, 4.8), layout="constrained")
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=CLASS_NAMES)
    limits, size = {"vmin": 0, "vmax": 1}, {"fontsize": 9}
    display.plot(cmap="Blues", ax=axes, im_kw=limits, text_kw=size, colorbar=False)
    for place, text in np.ndenumerate(display.text_):
        text.set_text(f"{matrix[place]}\n{shares[place]:.1%}" if matrix[place] else "0")
    names = [f"{name}\n(n = {total})" for name, total in zip(CLASS_NAMES, totals, strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0, labelsize=9)
    figure.colorbar(display.im_, ax=axes, format=PercentFormatter(1, decimals=0), label="share of the true class")
    return figure


def training_curves_figure(log_history: Sequence[dict]) -> Figure:
    """Draw loss, validation scores and learning rate over the epochs of a run; a panel without figures says so.

    Args:
        log_history: `Trainer.state.log_history`: entries with `epoch` and any of `loss`, `learning_rate`, `eval_loss`,
            `eval_macro_f1`, `eval_accuracy`. Others, such as the closing summary, are passed over.
    """
    figure = Figure(figsize=(10.5, 3.4), layout=ConstrainedLayoutEngine(w_pad=0.12))
    loss, scores, rate = figure.subplots(1, 3)

    _draw_curve(loss, log_history, "loss", "training", color=_TRAINING, marker="o")
    _draw_curve(loss, log_history, "eval_loss", "validation", color=_VALIDATION, marker="o")
    _finish_curves(loss, "loss", include=0)

    _draw_curve(scores, log_history, "eval_macro_f1", "macro F1", color=_VALIDATION, marker="o")
    _draw_curve(scores, log_history, "eval_accuracy", "accuracy", color=_SECOND_SCORE, marker="s", linestyle="--")
    _mark_highest(scores, log_history)
    _finish_curves(scores, "validation score", include=1)

    _draw_curve(rate, log_history, "learning_rate", "learning rate", color=_TRAINING, marker="o")
    _finish_curves(rate, "learning rate", include=0)
    return figure


def _series(log_history: Sequence[dict], key: str) -> tuple[list[float], list[float]]:
    entries = [(entry["epoch"], entry[key]) for entry in log_history if key in entry]
    return [epoch for epoch, _ in entries], [value for _, value in entries]


def _draw_curve(axes: Axes, log_history: Sequence[dict], key: str, label: str, **style: Any) -> None:
    epochs, values = _series(log_history, key)
    if epochs:
        size = 4 if len(epochs) <= _MARKED_POINTS else 0
        axes.plot(epochs, values, label=label, markersize=size, linewidth=1.5, **style)


def _mark_highest(axes: Axes, log_history: Sequence[dict]) -> None:
    """Ring the highest macro F1: that checkpoint is kept, unless --metric_for_best_model names another metric."""
    epochs, values = _series(log_history, "eval_macro_f1")
    if not epochs:
        return
    highest = int(np.argmax(values))
    label = f"highest: {values[highest]:.3f}, epoch {epochs[highest]:g}"
    axes.plot(epochs[highest], values[highest], "o", label=label, markersize=10, fillstyle="none", color=_INK)


def _finish_curves(axes: Axes, label: str, include: float) -> None:
    """Axes, grid and legend; the value `include` is always within sight, so that a flat curve looks flat."""
    axes.set(xlabel="epoch", ylabel=label)
    _draw_grid(axes)
    if not axes.lines:
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
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=9)


def _draw_grid(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def reliability_figure(before: ReliabilityBins, after: ReliabilityBins) -> Figure:
    """Draw reliability diagrams before and after temperature scaling.

    A dot on the dashed line is calibrated, one below it is overconfident. At the foot of a bar stands the number of
    images in the bin.
    """
    figure = Figure(figsize=(9.0, 4.4), layout=ConstrainedLayoutEngine(w_pad=0.12))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    _draw_reliability(left, before, "before")
    _draw_reliability(right, after, "after")
    left.set_ylabel("accuracy")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_reliability(axes: Axes, bins: ReliabilityBins, when: str) -> None:
    style: dict[str, Any] = {"color": "#a6cbe3", "edgecolor": "white", "linewidth": 1}
    bars = axes.bar(bins.low, bins.accuracy, bins.width, align="edge", label="accuracy, and number of images", **style)
    for bar, count in zip(bars, bins.count, strict=True):
        middle = bar.get_x() + bar.get_width() / 2
        axes.text(middle, 0.02, f"{count}", ha="center", va="bottom", color=_INK, fontsize=8)
    axes.plot(bins.confidence, bins.accuracy, "o", color=_VALIDATION, markersize=5, label="at the mean confidence")
    axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1, label="perfectly calibrated")
    axes.set_title(f"{when} temperature scaling: ECE {bins.calibration_error:.3f}", fontsize=11, color=_INK)
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.set(xlim=(1 / len(CLASS_NAMES) - 0.02, 1.02), ylim=(0, 1.04))  # the likeliest of five has at least 1/5
    _draw_grid(axes)


def risk_coverage_figure(curve: RiskCoverage, review: dict) -> Figure:
    """Draw a risk–coverage curve, and on it what is accepted without review, and the target.

    Args:
        curve: From `risk_coverage`.
        review: As in `Evaluation.metrics`. What is accepted may lie beside the curve, since images that are out of
            distribution go to review whatever their confidence.
    """
    accuracy, interval = review["accuracy_of_accepted"], review["intervals"]["accuracy_of_accepted"]
    coverage, target = review["coverage"], review["target_accuracy"]
    below = "" if review["threshold"] is None else f" below {review['threshold']:.2f}"
    drawn = [curve.error[-1], 1 - target, 0.005]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.coverage, curve.error, color=_VALIDATION, linewidth=1.5, label="by confidence")
    axes.axhline(1 - target, color=_INK, linestyle="--", linewidth=1, label=f"target: error rate {1 - target:.1%}")
    if accuracy is None:
        axes.plot([], [], "o", color=_SECOND_SCORE, label=f"review{below}: none accepted")
    else:
        label = f"review{below}: {coverage:.1%} accepted, error rate {1 - accuracy:.1%}"
        axes.plot(coverage, 1 - accuracy, "o", color=_SECOND_SCORE, markersize=7, label=label)
        drawn.append(1 - accuracy)
    if interval is not None:
        axes.vlines(coverage, 1 - interval[1], 1 - interval[0], color=_SECOND_SCORE, linewidth=1.5)
        drawn.append(1 - interval[0])
    axes.set(xlabel="coverage: share of images accepted", ylabel="risk: error rate of those", xlim=(0, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    # The first few images of a curve jump between 0 and 100 %: what matters lies below.
    top = 1.25 * max(drawn)
    axes.set_ylim(-0.02 * top, top)
    _draw_grid(axes)
    figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    return figure


def misclassified_figure(
    evaluation: Evaluation, names: Sequence[str], image_at: Callable[[int], PIL.Image.Image]
) -> Figure:
    """Draw a gallery of the most confident mistakes, at most `GALLERY_SIZE` of them, most confident first.

    Args:
        evaluation: Of n images.
        names: What a person finds each image by, n of them.
        image_at: Returns an image, mode RGB, by its index; called only for what is shown.
    """
    confidence = evaluation.probabilities.max(axis=1)
    mistakes = np.flatnonzero(evaluation.given != evaluation.labels)
    shown = mistakes[np.argsort(-confidence[mistakes], kind="stable")][:GALLERY_SIZE]
    if not len(shown):
        figure = Figure(figsize=(5.0, 1.6), layout="constrained")
        figure.text(0.5, 0.5, "No cell was misclassified.", ha="center", va="center", fontsize=12, color=_INK)
        return figure
    columns = max(3, min(_GALLERY_COLUMNS, len(shown)))  # the title is as wide as three
    rows = -(-len(shown) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05)
    figure = Figure(figsize=(1.6 * columns, 2.08 * rows + 0.42), layout=layout)
    of_all = f"{len(shown)} of " if len(shown) < len(mistakes) else ""
    title = f"{of_all}{len(mistakes)} misclassified cells, most confident first"
    title = "1 misclassified cell" if len(mistakes) == 1 else title
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown, strict=False):
        true, given = CLASS_NAMES[evaluation.labels[index]], CLASS_NAMES[evaluation.given[index]]
        image = PIL.ImageOps.pad(image_at(int(index)), (_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS), color="white")
        axes.imshow(np.asarray(image))
        axes.set_title(_shorten(names[index]), fontsize=7, color=_FAINT, pad=3)
        _draw_class_line(axes, 0, f"true: {true}", true)
        _draw_class_line(axes, 1, f"pred.: {given} {confidence[index]:.0%}", given)
    return figure


def _draw_class_line(axes: Axes, line: int, text: str, name: str) -> None:
    """A square in the class's colour and the text beside it: the lighter colours would be hard to read as text."""
    top = -0.05 - 0.115 * line
    axes.add_patch(
        Rectangle(
            (0, top - 0.075), 0.075, 0.075, facecolor=_CLASS_COLOURS[name], transform=axes.transAxes, clip_on=False
        )
    )
    axes.text(0.11, top - 0.0375, text, va="center_baseline", fontsize=7, color=_INK, transform=axes.transAxes)


def _shorten(name: str) -> str:
    """The end of a long name, which is where paths and numbered files differ."""
    return name if len(name) <= _NAME_LENGTH else "…" + name[1 - _NAME_LENGTH :]
