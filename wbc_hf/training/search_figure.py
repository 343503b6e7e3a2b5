"""Trials of a search, and their figure: how the best came about, and what each argument had to do with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wbc_hf.modeling import FREEZE_DEPTHS

_INK = "#222222"
_FAINT = "#767676"
_GRID = "#e6e6e6"
_FINISHED = "#0072b2"
_PRUNED = "#a6cbe3"
_FAILED = "#d55e00"
_COLUMNS = 4


@dataclass(frozen=True)
class Trial:
    """One trial that is over.

    Attributes:
        number: From 1, in the order in which they were begun.
        state: "finished", "pruned" (stopped, since half of the finished ones were better by then) or "failed".
        epochs: How many it was judged after.
        value: Its best figure on validation; None where it has no finite one.
        values: Of the arguments that were varied.
        seconds: From its first to its last moment.
        failure: Why it failed; "" where it did not.
    """

    number: int
    state: str
    epochs: int
    value: float | None
    values: Mapping[str, float | int | str]
    seconds: float
    failure: str = ""


def search_figure(trials: Sequence[Trial], best: Trial, headings: Mapping[str, str], metric: str) -> Figure:
    """The best value so far over the trials, and a panel for each argument against the figure of every trial.

    Args:
        trials: In their order.
        best: One of them; it is ringed.
        headings: What to write below the panel of each argument that was varied, by its name.
        metric: What the trials were judged by; of a loss less is better.
    """
    panels = 1 + len(headings)
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.0 * columns, 2.7 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    _draw_course(grid.flat[0], trials, best, metric)
    for axes, (name, heading) in zip(grid.flat[1:], headings.items(), strict=False):
        _draw_argument(axes, trials, best, name)
        axes.set_xlabel(heading)
    for axes in grid.flat[panels:]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(spelt(metric))
    figure.legend(
        *grid.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False, fontsize=9
    )
    return figure


def _draw_course(axes: Axes, trials: Sequence[Trial], best: Trial, metric: str) -> None:
    finished = [trial for trial in trials if trial.state == "finished"]
    so_far = (np.minimum if metric.endswith("loss") else np.maximum).accumulate([trial.value for trial in finished])
    numbers = [trial.number for trial in finished]
    axes.step(
        [*numbers, len(trials)], [*so_far, so_far[-1]], where="post", color=_INK, linewidth=1, label="best so far"
    )
    _draw_trials(axes, trials, best, lambda trial: trial.number)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _draw_argument(axes: Axes, trials: Sequence[Trial], best: Trial, name: str) -> None:
    if name in ("freeze", "per_device_train_batch_size"):
        found = {trial.values[name] for trial in trials}
        order = [depth for depth in FREEZE_DEPTHS if depth in found] if name == "freeze" else sorted(found)
        _draw_trials(axes, trials, best, lambda trial: order.index(trial.values[name]))
        crowded = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(order) > 4 else {}
        axes.set_xticks(range(len(order)), list(map(str, order)), fontsize=9, **crowded)
        axes.set_xlim(-0.5, len(order) - 0.5)
        return
    _draw_trials(axes, trials, best, lambda trial: trial.values[name])
    if name == "learning_rate":
        axes.set_xscale("log")


def _draw_trials(axes: Axes, trials: Sequence[Trial], best: Trial, place: Callable[[Trial], float]) -> None:
    styles = (("finished", _FINISHED, 3), ("pruned", _PRUNED, 2))
    for state, colour, order in styles:
        shown = [trial for trial in trials if trial.state == state]
        if shown:
            axes.plot(
                [place(trial) for trial in shown],
                [trial.value for trial in shown],
                "o",
                color=colour,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.5,
                label=state,
                zorder=order,
            )
    failed = [place(trial) for trial in trials if trial.state == "failed"]
    if failed:
        # They have no figure: at the foot, wherever that is.
        place_at_foot = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(failed, [0.02] * len(failed), "x", color=_FAILED, markersize=6, label="failed", **place_at_foot)
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgecolor": _INK}
    axes.plot(place(best), best.value, linestyle="none", label="best", zorder=4, **ring)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def spelt(metric: str) -> str:
    """As in the report: "macro F1"."""
    return metric.replace("_", " ").replace("f1", "F1")
