"""Thresholds fitted on laboratories that were left out of training."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from wbc_hf.modeling import TARGET_ELSEWHERE, Calibration, LeftOut, OutOfDistributionScore, recalibrate


def laboratory(name: str, seed: int, *, sharpness: float, distance: float = 0.5, cells: int = 2000) -> LeftOut:
    """Logits whose probabilities are right once they are divided by `sharpness`; all orientations tell more."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(cells, 5)) * 3
    labels = np.array([rng.choice(5, p=row) for row in softmax(honest, axis=1)])
    averaged = (honest + 2 * np.eye(5)[labels]) * sharpness
    return LeftOut(name, honest * sharpness, averaged, labels, rng.normal(distance, 0.05, cells))


def calibration() -> Calibration:
    return Calibration(
        temperature=1.5,
        review_threshold=0.4,
        target_reached=True,
        out_of_distribution_threshold=0.2,
        fitted_on=100,
        trained_on="a, b",
        out_of_distribution_score=OutOfDistributionScore.fit(np.random.default_rng(0).normal(size=(20, 8))),
    )


def test_laboratories_count_alike_in_the_temperature(seed: int):
    """Of a large and a small one it lies between theirs, and not at that of the large one."""
    large, small = laboratory("a", seed, sharpness=1, cells=6000), laboratory("b", seed + 1, sharpness=4, cells=600)
    alone = [recalibrate(calibration(), [each])[0] for each in (large, small)]
    assert alone == [pytest.approx(1, rel=0.15), pytest.approx(4, rel=0.25)]
    factor, _ = recalibrate(calibration(), [large, small])
    assert 1.5 < factor < 3.5


def test_enough_of_what_is_accepted_is_right(seed: int):
    parts = [laboratory("a", seed, sharpness=2), laboratory("b", seed + 1, sharpness=4)]
    factor, fitted = recalibrate(calibration(), parts)
    assert fitted.temperature == pytest.approx(1.5 * factor)
    assert fitted.target_reached
    assert fitted.left_out == ("a", "b")
    rates, shares = [], []
    for each in parts:
        probabilities = softmax(each.logits / factor, axis=1)
        accepted = probabilities.max(1) >= fitted.review_threshold
        rates.append((probabilities.argmax(1) == each.labels)[accepted].mean())
        shares.append(accepted.mean())
    assert np.average(rates, weights=shares) == pytest.approx(TARGET_ELSEWHERE, abs=0.01)
    assert min(shares) > 0.03
    assert fitted.tta_below > fitted.review_threshold


def test_in_all_orientations_more_is_accepted_and_enough_of_all_that_is_accepted_is_right(seed: int):
    parts = [laboratory("a", seed, sharpness=2, distance=1.5), laboratory("b", seed + 1, sharpness=2, distance=1.5)]
    factor, fitted = recalibrate(calibration(), parts)
    farthest = fitted.out_of_distribution_threshold / 0.2
    assert fitted.tta_distance == pytest.approx(1 / farthest)
    at_once, accepted, right = [], [], []
    for each in parts:
        probabilities, averaged = softmax(each.logits / factor, axis=1), softmax(each.tta_logits / factor, axis=1)
        sure = probabilities.max(1) >= fitted.tta_below
        again = fitted.statuses(averaged.max(1), each.distances / farthest, [True] * 2000, tta=True)
        at_once.append(probabilities.max(1) >= fitted.review_threshold)
        accepted.append(sure | (np.array(again) == "confident"))
        right.append(np.where(sure, probabilities.argmax(1), averaged.argmax(1)) == each.labels)
    assert np.mean(right, where=accepted) == pytest.approx(TARGET_ELSEWHERE, abs=0.01)
    assert np.mean(accepted) > 1.2 * np.mean(at_once)


def test_a_doubtful_cell_like_those_at_home_is_not_accepted_for_its_orientations():
    fitted = replace(calibration(), tta_threshold=0.2, tta_distance=0.6)
    statuses = fitted.statuses(np.full(3, 0.3), np.array([0.5, 0.7, 1.1]), [True] * 3, tta=True)
    assert statuses == ["review", "confident", "unfamiliar"]


def test_one_threshold_serves_for_both_where_none_was_fitted():
    one = calibration()
    for tta in (False, True):
        assert one.statuses(np.array([0.39, 0.41]), np.zeros(2), [True] * 2, tta=tta) == ["review", "confident"]


def test_another_stain_alone_makes_few_cells_unfamiliar(seed: int):
    parts = [laboratory("a", seed, sharpness=2, distance=1.1), laboratory("b", seed, sharpness=2, distance=2.0)]
    _, fitted = recalibrate(calibration(), parts)
    farthest = fitted.out_of_distribution_threshold / 0.2
    assert 2.0 < farthest < 2.2
    _, near = recalibrate(calibration(), [laboratory("a", seed, sharpness=2)])
    assert near.out_of_distribution_threshold == 0.2


@pytest.mark.parametrize("offset", range(5))
def test_where_the_model_knows_nothing_nothing_is_accepted(seed: int, offset: int):
    """Also where the surest few are right by luck."""
    rng = np.random.default_rng(seed + offset)
    logits = rng.normal(size=(300, 5)) * 5
    _, fitted = recalibrate(calibration(), [LeftOut("a", logits, logits, rng.integers(0, 5, 300), np.zeros(300))])
    assert not fitted.target_reached
    assert fitted.review_threshold == fitted.tta_below == fitted.tta_threshold == 1.0
