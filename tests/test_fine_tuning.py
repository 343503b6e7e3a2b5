"""Networks that suit another laboratory: what is learned from labels, how consistent they are."""

import copy

import numpy as np
import pytest
import torch
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.adaptation.fine_tuning import consistency, fine_tune, look_at_turns
from wbc_hf.data import Augmentation, paint_cells
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import (
    Normalise,
    build_from_scratch,
    cropped_edge,
    resized_edge,
)

SIZE, CLASSES = 32, len(CLASS_NAMES)
EDGE = 36
Trained = tuple[ResNetForImageClassification, BaseImageProcessor]
# What another camera makes of the same cells.
TINT = torch.tensor([[0.45, 0.1, 0.1], [0.05, 0.4, 0.2], [0.1, 0.0, 0.75]])
LAMP = torch.tensor([0.3, 0.3, 0.1])


def home(labels: np.ndarray, seed: int, edge: int = EDGE) -> torch.Tensor:
    return torch.from_numpy(paint_cells(labels, size=edge, seed=seed)).permute(0, 3, 1, 2).contiguous()


def elsewhere(labels: np.ndarray, seed: int, edge: int = EDGE) -> torch.Tensor:
    colours = torch.einsum("ij,njhw->nihw", TINT, home(labels, seed, edge).float() / 255) + LAMP.view(1, 3, 1, 1)
    return (colours * 255).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def trained(seed: int) -> Trained:
    """A tiny network that tells painted cells of one laboratory apart."""
    torch.manual_seed(seed)
    network, processor = build_from_scratch(0.0625, image_size=SIZE)
    assert resized_edge(processor) == EDGE
    labels = np.arange(400) % CLASSES
    squares, augment = home(labels, 0), Augmentation(SIZE, 0.3)
    normalise = Normalise(processor)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for step in range(150):
        chosen = torch.randperm(len(labels), generator=generator)[:32]
        seeds = np.stack([np.full(32, step), chosen.numpy()], axis=1)
        logits = network(pixel_values=normalise(augment(squares[chosen], seeds))).logits
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)[chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval(), processor


@pytest.fixture
def network(trained: Trained) -> ResNetForImageClassification:
    return copy.deepcopy(trained[0])


@pytest.fixture
def processor(trained: Trained) -> BaseImageProcessor:
    return trained[1]


@torch.no_grad()
def accuracy(
    network: torch.nn.Module,
    processor: BaseImageProcessor,
    squares: torch.Tensor,
    labels: np.ndarray,
    size: int | None = None,
) -> float:
    images = Augmentation(size or cropped_edge(processor), 0.0)(squares, np.zeros((len(squares), 1), dtype=int))
    logits = network(pixel_values=Normalise(processor)(images)).logits
    return float((logits.argmax(1).numpy() == labels).mean())


def test_labels_teach(network: ResNetForImageClassification, processor: BaseImageProcessor):
    labels, others = np.arange(60) % CLASSES, np.arange(400) % CLASSES
    squares = elsewhere(others, 9)
    before = accuracy(network, processor, squares, others)
    fine_tune(network, elsewhere(labels, 5), labels, processor)
    assert accuracy(network, processor, squares, others) > before


@pytest.mark.long
def test_cells_that_nobody_named_do_no_harm(network: ResNetForImageClassification, processor: BaseImageProcessor):
    labels = np.arange(60) % CLASSES
    squares = elsewhere(labels, 5)
    other = copy.deepcopy(network)
    fine_tune(network, squares[:40], labels[:40], processor, seed=3)
    fine_tune(other, squares, np.where(np.arange(60) < 40, labels, -1), processor, seed=3)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_same_seed_gives_the_same_weights(network: ResNetForImageClassification, processor: BaseImageProcessor):
    labels = np.arange(20) % CLASSES
    squares = elsewhere(labels, 5)
    other = copy.deepcopy(network)
    for one in (network, other):
        fine_tune(one, squares, labels, processor, seed=3)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_all_turns_are_looked_at_through_the_last_layer(
    network: ResNetForImageClassification, processor: BaseImageProcessor
):
    squares = home(np.arange(40) % CLASSES, 2)
    logits, features = look_at_turns(network, squares, processor)
    layer = network.classifier[-1]
    assert logits.shape == (40, 4, CLASSES) and features.shape == (40, 4, layer.in_features)
    through = features @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(through, logits, rtol=1e-3, atol=1e-3)
    again, _ = look_at_turns(network, squares.rot90(1, (2, 3)), processor)
    tolerance = 0.1 * np.abs(logits).max()  # of bf16, where that is quick
    np.testing.assert_allclose(again[:, :3], logits[:, 1:], atol=tolerance)


def test_consistency_is_the_share_of_equal_answers(
    network: ResNetForImageClassification, processor: BaseImageProcessor
):
    labels = np.arange(100) % CLASSES
    assert 0.4 < consistency(network, home(labels, 2), processor) < 1
    with torch.no_grad():
        network.classifier[-1].weight.zero_()
    assert consistency(network, home(labels, 2), processor) == 1
