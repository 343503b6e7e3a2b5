"""DCLNN, naive Bayes and the support vector machine on painted cells."""

from pathlib import Path

import numpy as np
import pytest

from tests.survey.conftest import Cells
from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.networks import Recipe
from wbc_hf.survey.system import System, pictures
from wbc_hf.survey.tiwari_2018 import Tiwari2018Bayes, Tiwari2018Dclnn, Tiwari2018Svm

_RECIPE = Recipe(image_size=32, epochs=16, batch_size=16, learning_rate=2e-3, width=0.25)
# Chance gets a fifth of them right, and three in ten almost never.
_LEAST = {"tiwari-2018-dclnn": 0.3, "tiwari-2018-bayes": 0.36, "tiwari-2018-svm": 0.36}


def _systems(folder: Path, seed: int) -> dict[str, System]:
    systems = (Tiwari2018Dclnn(folder / "dclnn", seed, recipe=_RECIPE), Tiwari2018Bayes(folder), Tiwari2018Svm(folder))
    return {system.name: system for system in systems}


@pytest.fixture(scope="module")
def fitted(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> dict[str, System]:
    systems = _systems(tmp_path_factory.mktemp("tiwari"), seed)
    for system in systems.values():
        system.fit(leucocytes)
    return systems


@pytest.mark.long
@pytest.mark.parametrize("name", _LEAST)
def test_tells_painted_cells_apart(fitted: dict[str, System], cells: Cells, name: str) -> None:
    probabilities = fitted[name].predict_proba(cells.images)
    assert probabilities.shape == (len(cells.labels), len(CLASS_NAMES))
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == cells.labels).mean() > _LEAST[name]


@pytest.mark.long
@pytest.mark.parametrize("name", _LEAST)
def test_same_seed_gives_same_answers(
    fitted: dict[str, System], leucocytes: Leucocytes, name: str, tmp_path: Path, seed: int
) -> None:
    again = _systems(tmp_path, seed)[name]
    again.fit(leucocytes)
    images = list(pictures(leucocytes["test"]))
    np.testing.assert_array_equal(again.predict_proba(images), fitted[name].predict_proba(images))


def test_a_class_may_be_missing_from_validation(leucocytes: Leucocytes, tmp_path: Path) -> None:
    validation = leucocytes["validation"]
    some = validation.select(np.flatnonzero(np.asarray(validation["label"]) != 2))
    system = Tiwari2018Svm(tmp_path)
    system.fit(Leucocytes({**leucocytes, "validation": some}))
    images = list(pictures(leucocytes["test"]))
    assert system.predict_proba(images).shape == (len(images), len(CLASS_NAMES))


def test_one_picture_is_answered_as_among_many(fitted: dict[str, System], leucocytes: Leucocytes) -> None:
    test = leucocytes["test"]
    (alone,) = fitted["tiwari-2018-svm"].predict_proba([next(pictures(test))])
    together = fitted["tiwari-2018-svm"].predict_proba(list(pictures(test)))
    np.testing.assert_allclose(alone, together[0])


def test_parameters(fitted: dict[str, System]) -> None:
    # Weights and biases: 8 and 16 channels, 14 x 14 values of each in front of 32, then five classes.
    layers = ((3 * 9, 8), (8 * 9, 16), (16 * 14 * 14, 32), (32, 5))
    assert fitted["tiwari-2018-dclnn"].parameters == sum((inputs + 1) * outputs for inputs, outputs in layers)
    # A mean and a variance of each pixel's colour and class, and how frequent each class is.
    assert fitted["tiwari-2018-bayes"].parameters == 2 * 5 * 32 * 32 * 3 + 5
    assert fitted["tiwari-2018-svm"].parameters > 32 * 32 * 3
