import numpy as np
import pytest

from wbc_hf.training.search_figure import Trial, search_figure

HEADINGS = {"learning_rate": "learning rate", "freeze": "freeze", "weight_decay": "weight decay"}


def trials(*figures: float | None) -> list[Trial]:
    """Trials with these figures; without one they failed, and every third was pruned."""
    made = []
    for index, figure in enumerate(figures):
        state = "failed" if figure is None else "pruned" if index % 3 == 2 else "finished"
        values = {"learning_rate": 10.0 ** (index - 3), "freeze": ("stage3", "none")[index % 2], "weight_decay": 0.1}
        made.append(Trial(index + 1, state, 3, figure, values, 2.5))
    return made


@pytest.mark.parametrize(
    ("metric", "best", "course"),
    [("macro_f1", 3, [0.4, 0.4, 0.6, 0.6, 0.6]), ("loss", 1, [0.4, 0.2, 0.2, 0.2, 0.2])],
)
def test_a_panel_for_the_course_and_one_for_each_argument(metric: str, best: int, course: list[float], tmp_path):
    shown = trials(0.4, 0.2, 0.9, 0.6, 0.3, None)
    figure = search_figure(shown, shown[best], HEADINGS, metric)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_xlabel() for axes in panels] == ["trial", *HEADINGS.values()]
    so_far = next(line for line in panels[0].lines if line.get_label() == "best so far")
    np.testing.assert_array_equal(so_far.get_ydata(), [*course[:4], course[-1]])
    for axes in panels:
        counts = {line.get_label(): len(line.get_xdata()) for line in axes.lines}
        assert (counts["finished"], counts["pruned"], counts["failed"], counts["best"]) == (4, 1, 1, 1)
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["none", "stage3"]
    assert panels[1].get_xscale() == "log"
    figure.savefig(tmp_path / "trials.png")


def test_one_trial_makes_a_figure():
    (only,) = trials(0.5)
    figure = search_figure([only], only, HEADINGS, "accuracy")
    assert figure.axes[0].get_ylabel() == "accuracy"
