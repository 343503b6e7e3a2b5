"""Matching of boxes, and figures of detectors."""

import pytest

from wbc_hf.evaluation import detection_figures, match_boxes

LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)


def test_a_box_belongs_to_the_one_that_its_middle_lies_in():
    assert match_boxes([LEFT, RIGHT], [(19, 1, 29, 11), (2, 2, 8, 8)]) == [(0, 1), (1, 0)]
    assert match_boxes([LEFT], [(9, 0, 13, 10)]) == []  # they overlap, but the middle lies beyond


def test_each_box_counts_once_and_the_nearest_first():
    assert match_boxes([LEFT], [(0, 0, 4, 4), (1, 1, 9, 9)]) == [(0, 1)]
    assert match_boxes([LEFT, (0, 0, 12, 12)], [(0, 0, 12, 12)]) == [(1, 0)]
    assert match_boxes([], [LEFT]) == match_boxes([LEFT], []) == []


def test_figures_count_cells_and_false_boxes():
    truth = [[LEFT, RIGHT], [LEFT], [], [RIGHT]]
    found = [[LEFT], [LEFT, RIGHT], [RIGHT, LEFT], [RIGHT]]
    figures = detection_figures(truth, found)
    assert (figures.photographs, figures.cells) == (4, 4)
    assert figures.found == pytest.approx(3 / 4)
    assert figures.false == pytest.approx(3 / 4)
    for value, (low, high) in ((figures.found, figures.found_interval), (figures.false, figures.false_interval)):
        assert low < value < high
    assert figures.found_interval[0] >= 0.5  # at worst, only the first photograph is drawn
    assert figures == detection_figures(truth, found)


def test_photographs_are_drawn_and_not_cells():
    """Twenty cells in two photographs tell little more than two photographs."""
    few = detection_figures([[LEFT] * 10, [RIGHT] * 10], [[LEFT] * 10, []])
    many = detection_figures([[LEFT]] * 10 + [[RIGHT]] * 10, [[LEFT]] * 10 + [[]] * 10)
    assert few.found == many.found == 0.5
    assert few.found_interval == [0, 1]
    assert many.found_interval[1] - many.found_interval[0] < 0.6


def test_limits_are_exact_where_no_cell_is_missed_and_no_box_false():
    figures = detection_figures([[LEFT], [RIGHT]] * 15, [[LEFT], [RIGHT]] * 15)
    # 0.025 to the power of 1/30, and Garwood's limit of no event in 30 photographs.
    assert figures.found_interval == pytest.approx([0.8843, 1.0], abs=1e-4)
    assert figures.false_interval == pytest.approx([0.0, 3.6889 / 30], abs=1e-4)


def test_one_photograph_has_no_interval():
    figures = detection_figures([[LEFT]], [[LEFT]])
    assert (figures.found, figures.found_interval, figures.false_interval) == (1, None, None)
