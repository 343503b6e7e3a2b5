"""The genetic algorithm and the clusters of Huang & Hung 2012."""

import numpy as np
from sklearn.cluster import KMeans

from wbc_hf.survey.huang_2012 import evolve_centres, shares_of_classes


def test_evolved_centres_lie_better_than_drawn_ones(seed: int):
    generator = np.random.default_rng(seed)
    middles = generator.normal(size=(12, 4)) * 6
    cells = (middles[:, None] + generator.normal(size=(12, 30, 4))).reshape(-1, 4)

    def spread(centres: np.ndarray) -> float:
        return KMeans(12, init=centres, n_init=1).fit(cells).inertia_

    drawn = [spread(cells[generator.choice(len(cells), 12, replace=False)]) for _ in range(10)]
    evolved = [spread(evolve_centres(cells, 12, np.random.default_rng(start))) for start in range(3)]
    assert np.mean(evolved) < 0.9 * np.mean(drawn)
    # The best of them is as good as the true centres.
    assert min(evolved) < 1.05 * spread(middles)


def test_shares_name_a_cluster_after_most_of_its_cells():
    clusters, labels = np.array([0, 0, 0, 2, 2]), np.array([4, 4, 1, 3, 3])
    shares = shares_of_classes(clusters, labels, 3)
    np.testing.assert_allclose(shares[0], np.array([1, 2, 1, 1, 3]) / 8)
    np.testing.assert_allclose(shares[1], 0.2)
    assert shares[2].argmax() == 3
