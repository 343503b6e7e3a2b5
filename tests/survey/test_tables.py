"""The tables and the plot of a survey."""

import re

import numpy as np
import pytest

from wbc_hf.evaluation import evaluate
from wbc_hf.survey.detectors import DetectorRow
from wbc_hf.survey.running import HOME, Row
from wbc_hf.survey.tables import plot, render


def report(right: float) -> dict:
    """Of fifty cells, ten of each class, of which about that share is answered right."""
    references = np.repeat(np.arange(5), 10)
    wrong = np.random.default_rng(0).random(50) >= right
    given = np.where(wrong, (references + 1) % 5, references)
    metrics = evaluate(references, np.eye(5)[given], leaked=np.zeros(50, dtype=bool)).metrics
    return metrics | {"distinct_cells": {"basophil": 30, "monocyte": 17}}


def row(name: str, right: float, **changes: object) -> Row:
    measured = {
        "name": name,
        "start": "from scratch",
        "training_cells": 3000,
        "seconds": 61.6,
        "resumed": False,
        "images_per_second": 250.4,
        "peak_bytes": 900 * 2**20,
        "parameters": 1234567,
        "reports": {HOME: report(right), "elsewhere": report(right / 2)},
    }
    return Row(**measured | changes)


@pytest.fixture
def rows() -> list[Row]:
    return [row("ekiz-2021", 0.8, resumed=True), row("huang-2012", 0.5, start=""), row("ours", 1.0)]


def lines_of(text: str, title: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith((f"| {title}", f"| After {title}"))]


def test_every_table_names_every_system(rows: list[Row]):
    text = render(rows, [], "PBC")
    # Accuracies, a table for each of two test sets, cost, what was published.
    assert len(lines_of(text, "Ekiz")) == len(lines_of(text, "Huang")) == len(lines_of(text, "Ours")) == 5


def test_figures_stand_with_their_intervals(rows: list[Row]):
    text = render(rows, [], "PBC")
    ours = rows[-1].reports[HOME]
    assert ours["accuracy"] == 1.0
    assert "| 1.000 / 1.000 |" in lines_of(text, "Ours")[0]
    low = 0.025 ** (1 / 50)  # the exact limit of fifty cells without a mistake
    assert f"1.000 ({low:.3f} to 1.000)" in lines_of(text, "Ours")[1]
    accuracy, (low, high) = rows[0].reports[HOME]["accuracy"], rows[0].reports[HOME]["intervals"]["accuracy"]
    assert f"| {accuracy:.3f} ({low:.3f} to {high:.3f}) |" in lines_of(text, "Ekiz")[1]
    assert "### PBC: 50 cells, 47 distinct" in text


def test_figures_are_without_cells_with_near_duplicates_in_training(rows: list[Row]):
    clean = report(0.5)
    mixed = report(1.0) | {"leaked": 7, "without_leaked": {key: clean[key] for key in clean if key != "leaked"}}
    text = render([row("ours", 1.0, reports={HOME: mixed})], [], "PBC")
    assert f"| {clean['accuracy']:.3f} / " in lines_of(text, "Ours")[0]
    assert "Left out of the test split: 7 cells with near-duplicates" in text


def test_the_number_of_training_cells(rows: list[Row]):
    assert "All were trained on 3,000 cells." in render(rows, [], "PBC")


def test_published_figures_say_whether_near_duplicates_were_on_one_side(rows: list[Row]):
    text = render(rows, [], "PBC")
    assert lines_of(text, "Ekiz")[0].endswith("| 0.860 |")
    assert lines_of(text, "Ours")[-1].endswith("| yes |")


def test_cost_says_where_a_time_is_of_a_part_only(rows: list[Row]):
    cost = [lines_of(render(rows, [], "PBC"), title)[3] for title in ("Ekiz", "Huang")]
    assert "| from scratch | at least 62 | 250 | at least 900 | 1,234,567 |" in cost[0]
    assert "| – | 62 | 250 | 900 |" in cost[1]


def test_tables_are_whole(rows: list[Row]):
    detector = DetectorRow(
        photographs=9,
        cells=11,
        found=0.9,
        found_interval=[0.7, 1.0],
        false=0.5,
        false_interval=None,
        name="wang-2006",
        milliseconds=12.3,
        boxes={},
    )
    text = render(rows, [detector], "PBC")
    (line,) = lines_of(text, "Wang")
    assert "| 11 | 0.900 (0.700 to 1.000) | 0.500 | 12 | Wang & Wang 2006" in line
    assert "the 9 photographs of the scoring half" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_plot_has_a_panel_for_each_test_set_and_a_line_for_each_system(rows: list[Row]):
    figure = plot(rows, "PBC")
    home, other = figure.axes
    assert home.get_yticklabels()[0].get_text().startswith("After Ekiz")
    assert home.get_title() == "PBC, test split"
    assert other.get_title() == "elsewhere"
    marks = [line for line in other.lines if line.get_marker() == "o"]
    drawn = [float(line.get_xdata()[0]) for line in marks]
    assert drawn[::2] == [one.reports["elsewhere"]["accuracy"] for one in rows]
    assert drawn[1::2] == [one.reports["elsewhere"]["balanced_accuracy"] for one in rows]
    heights = [float(line.get_ydata()[0]) for line in marks]
    assert heights == sorted(heights, reverse=True)
