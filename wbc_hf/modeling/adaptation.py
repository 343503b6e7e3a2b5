"""Suit a network to a laboratory that it has not seen: without labels, or with some.

What leaves a network helpless elsewhere are the stored statistics of its batch normalisation (Li et al. 2016,
arXiv:1603.04779). Estimating them anew on the other laboratory's cells is the floor. It assumes, though, that the
classes are as frequent there as in training: so proportions are estimated as well, by Saerens et al. 2002
(doi 10.1162/089976602753284446), and each cell counts for the statistics as its class would in training.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation
from wbc_hf.modeling.preparation import Normalise

Progress = Callable[[float], None]

MIN_UNLABELLED = 50
_ROUNDS = 4
_HEAVIEST = 10.0  # weight of one cell: of a class that is hardly there, few cells must not decide alone
_EM_STEPS = 100


def adapt_without_labels(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    processor: BaseImageProcessor,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Suit a network to unlabelled cells, in place.

    Args:
        network: Of the project's five classes.
        squares: uint8 (n, 3, edge, edge), with `margin_edge` of the processor.
        processor: The network's.
        seed: Of everything that is drawn.
        progress: Told how far it is, 0 to 1.

    Returns:
        The estimated proportions of the classes, float (classes,), sum 1.
    """
    images = _network_input(squares, processor)
    logits = estimate_statistics(network, images)
    for done in range(_ROUNDS):
        proportions, posterior = estimate_proportions(logits.softmax(1).numpy())
        weights = (posterior / proportions).sum(1).clip(max=_HEAVIEST)
        logits = estimate_statistics(network, images, weights)
        if progress is not None:
            progress((done + 1) / _ROUNDS)
    return estimate_proportions(logits.softmax(1).numpy())[0]


def adapt_with_labels(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    labels: np.ndarray,
    processor: BaseImageProcessor,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Suit a network to cells of which some have labels, in place.

    Args:
        network, squares, processor, seed, progress: As for `adapt_without_labels`.
        labels: int (n,), class indices, -1 where nobody said.
    """
    adapt_without_labels(network, squares, processor, seed=seed, progress=progress)


@torch.no_grad()
def consistency(
    network: ResNetForImageClassification, squares: torch.Tensor, processor: BaseImageProcessor, *, seed: int = 0
) -> float:
    """Share of cells that get the same class in another view: turned, moved, stained a little otherwise. 0 to 1."""
    size = processor.size["shortest_edge"]
    seeds = np.stack([np.full(len(squares), seed), np.arange(len(squares))], axis=1)
    normalise = Normalise(processor, squares.device)
    network.eval()
    plain, other = (
        network(pixel_values=normalise(Augmentation(size, strength)(squares, seeds))).logits.argmax(1)
        for strength in (0.0, 1.0)
    )
    return float((plain == other).float().mean())


def estimate_proportions(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proportions of the classes in a set, and probabilities that take them into account.

    Args:
        probabilities: float (n, classes), of a network whose training saw all classes alike.

    Returns:
        float (classes,), each at least one cell in n + classes, and (n, classes).
    """
    cells, classes = probabilities.shape
    proportions = np.full(classes, 1 / classes)
    for _ in range(_EM_STEPS):
        posterior = probabilities * proportions
        posterior /= posterior.sum(1, keepdims=True)
        proportions = (posterior.sum(0) + 1) / (cells + classes)
    return proportions, posterior


@torch.no_grad()
def estimate_statistics(
    network: ResNetForImageClassification, images: torch.Tensor, weights: Sequence[float] | None = None
) -> torch.Tensor:
    """Take the statistics of batch normalisation from images, layer by layer in one pass, in place.

    Args:
        network: Whose stored statistics are replaced.
        images: float32 (n, 3, height, width), normalised.
        weights: How much each counts.

    Returns:
        The logits that the images get with the new statistics, float32 (n, classes).
    """
    weight = torch.ones(len(images)) if weights is None else torch.as_tensor(np.asarray(weights), dtype=torch.float32)
    weight = (weight / weight.mean()).view(-1, 1, 1, 1)

    def estimate(layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        values = inputs[0].float()
        mean = (values * weight).mean((0, 2, 3))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_((weight * (values - mean.view(1, -1, 1, 1)).square()).mean((0, 2, 3)))

    hooks = [
        layer.register_forward_pre_hook(estimate) for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    network.eval()
    logits = network(pixel_values=images).logits.float()
    for hook in hooks:
        hook.remove()
    return logits


def _network_input(squares: torch.Tensor, processor: BaseImageProcessor) -> torch.Tensor:
    size = processor.size["shortest_edge"]
    top, left = ((side - size) // 2 for side in squares.shape[2:])
    normalise = Normalise(processor, squares.device)
    return normalise(squares[:, :, top : top + size, left : left + size]).contiguous(memory_format=torch.channels_last)
