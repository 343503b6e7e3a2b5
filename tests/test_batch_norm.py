"""Batch-norm statistics that are estimated anew at the end of a training."""

import numpy as np
import pytest
import torch

from wbc_hf.data import load_leucocytes, read_image
from wbc_hf.inference import Predictor, evaluate_predictor
from wbc_hf.modeling import build_from_scratch
from wbc_hf.training.batch_norm import BATCH_SIZE, settle_batch_norm


@pytest.fixture(scope="module")
def cells():
    return load_leucocytes("synthetic:20", near_duplicates=False)


@pytest.fixture
def network(seed: int):
    """Without training: its statistics, mean 0 and variance 1, are of no image."""
    torch.manual_seed(seed)
    return build_from_scratch(0.125, image_size=32)


def score(network, processor, cells) -> float:
    return evaluate_predictor(Predictor(network, processor, "one"), cells["validation"]).metrics["macro_f1"]


@pytest.mark.seeded
def test_the_statistics_are_those_of_the_training_images(network, cells, seed: int):
    model, processor = network
    first = model.resnet.embedder.embedder.normalization
    before, kept = first.running_mean.clone(), score(model, processor, cells)
    if not settle_batch_norm(model, processor, cells, seed):
        # An untrained network may lose by it. Then it is as before, and validation says so.
        assert torch.equal(first.running_mean, before)
        assert score(model, processor, cells) == kept
        return
    assert score(model, processor, cells) >= kept
    # One whole batch: the rows that are left over would count as much as a batch.
    rows = [cells["train"][int(i)] for i in np.random.default_rng(seed).permutation(len(cells["train"]))[:BATCH_SIZE]]
    pixels = Predictor(model, processor, "one").pixels([read_image(row["image"]) for row in rows])
    with torch.no_grad():
        expected = model.resnet.embedder.embedder.convolution(pixels)
    assert torch.allclose(first.running_mean, expected.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(first.running_var, expected.var((0, 2, 3)), rtol=1e-3)
    assert first.momentum == 0.1 and not model.training


@pytest.mark.seeded
def test_worse_statistics_are_not_kept(network, cells, seed: int, monkeypatch: pytest.MonkeyPatch):
    model, processor = network
    scores = iter([0.9, 0.8])
    monkeypatch.setattr("wbc_hf.training.batch_norm._macro_f1", lambda *_: next(scores))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not settle_batch_norm(model, processor, cells, seed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
