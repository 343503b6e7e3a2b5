"""A network and the squares of cells: fine-tune it on a few labels, look at all quarter turns, measure consistency."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.adaptation.progress import ProgressCallback, no_progress
from wbc_hf.data import Augmentation
from wbc_hf.errors import WbcError
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Normalise, cropped_edge, training_memory_format

_BATCH = 32
# Batches for few labels and for many: with few more would repeat the same views.
_LEAST_STEPS, _STEPS_PER_LABEL, _MOST_STEPS = 20, 2, 120
_RATE = 5e-4
_SMOOTHING = 0.05


def fine_tune(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    labels: np.ndarray,
    processor: BaseImageProcessor,
    *,
    cells: int | None = None,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> None:
    """Fine-tune a network on a few labelled cells, in place.

    Args:
        network: A ResNet of the five classes.
        squares: uint8 (m, 3, edge, edge), with `resized_edge` of the processor.
        labels: int (m,), class indices; squares with -1, unknown, are left out.
        processor: The network's.
        cells: Number of labelled cells that the squares show; by default each shows another one.
        seed: Random seed.
        progress: Called with what is being done and the share that is done, 0 to 1.
    """
    known = labels >= 0
    squares, labels = squares[torch.from_numpy(known)], labels[known]
    targets = smooth_labels(labels)
    weights = np.zeros(len(labels))
    for members in _by_class(labels):
        weights[members] = len(members) ** -0.75
    steps = min(_MOST_STEPS, _LEAST_STEPS + _STEPS_PER_LABEL * (cells or len(labels)))
    _train(network, squares, targets, weights, processor, steps, _RATE, seed, progress)


def smooth_labels(labels: np.ndarray) -> np.ndarray:
    """Smoothed labels, float (n, classes), rows sum to 1, of class indices, int (n,)."""
    classes = len(CLASS_NAMES)
    return (1 - _SMOOTHING) * np.eye(classes)[labels] + _SMOOTHING / classes


@torch.no_grad()
def consistency(
    network: ResNetForImageClassification, squares: torch.Tensor, processor: BaseImageProcessor, *, seed: int = 0
) -> float:
    """Share of cells that get the same class with and without augmentation, 0 to 1."""
    size = cropped_edge(processor)
    seeds = np.stack([np.full(len(squares), seed), np.arange(len(squares))], axis=1)
    plain, other = (
        _logits(network, Augmentation(size, strength)(squares, seeds), processor).argmax(1) for strength in (0.0, 1.0)
    )
    return float((plain == other).mean())


@torch.no_grad()
def look_at_turns(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    processor: BaseImageProcessor,
    *,
    progress: ProgressCallback = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and what the last layer makes them from, of squares in their four quarter turns.

    Args:
        network, squares, processor, progress: As for `fine_tune`.

    Returns:
        float32 (m, 4, classes) and (m, 4, d).
    """
    network.to(memory_format=training_memory_format(network))  # type: ignore[call-arg]
    network.eval()
    logits, features = [], []
    middle = Augmentation(cropped_edge(processor), 0.0)
    for start in range(0, len(squares), _BATCH):
        progress("Looking at the cells from all sides", start / len(squares))
        part = middle(squares[start : start + _BATCH], np.zeros((_BATCH, 1), int))
        turns = torch.cat([part.rot90(turn, (2, 3)) for turn in range(4)])
        with _autocast(network.device):
            pooled = network.resnet(_network_input(turns, processor, network)).pooler_output
        pooled = pooled.flatten(1).float()
        features.append(pooled.view(4, len(part), -1).transpose(0, 1).cpu())
        logits.append(network.classifier(pooled).view(4, len(part), -1).transpose(0, 1).cpu())
    return torch.cat(logits).numpy(), torch.cat(features).numpy()


def _train(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    targets: np.ndarray,
    weights: np.ndarray,
    processor: BaseImageProcessor,
    steps: int,
    rate: float,
    seed: int,
    progress: ProgressCallback,
) -> None:
    """Train all weights on augmented views, with the batch-norm statistics as they are.

    Args:
        targets: float (n, classes), rows sum to 1.
        weights: (n,), in proportion to which cells are drawn.
        steps: Number of batches of `_BATCH` cells.
        rate: Peak learning rate.
    """
    generator = torch.Generator().manual_seed(seed)
    augment = Augmentation(cropped_edge(processor))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, steps), pct_start=0.15)
    soft_labels, sampling = torch.from_numpy(targets).float(), torch.from_numpy(weights)
    network.to(memory_format=training_memory_format(network))  # type: ignore[call-arg]
    network.train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    for step in range(steps):
        chosen = torch.multinomial(sampling, _BATCH, replacement=True, generator=generator)
        seeds = np.stack([np.full(_BATCH, seed), np.full(_BATCH, step), np.arange(_BATCH)], axis=1)
        images = _network_input(augment(squares[chosen], seeds), processor, network)
        with _autocast(network.device):
            logits = network(pixel_values=images).logits
        loss = F.cross_entropy(logits.float(), soft_labels[chosen].to(network.device))
        if not loss.isfinite():
            raise WbcError(
                "The adaptation has diverged: its loss is not finite any more. Adapt again, to other cells."
            )
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress("Adapting", (step + 1) / steps)
    network.eval()


@torch.no_grad()
def _logits(network: ResNetForImageClassification, images: torch.Tensor, processor: BaseImageProcessor) -> np.ndarray:
    """Logits of float images of 0 to 1, float32 (n, classes)."""
    network.to(memory_format=training_memory_format(network))  # type: ignore[call-arg]
    network.eval()
    parts = [_network_input(part, processor, network) for part in images.split(2 * _BATCH)]
    with _autocast(network.device):
        return torch.cat([network(pixel_values=part).logits.float().cpu() for part in parts]).numpy()


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device.type))


def _network_input(
    images: torch.Tensor, processor: BaseImageProcessor, network: ResNetForImageClassification
) -> torch.Tensor:
    normalised = Normalise(processor, images.device)(images)
    return normalised.contiguous(memory_format=training_memory_format(network)).to(network.device)


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
