"""The vote of three networks on painted cells."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.survey.conftest import Cells
from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_scratch
from wbc_hf.survey import networks
from wbc_hf.survey.networks import Recipe
from wbc_hf.survey.system import pictures
from wbc_hf.survey.yu_2017 import Yu2017, vgg_16, vote, xception

pytestmark = pytest.mark.long

_RECIPE = Recipe(image_size=32, epochs=6, batch_size=16, learning_rate=3e-3, width=0.125)


@pytest.fixture(scope="module")
def fitted(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Yu2017:
    system = Yu2017(tmp_path_factory.mktemp("yu"), seed, recipe=_RECIPE)
    system.fit(leucocytes)
    return system


def test_tells_painted_cells_apart(fitted: Yu2017, cells: Cells) -> None:
    probabilities = fitted.predict_proba(cells.images)
    assert fitted.start == "from scratch"
    assert probabilities.shape == (len(cells.labels), len(CLASS_NAMES))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    # Chance gets a fifth of them right, and three in ten almost never.
    assert (probabilities.argmax(1) == cells.labels).mean() > 0.3


def test_a_second_fit_resumes_a_finished_one(fitted: Yu2017, leucocytes: Leucocytes) -> None:
    again = Yu2017(fitted.folder, recipe=_RECIPE)
    again.fit(leucocytes)
    images = list(pictures(leucocytes["test"]))
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))


def test_majority_outvotes_the_surest() -> None:
    probabilities = np.array([[[0.51, 0.49, 0.0]], [[0.51, 0.49, 0.0]], [[0.0, 1.0, 0.0]]])
    assert probabilities.mean(0).argmax(1) == [1]
    np.testing.assert_allclose(vote(probabilities), [[(2 + 0.34) / 4, (1 + 0.66) / 4, 0]])


def test_equal_votes_go_by_sum_of_probabilities() -> None:
    probabilities = np.array([[[0.4, 0.3, 0.3]], [[0.1, 0.5, 0.4]], [[0.1, 0.3, 0.6]]])
    assert vote(probabilities).argmax(1) == [2]


def test_votes_decide_whatever_the_probabilities() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.3), size=(3, 2000))
    counts = np.eye(5)[probabilities.argmax(2)].sum(0)
    shares = vote(probabilities)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (counts[np.arange(2000), shares.argmax(1)] == counts.max(1)).all()


@pytest.mark.parametrize(("build", "published"), [(vgg_16, 14_714_688 + 4224), (xception, 20_806_952)])
def test_networks_have_the_published_size_but_for_the_head(build, published: int) -> None:
    weights = sum(weight.numel() for weight in build(1.0)[:-1].parameters())
    assert weights == published


def test_resnet_starts_from_imagenet_where_it_can_be_had(
    leucocytes: Leucocytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    model, processor = build_from_scratch(0.0625)
    model.save_pretrained(tmp_path / "imagenet")
    processor.save_pretrained(tmp_path / "imagenet")
    monkeypatch.setattr(networks, "imagenet_weights", lambda _model: tmp_path / "imagenet")
    started = []
    monkeypatch.setattr(
        networks.Classifier, "fit", lambda self, _leucocytes: started.append(self.network), raising=True
    )
    system = Yu2017(tmp_path / "yu", recipe=_RECIPE)
    system.fit(leucocytes)
    assert system.start == "ImageNet (ResNet-50), from scratch (the others)"
    assert torch.equal(next(started[0].parameters()), next(model.parameters()))
    assert len(started) == 3
