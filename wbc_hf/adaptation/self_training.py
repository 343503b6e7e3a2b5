"""Domain adaptation of a network: self-training without labels, fine-tuning with a few.

For self-training the network itself makes the pseudo-labels: it predicts the cells in several framings, and the mean
prediction is a better teacher than any. The class priors of the new laboratory are estimated from it by expectation
maximisation (Saerens et al. 2002, doi 10.1162/089976602753284446). The network then learns the pseudo-labels on
augmented views (Xie et al. 2020, arXiv:1911.04252). Batch-norm statistics stay as they are, since those of the new
laboratory depend on its class proportions.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from torch import nn
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.adaptation.progress import ProgressCallback, no_progress, subprogress
from wbc_hf.data import Augmentation, frame, locate_nuclei
from wbc_hf.errors import WbcError
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Normalise, cropped_edge, training_memory_format

_BATCH = 32
_EM_STEPS = 100
_NUCLEUS_SPANS = (0.6, 0.5, 0.42)  # median width of the nuclei in the framings for pseudo-labels, in sides
_VIEW_LIMITS = (0.6, 1.4)  # sides of those framings, in sides of the image
_PRIOR_POWER = 0.25  # of the priors in the pseudo-labels: with power 1 rare classes would vanish
_LEARNED_SHARE = 0.8  # of the cells of each class, the most confident ones
_EPOCHS = 4
_ROUNDS = 2  # the second time the network is a better teacher
# Batches for few labels and for many: with few more would repeat the same views.
_LEAST_STEPS, _STEPS_PER_LABEL, _MOST_STEPS = 20, 2, 120
_SELF_TRAINING_RATE, _FINE_TUNING_RATE = 1e-4, 5e-4
_SMOOTHING = 0.05


def self_train(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    processor: BaseImageProcessor,
    *,
    cell_of: np.ndarray | None = None,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> np.ndarray:
    """Self-train a network on cells without labels, in place.

    Args:
        network: A ResNet of the five classes.
        squares: uint8 (m, 3, edge, edge), with `resized_edge` of the processor.
        processor: The network's.
        cell_of: Index of the cell that each square shows, int (m,), ascending; by default each shows another one.
        seed: Random seed.
        progress: Called with what is being done and the share that is done, 0 to 1.

    Returns:
        Estimated class proportions, float (classes,), sum 1.
    """
    cell_of = np.arange(len(squares)) if cell_of is None else cell_of
    for turn in range(_ROUNDS):
        probabilities = _pseudo_label(network, squares, cell_of, processor)
        progress("Adapting", (turn + 0.2) / _ROUNDS)
        proportions = estimate_proportions(probabilities)
        targets = _reweight(probabilities, proportions, _PRIOR_POWER)
        weights = np.zeros(len(targets))
        for cells in _by_class(targets.argmax(1)):
            count = max(2, int(np.ceil(_LEARNED_SHARE * len(cells))))
            surest = cells[np.argsort(-targets[cells].max(1), kind="stable")][:count]
            weights[surest] = len(surest) ** -0.5
        _train(
            network,
            squares,
            targets[cell_of],
            weights[cell_of],
            processor,
            max(1, _EPOCHS * len(targets) // _BATCH),
            _SELF_TRAINING_RATE,
            seed + turn,
            subprogress(progress, (turn + 0.2) / _ROUNDS, (turn + 1) / _ROUNDS),
        )
    return proportions


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
        network, squares, processor, seed, progress: As for `self_train`.
        labels: int (n,), class indices; cells with -1, unknown, are left out.
        cells: Number of labelled cells that the squares show; by default each shows another one.
    """
    known = labels >= 0
    squares, labels = squares[torch.from_numpy(known)], labels[known]
    targets = np.eye(len(CLASS_NAMES))[labels]
    targets = (1 - _SMOOTHING) * targets + _SMOOTHING / targets.shape[1]
    weights = np.zeros(len(labels))
    for members in _by_class(labels):
        weights[members] = len(members) ** -0.75
    steps = min(_MOST_STEPS, _LEAST_STEPS + _STEPS_PER_LABEL * (cells or len(labels)))
    _train(network, squares, targets, weights, processor, steps, _FINE_TUNING_RATE, seed, progress)


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


def estimate_proportions(probabilities: np.ndarray) -> np.ndarray:
    """Estimate class priors by expectation maximisation.

    Args:
        probabilities: float (n, classes), of a network trained with balanced classes.

    Returns:
        float (classes,), each at least one cell in n + classes.
    """
    cells, classes = probabilities.shape
    proportions = np.full(classes, 1 / classes)
    for _ in range(_EM_STEPS):
        proportions = (_reweight(probabilities, proportions, 1).sum(0) + 1) / (cells + classes)
    return proportions


def _pseudo_label(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    cell_of: np.ndarray,
    processor: BaseImageProcessor,
) -> np.ndarray:
    """Mean prediction of each cell in the processor's framing and in several others, float64 (cells, classes).

    Each framing is turned otherwise: a cell has no upper end, and the mean over orientations is right more often.
    """
    size, images = cropped_edge(processor), squares.float() / 255
    _, extent = locate_nuclei(images)
    # The same framings for all cells, since their sizes tell the types apart; wider than an image that is tight.
    views = [size / squares.shape[-1]]
    views += (float(extent.median()) / torch.tensor(_NUCLEUS_SPANS)).clamp(*_VIEW_LIMITS).tolist()
    middle = torch.zeros(len(images), 2)
    scores = np.zeros((cell_of[-1] + 1, len(CLASS_NAMES)))
    for quarters, view in enumerate(views):
        framed = frame(images, size, middle, torch.full((len(images),), view)).rot90(quarters, (2, 3))
        np.add.at(scores, cell_of, log_softmax(_logits(network, framed, processor), axis=1))
    counts = np.bincount(cell_of)[:, None] * len(views)
    return softmax(scores / counts, axis=1)


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


def _reweight(probabilities: np.ndarray, proportions: np.ndarray, power: float) -> np.ndarray:
    """Multiply probabilities by a power of the class proportions, and normalise them."""
    weighted = probabilities * proportions**power
    return weighted / weighted.sum(1, keepdims=True)


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
