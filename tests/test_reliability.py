import warnings

import numpy as np
import pytest

from wbc_hf.evaluation.confidence_intervals import draw_groups
from wbc_hf.evaluation.reliability import (
    brier_interval,
    brier_score,
    calibration_error_interval,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def rows(confidence: np.ndarray) -> np.ndarray:
    """Probabilities that give class 2 with this confidence, above 0.2."""
    probabilities = np.repeat((1 - np.asarray(confidence))[:, None] / 4, 5, axis=1)
    probabilities[:, 2] = confidence
    return probabilities


def calibrated(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(5, 0.3), count)
    labels = (probabilities.cumsum(1) < random.random((count, 1))).sum(1)
    return probabilities, labels


def test_calibration_error_by_hand():
    # two bins of two: 0.5 with one right, 0.9 with none right
    probabilities, labels = rows([0.5, 0.9, 0.5, 0.9]), np.array([2, 0, 0, 1])
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx((0 + 0.9) / 2)
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(0.7 - 0.25)


def test_bins_hold_equally_many():
    # In bins of equal width the first 14 images would have one each.
    confidence = np.append(np.linspace(0.25, 0.95, 14), np.linspace(0.99, 1, 16))
    labels = np.append(np.full(14, 0), np.full(16, 2))  # none right, then all
    wrong, right = confidence[:14].sum(), (1 - confidence[14:]).sum()
    assert expected_calibration_error(rows(confidence), labels) == pytest.approx((wrong + right) / 30)
    mixed = np.tile([0, 2], 15)  # of each pair of neighbours one is right
    gaps = np.abs(confidence.reshape(15, 2).mean(1) - 0.5)
    assert expected_calibration_error(rows(confidence), mixed) == pytest.approx(gaps.mean())


def test_images_of_equal_probability_share_a_bin_whatever_their_order():
    labels = np.repeat([2, 0], 50)
    probabilities = rows(np.full(100, 0.5))
    shuffled = np.random.default_rng(0).permutation(100)
    for order in (np.arange(100), shuffled):
        assert expected_calibration_error(probabilities[order], labels[order]) == pytest.approx(0)


def test_fewer_images_than_bins():
    assert expected_calibration_error(rows([0.4]), np.array([0])) == pytest.approx(0.4)
    assert expected_calibration_error(rows([0.4, 0.8]), np.array([0, 2])) == pytest.approx((0.4 + 0.2) / 2)


def test_diagram_is_in_tenths_without_empty_ones():
    probabilities, labels = rows([0.45, 1.0, 0.41, 0.95]), np.array([2, 2, 0, 2])
    bins = reliability_bins(probabilities, labels)
    assert bins.low.tolist() == [0.4, 0.9]
    assert bins.width == 0.1
    assert bins.count.tolist() == [2, 2]
    assert bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.confidence == pytest.approx([0.43, 0.975])
    assert bins.calibration_error == expected_calibration_error(probabilities, labels)


def test_true_probabilities_have_a_small_error_and_exaggerated_ones_a_large_one():
    probabilities, labels = calibrated(4000)
    sharper = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    assert expected_calibration_error(probabilities, labels) < 0.04
    assert expected_calibration_error(sharper, labels) > 0.1
    assert brier_score(probabilities, labels) < brier_score(sharper, labels)


def test_brier_score_goes_from_0_to_2():
    labels = np.array([0, 1])
    assert brier_score(np.eye(5)[labels], labels) == 0
    assert brier_score(np.eye(5)[[1, 0]], labels) == 2
    assert brier_score(np.full((2, 5), 0.2), labels) == pytest.approx(0.8)


def test_intervals_hold_the_figures_and_widen_with_copies():
    probabilities, labels = calibrated(300)
    copied = np.repeat(np.arange(300), 4)
    weights, fine, coarse = draw_groups(range(300)), draw_groups(range(1200)), draw_groups(copied)
    for score, interval in (
        (expected_calibration_error, calibration_error_interval),
        (brier_score, brier_interval),
    ):
        low, high = interval(probabilities, labels, weights)
        assert 0 <= low < score(probabilities, labels) < high
        believed, grouped = (interval(probabilities[copied], labels[copied], some) for some in (fine, coarse))
        assert grouped[1] - grouped[0] > 1.5 * (believed[1] - believed[0])


def test_the_interval_of_the_calibration_error_lies_around_it():
    """Resampling adds noise, and with it error: unmoved, the limits would lie higher."""
    probabilities, labels = calibrated(300)
    low, high = calibration_error_interval(probabilities, labels, draw_groups(range(300)))
    assert (low + high) / 2 == pytest.approx(expected_calibration_error(probabilities, labels), abs=0.005)


def test_one_group_has_no_intervals():
    probabilities, labels = calibrated(10)
    weights = draw_groups([0] * 10)
    assert calibration_error_interval(probabilities, labels, weights) is None
    assert brier_interval(probabilities, labels, weights) is None


def test_risk_coverage_by_hand():
    probabilities = rows([0.9, 0.5, 0.8, 0.6, 0.7])
    labels = np.array([2, 0, 2, 2, 1])  # the third most and the least confident are wrong
    curve = risk_coverage(probabilities, labels)
    assert curve.coverage == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve.error == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert curve.error_at(0.8) == pytest.approx(1 / 4)
    assert curve.error_at(0.7) == pytest.approx(1 / 4)
    assert curve.error_at(1.0) == pytest.approx(2 / 5)


def test_images_of_equal_confidence_are_accepted_together():
    probabilities = rows([0.9, 0.9, 0.6])
    curve = risk_coverage(probabilities, np.array([2, 0, 2]))
    assert curve.coverage == pytest.approx([2 / 3, 1])
    assert curve.error == pytest.approx([1 / 2, 1 / 3])
