"""Distance to the laboratories that a model has learned."""

import numpy as np
import pytest

from wbc_hf.modeling import MIN_DROP, LaboratoryDistance, OutOfDistributionScore
from wbc_hf.modeling.laboratory_distance import drop_limit

SIZES = {"even": 0.3, "varied": 1.5}  # standard deviations of two laboratories
CENTRES = {"even": 0.0, "varied": 12.0}
Fitted = tuple[np.random.Generator, OutOfDistributionScore, LaboratoryDistance]


def cells(rng: np.random.Generator, laboratory: str, count: int, shift: float = 0.0) -> np.ndarray:
    features = rng.normal(0, SIZES[laboratory], (count, 8))
    features[:, 0] += CENTRES[laboratory]
    features[:, 1] += shift
    return features.astype(np.float32)


@pytest.fixture
def fitted(seed: int) -> Fitted:
    rng = np.random.default_rng(seed)
    score = OutOfDistributionScore.fit(np.concatenate([cells(rng, name, 300) for name in SIZES]))
    distance = LaboratoryDistance.fit(
        score,
        [name for name in SIZES for _ in range(300)],
        np.concatenate([cells(rng, name, 200) for name in SIZES]),
        np.tile(np.arange(5), 80),
        [name for name in SIZES for _ in range(200)],
    )
    return rng, score, distance


def test_each_laboratory_is_measured_by_itself(fitted: Fitted):
    """A step that is usual in the laboratory that varies is not in the one that does not."""
    rng, score, distance = fitted
    medians = {
        (name, shift): np.median(distance(score.distances(cells(rng, name, 40, shift))))
        for name in SIZES
        for shift in (0, 2)
    }
    assert medians["even", 0] == pytest.approx(1, rel=0.25)
    assert medians["varied", 0] == pytest.approx(1, rel=0.25)
    assert max(medians["even", 0], medians["varied", 0]) < distance.limit < medians["even", 2]
    assert medians["varied", 2] < 1.7


def test_drops_of_the_laboratories_themselves_lie_below_the_limit(fitted: Fitted):
    rng, score, distance = fitted
    for name in SIZES:
        drops = [np.median(distance(score.distances(cells(rng, name, MIN_DROP)))) for _ in range(200)]
        assert np.mean(np.array(drops) > distance.limit) <= 0.08


def test_a_rare_class_does_not_set_the_limit(seed: int):
    rng = np.random.default_rng(seed)
    distances, labels = rng.normal(1, 0.1, 200), rng.integers(0, 4, 200)
    distances[0], labels[0] = 9.0, 4
    assert drop_limit(distances, labels) < 1.3


def test_one_laboratory_is_fitted_on_its_references(seed: int):
    rng = np.random.default_rng(seed)
    features = cells(rng, "even", 60)
    score = OutOfDistributionScore.fit(features)
    distance = LaboratoryDistance.fit_one(score.leave_one_out(features), rng.integers(0, 5, 60))
    assert np.median(distance(score.distances(cells(rng, "even", 40)))) < distance.limit
    assert np.median(distance(score.distances(cells(rng, "even", 40, 2)))) > distance.limit
