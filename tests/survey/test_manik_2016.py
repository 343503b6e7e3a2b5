"""Manik et al. 2016 on painted cells."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.manik_2016 import Manik2016
from wbc_hf.survey.system import pictures


@pytest.fixture(scope="module")
def system(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory) -> Manik2016:
    system = Manik2016(tmp_path_factory.mktemp("manik"))
    system.fit(leucocytes)
    return system


def test_it_tells_painted_cells_apart(leucocytes: Leucocytes, system: Manik2016):
    test = leucocytes["test"]
    probabilities = system.predict_proba(list(pictures(test)))
    assert probabilities.shape == (len(test), len(CLASS_NAMES))
    assert np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1)
    assert balanced_accuracy_score(test["label"], probabilities.argmax(axis=1)) > 0.75
    assert system.parameters > 0


def test_it_gives_the_same_answers_again_where_validation_lacks_a_class(tmp_path: Path):
    few = load_leucocytes("synthetic:12")
    labels = np.asarray(few["validation"]["label"])
    # Only what is learnt from is there: "test" is not looked at.
    splits = {"train": few["train"], "validation": few["validation"].select(np.flatnonzero(labels != 4))}
    images, answers = list(pictures(few["test"])), []
    for name in ("one", "other"):
        system = Manik2016(tmp_path / name, seed=3)
        system.fit(splits)
        answers.append(system.predict_proba(images))
    assert answers[0].shape == (len(images), len(CLASS_NAMES))
    np.testing.assert_array_equal(*answers)
