"""Thresholds fitted on laboratories that were left out of training."""

import numpy as np
import pytest
from scipy.special import softmax

from wbc_hf.modeling import Calibration, LeftOut, OutOfDistributionScore, recalibrate
from wbc_hf.modeling.unseen_laboratories import TARGET_ELSEWHERE, fit_temperature_elsewhere


def laboratory(name: str, seed: int, *, sharpness: float, distance: float = 0.5, cells: int = 2000) -> LeftOut:
    """Logits whose probabilities are right once they are divided by `sharpness`."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(cells, 5)) * 3
    labels = np.array([rng.choice(5, p=row) for row in softmax(honest, axis=1)])
    return LeftOut(name, honest * sharpness, labels, rng.normal(distance, 0.05, cells))


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


def test_the_temperature_is_that_of_laboratories_that_count_alike(seed: int):
    parts = [laboratory("a", seed, sharpness=3), laboratory("b", seed + 1, sharpness=3, cells=4000)]
    assert fit_temperature_elsewhere(parts) == pytest.approx(3, rel=0.2)


def test_enough_of_what_is_accepted_is_right(seed: int):
    parts = [laboratory("a", seed, sharpness=2), laboratory("b", seed + 1, sharpness=4)]
    factor, fitted = recalibrate(calibration(), parts)
    assert fitted.temperature == pytest.approx(1.5 * factor)
    assert fitted.target_reached
    assert fitted.left_out == ("a", "b")
    rates = []
    for each in parts:
        probabilities = softmax(each.logits / factor, axis=1)
        accepted = probabilities.max(1) >= fitted.review_threshold
        rates.append((probabilities.argmax(1) == each.labels)[accepted].mean())
        assert accepted.mean() > 0.03
    assert np.mean(rates) == pytest.approx(TARGET_ELSEWHERE, abs=0.01)


def test_another_stain_alone_makes_few_cells_unfamiliar(seed: int):
    parts = [laboratory("a", seed, sharpness=2, distance=1.1), laboratory("b", seed, sharpness=2, distance=2.0)]
    _, fitted = recalibrate(calibration(), parts)
    farthest = fitted.out_of_distribution_threshold / 0.2
    assert 2.0 < farthest < 2.2
    _, near = recalibrate(calibration(), [laboratory("a", seed, sharpness=2)])
    assert near.out_of_distribution_threshold == 0.2


def test_where_no_threshold_reaches_the_target_nothing_is_accepted(seed: int):
    rng = np.random.default_rng(seed)
    guesses = LeftOut("a", rng.normal(size=(300, 5)) * 5, rng.integers(0, 5, 300), np.zeros(300))
    _, fitted = recalibrate(calibration(), [guesses])
    assert not fitted.target_reached
    assert fitted.review_threshold == 1.0
