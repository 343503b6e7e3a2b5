"""The systems that measure nucleus and cell, on painted cells: Huang & Hung, Ushizima et al., Manik et al."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.huang_2012 import Huang2012
from wbc_hf.survey.manik_2016 import Manik2016
from wbc_hf.survey.system import System, pictures
from wbc_hf.survey.ushizima_2005 import Ushizima2005

SYSTEMS = (Huang2012, Manik2016, Ushizima2005)


@pytest.mark.long
@pytest.mark.parametrize(("system", "least"), [(Huang2012, 0.6), (Manik2016, 0.75), (Ushizima2005, 0.75)])
def test_it_tells_painted_cells_apart(
    system: type[System], least: float, leucocytes: Leucocytes, tmp_path: Path, seed: int
):
    fitted = system(tmp_path, seed)
    fitted.fit(leucocytes)
    test = leucocytes["test"]
    probabilities = fitted.predict_proba(list(pictures(test)))
    assert probabilities.shape == (len(test), len(CLASS_NAMES))
    assert np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1)
    assert balanced_accuracy_score(test["label"], probabilities.argmax(axis=1)) > least
    assert fitted.parameters > 0


@pytest.mark.long
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_gives_the_same_answers_again_where_validation_lacks_a_class(system: type[System], tmp_path: Path):
    few = load_leucocytes("synthetic:12")
    labels = np.asarray(few["validation"]["label"])
    # Only what is learnt from is there: "test" is not looked at.
    splits = {"train": few["train"], "validation": few["validation"].select(np.flatnonzero(labels != 4))}
    images, answers = list(pictures(few["test"])), []
    for name in ("one", "other"):
        fitted = system(tmp_path / name, seed=3)
        fitted.fit(splits)
        answers.append(fitted.predict_proba(images))
    assert answers[0].shape == (len(images), len(CLASS_NAMES))
    np.testing.assert_array_equal(*answers)
