"""The out-of-distribution score."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from wbc_hf.modeling import OutOfDistributionScore


@pytest.fixture
def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_what_lies_far_from_every_reference_scores_higher(generator: np.random.Generator):
    centres = np.eye(5, 40).repeat(40, axis=0)
    training, near = (centres + 0.1 * generator.normal(size=centres.shape) for _ in range(2))
    score = OutOfDistributionScore.fit(training.astype(np.float32))
    assert np.median(score(near)) < np.quantile(score(-near), 0.01)


def test_fewer_references_than_neighbours():
    training = np.eye(3, dtype=np.float32)
    score = OutOfDistributionScore.fit(training)
    assert score(training).shape == score.leave_one_out(training).shape == (3,)


def test_a_reference_does_not_count_as_its_own_neighbour(generator: np.random.Generator):
    features = generator.normal(size=(12, 6)).astype(np.float32)
    score = OutOfDistributionScore.fit(features)
    distances = cdist((features - score.mean) @ score.components, score.references)
    expected = [np.sort(np.delete(row, index))[:5].mean() for index, row in enumerate(distances)]
    assert score.leave_one_out(features) == pytest.approx(np.array(expected))
