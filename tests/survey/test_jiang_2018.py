"""WBCNet on painted cells."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.survey.conftest import Cells
from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.jiang_2018 import Jiang2018, wbcnet
from wbc_hf.survey.networks import Recipe
from wbc_hf.survey.system import pictures

_RECIPE = Recipe(image_size=32, epochs=8, batch_size=8, learning_rate=3e-3, width=0.125)


@pytest.fixture(scope="module")
def fitted(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Jiang2018:
    system = Jiang2018(tmp_path_factory.mktemp("jiang"), seed, recipe=_RECIPE)
    system.fit(leucocytes)
    return system


@pytest.mark.long
def test_tells_painted_cells_apart(fitted: Jiang2018, cells: Cells) -> None:
    probabilities = fitted.predict_proba(cells.images)
    assert probabilities.shape == (len(cells.labels), len(CLASS_NAMES))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    # Chance gets a fifth of them right, and three in ten almost never.
    assert (probabilities.argmax(1) == cells.labels).mean() > 0.3


def test_has_33_layers_that_learn() -> None:
    body = wbcnet(1.0)
    on_the_way = [
        name
        for name, part in body.named_modules()
        if isinstance(part, (nn.Conv2d, nn.Linear)) and ".shortcut" not in name
    ]
    assert len(on_the_way) == 33


def test_no_negative_value_is_lost() -> None:
    body = wbcnet(0.125)
    activations = [part for part in body.modules() if isinstance(part, nn.LeakyReLU)]
    assert len(activations) == 2 + 2 * 15
    assert all(part(torch.tensor(-1.0)) < 0 for part in activations)
    assert not any(isinstance(part, nn.ReLU) for part in body.modules())


@pytest.mark.long
def test_killed_half_way_it_ends_the_same(
    fitted: Jiang2018, leucocytes: Leucocytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    saves = 0
    save = torch.save

    def save_or_die(*arguments: object, **named: object) -> None:
        nonlocal saves
        saves += 1
        if saves > 8:
            raise KeyboardInterrupt
        save(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            Jiang2018(tmp_path, seed, recipe=_RECIPE).fit(leucocytes)
    assert list(tmp_path.glob("**/checkpoint-*"))

    resumed = Jiang2018(tmp_path, seed, recipe=_RECIPE)
    resumed.fit(leucocytes)
    images = list(pictures(leucocytes["test"]))
    np.testing.assert_array_equal(resumed.predict_proba(images), fitted.predict_proba(images))
