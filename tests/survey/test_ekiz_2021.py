"""The network with a support vector machine on painted cells."""

from pathlib import Path

import numpy as np
import pytest

from tests.survey.conftest import Cells
from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.ekiz_2021 import Ekiz2021
from wbc_hf.survey.networks import Recipe
from wbc_hf.survey.system import pictures

_RECIPE = Recipe(image_size=32, epochs=6, batch_size=16, learning_rate=3e-3)
_BRIEF = Recipe(image_size=32, epochs=1, batch_size=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def fitted(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Ekiz2021:
    system = Ekiz2021(tmp_path_factory.mktemp("ekiz"), seed, recipe=_RECIPE)
    system.fit(leucocytes)
    return system


@pytest.mark.long
def test_tells_painted_cells_apart(fitted: Ekiz2021, cells: Cells) -> None:
    probabilities = fitted.predict_proba(cells.images)
    assert probabilities.shape == (len(cells.labels), len(CLASS_NAMES))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == cells.labels).mean() > 0.5


def test_probabilities_are_no_surer_than_they_are_right(fitted: Ekiz2021, leucocytes: Leucocytes) -> None:
    test = leucocytes["test"]
    probabilities = fitted.predict_proba(list(pictures(test)))
    right = (probabilities.argmax(1) == test["label"]).mean()
    assert abs(probabilities.max(1).mean() - right) < 0.3  # of thirty cells


def test_support_vectors_count_as_learnt(fitted: Ekiz2021) -> None:
    assert fitted.parameters - fitted._classifiers[0].parameters > 192 * len(CLASS_NAMES)


def test_the_same_seed_answers_alike(leucocytes: Leucocytes, tmp_path: Path) -> None:
    images = list(pictures(leucocytes["test"]))
    answers = []
    for name in ("one", "two"):
        system = Ekiz2021(tmp_path / name, seed=3, recipe=_BRIEF)
        system.fit(leucocytes)
        answers.append(system.predict_proba(images))
    np.testing.assert_array_equal(*answers)


def test_a_class_may_be_missing_from_validation(leucocytes: Leucocytes, tmp_path: Path) -> None:
    kept = np.flatnonzero(np.array(leucocytes["validation"]["label"]) != 2)
    lacking = leucocytes.with_splits(validation=leucocytes["validation"].select(kept))
    system = Ekiz2021(tmp_path, recipe=_BRIEF)
    system.fit(lacking)
    assert np.isfinite(system.predict_proba(list(pictures(leucocytes["test"])))).all()
