"""Maximal information, AlexNet, GoogLeNet, and the whole system on painted cells."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import mutual_info_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from tests.survey.conftest import Cells
from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.information import maximal_information
from wbc_hf.survey.networks import Recipe
from wbc_hf.survey.system import in_chunks, pictures
from wbc_hf.survey.togacar_2020 import Togacar2020, _build_alexnet, _build_googlenet, _fit_discriminant

pytestmark = pytest.mark.long

_RECIPE = Recipe(image_size=32, epochs=4, batch_size=8, learning_rate=2e-3, width=0.0625)
_BRIEF = Recipe(image_size=32, epochs=1, batch_size=32, learning_rate=2e-3, width=0.0625)


@pytest.fixture(scope="module")
def fitted(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Togacar2020:
    system = Togacar2020(tmp_path_factory.mktemp("togacar"), seed, recipe=_RECIPE)
    system.fit(leucocytes)
    return system


def test_tells_painted_cells_apart(fitted: Togacar2020, cells: Cells) -> None:
    probabilities = fitted.predict_proba(cells.images)
    assert probabilities.shape == (len(cells.labels), len(CLASS_NAMES))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    # Chance gets a fifth of them right, and three in ten almost never.
    assert (probabilities.argmax(1) == cells.labels).mean() > 0.3
    assert fitted.start == "from scratch"


def test_features_stand_in_both_selections(fitted: Togacar2020, leucocytes: Leucocytes) -> None:
    train = fitted._scaler.transform(in_chunks(fitted._features, leucocytes["train"]))
    labels = np.array(leucocytes["train"]["label"])
    information = maximal_information(train, labels)
    kept = np.isin(np.arange(train.shape[1]), fitted._kept)
    assert kept.any()
    # What one selection puts last is not kept, however the other likes it.
    assert information[kept].min() > np.quantile(information, 0.5)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("shrinkage", [0.01, 0.6])
def test_a_feature_may_be_constant_within_a_class(shrinkage: float, others: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASS_NAMES)), 20)
    features = labels[:, None] + rng.normal(0, 0.1, (len(labels), 1 + others))
    features[labels == 3, 0] = 3
    features = StandardScaler().fit_transform(features)
    with pytest.raises(np.linalg.LinAlgError, match="class 3 is not full rank"):
        QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.0 if others else shrinkage).fit(features, labels)
    probabilities = _fit_discriminant(features, labels, shrinkage).predict_proba(features)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == labels).mean() > 0.95


def test_covariances_that_are_not_singular_are_shrunk_as_by_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASS_NAMES)), 20)
    features = StandardScaler().fit_transform(labels[:, None] / 2 + rng.normal(size=(len(labels), 3)))
    for shrinkage in (0.01, 0.6):
        ours = _fit_discriminant(features, labels, shrinkage)
        theirs = QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(features, labels)
        np.testing.assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), rtol=1e-6)


def test_a_selected_feature_that_is_constant_in_a_class_does_not_end_the_fit(
    leucocytes: Leucocytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty features of which one tells the classes apart, and is silent in class 3."""

    def features_of(rows: Dataset) -> np.ndarray:
        features = np.random.default_rng(len(rows)).normal(size=(len(rows), 20))
        features[:, 0] = np.array(rows["label"]) + 0.01 * features[:, 0]
        features[np.array(rows["label"]) == 3, 0] = 3
        return features

    monkeypatch.setattr(Togacar2020, "_build_networks", lambda self: [])
    monkeypatch.setattr("wbc_hf.survey.togacar_2020.in_chunks", lambda _compute, rows: features_of(rows))
    system = Togacar2020(tmp_path)
    system.fit(leucocytes)
    assert 0 in system._kept
    test = leucocytes["test"]
    monkeypatch.setattr(Togacar2020, "_features", lambda self, images: features_of(test))
    given = system.predict_proba(list(pictures(test))).argmax(1)
    assert (given == test["label"]).mean() > 0.9


def test_the_same_seed_answers_alike(leucocytes: Leucocytes, tmp_path: Path) -> None:
    few = leucocytes.with_splits(train=leucocytes["train"].select(range(50)))
    images = list(pictures(leucocytes["test"]))
    answers = []
    for name in ("one", "two"):
        system = Togacar2020(tmp_path / name, seed=3, recipe=_BRIEF)
        system.fit(few)
        answers.append(system.predict_proba(images))
    np.testing.assert_array_equal(*answers)


def test_networks_are_as_large_as_published() -> None:
    # Without heads: 62.4 million less 4.1 million, and 7.0 million less 1.0 million, normalisation aside.
    for build, features, weights in ((_build_alexnet, 4096, 58.3e6), (_build_googlenet, 1024, 6.0e6)):
        network = build(1.0).eval()
        assert network.features(torch.zeros(1, 3, 96, 96)).shape == (1, features)
        counted = sum(
            layer.weight.numel() for layer in network.features.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
        )
        assert counted == pytest.approx(weights, rel=0.02)


def test_information_of_a_function_is_whole_and_of_noise_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 2000)
    near = rng.normal(0, 0.01, 2000)
    features = np.stack([labels + near, -np.exp(labels) + near, (labels - 2) ** 2 + near, rng.normal(size=2000)], 1)
    rising, falling, folded, noise = maximal_information(features, labels)
    assert rising > 0.95
    assert falling == pytest.approx(rising, abs=0.02)
    assert folded > 0.85
    assert noise < 0.05


def test_information_of_few_points_is_that_of_the_best_grid() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 20)
    features = rng.normal(size=(20, 4)) + labels[:, None]
    # 20 ** 0.6 is 6: grids of 2 x 2, 3 x 2 and 2 x 3.
    for feature, information in zip(features.T, maximal_information(features, labels), strict=True):
        ordered = np.sort(feature)
        cuts = [(ordered[a], ordered[b]) for a in range(20) for b in range(a, 20)]
        rows = [np.digitize(labels, edges) for edges in ([1], [2], [1, 2])]
        best = 0.0
        for row, cut in product(rows, cuts):
            column = np.digitize(feature, sorted(set(cut)))
            sides = len(set(row)), len(set(column))
            if np.prod(sides) <= 6 and min(sides) > 1:
                best = max(best, mutual_info_score(row, column) / np.log(min(sides)))
        assert information == pytest.approx(best)


def test_one_label_or_one_value_tells_nothing() -> None:
    features = np.stack([np.zeros(100), np.arange(100.0)], 1)
    assert (maximal_information(features, np.ones(100, int)) == 0).all()
    assert maximal_information(features, np.arange(100) % 2)[0] == pytest.approx(0)
