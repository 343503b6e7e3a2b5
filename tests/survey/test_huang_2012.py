"""Huang & Hung 2012 on painted cells."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import balanced_accuracy_score

from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.huang_2012 import Huang2012, evolve_centres, shares_of_classes
from wbc_hf.survey.system import pictures


@pytest.fixture(scope="module")
def system(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory) -> Huang2012:
    system = Huang2012(tmp_path_factory.mktemp("huang"))
    system.fit(leucocytes)
    return system


def test_it_tells_painted_cells_apart(leucocytes: Leucocytes, system: Huang2012):
    test = leucocytes["test"]
    probabilities = system.predict_proba(list(pictures(test)))
    assert probabilities.shape == (len(test), len(CLASS_NAMES))
    assert np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1)
    assert balanced_accuracy_score(test["label"], probabilities.argmax(axis=1)) > 0.6
    assert system.parameters > 0


def test_it_gives_the_same_answers_again_where_validation_lacks_a_class(tmp_path: Path):
    few = load_leucocytes("synthetic:12")
    labels = np.asarray(few["validation"]["label"])
    # Only what is learnt from is there: "test" is not looked at.
    splits = {"train": few["train"], "validation": few["validation"].select(np.flatnonzero(labels != 4))}
    images, answers = list(pictures(few["test"])), []
    for name in ("one", "other"):
        system = Huang2012(tmp_path / name, seed=3)
        system.fit(splits)
        answers.append(system.predict_proba(images))
    assert answers[0].shape == (len(images), len(CLASS_NAMES))
    np.testing.assert_array_equal(*answers)


def test_evolved_centres_lie_better_than_drawn_ones():
    generator = np.random.default_rng(0)
    middles = generator.normal(size=(12, 4)) * 6
    cells = (middles[:, None] + generator.normal(size=(12, 30, 4))).reshape(-1, 4)

    def spread(centres: np.ndarray) -> float:
        return KMeans(12, init=centres, n_init=1).fit(cells).inertia_

    drawn = [spread(cells[generator.choice(len(cells), 12, replace=False)]) for _ in range(10)]
    evolved = [spread(evolve_centres(cells, 12, np.random.default_rng(seed))) for seed in range(3)]
    assert np.mean(evolved) < 0.9 * np.mean(drawn)
    # Of what each cell's own middle leaves, no more than a quarter is added.
    assert max(evolved) < 1.25 * spread(middles)


def test_shares_name_a_cluster_after_most_of_its_cells():
    clusters, labels = np.array([0, 0, 0, 2, 2]), np.array([4, 4, 1, 3, 3])
    shares = shares_of_classes(clusters, labels, 3)
    np.testing.assert_allclose(shares[0], np.array([1, 2, 1, 1, 3]) / 8)
    np.testing.assert_allclose(shares[1], 0.2)
    assert shares[2].argmax() == 3
