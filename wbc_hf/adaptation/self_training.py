"""Suit a network to a laboratory that it has not seen: without labels, or with some.

Without labels a teacher is made of the network itself: it sees the cells in the colours that it learned from, by
several maps and in three framings, and its mean answer is better than any of them. How frequent the classes are in the
new laboratory is estimated from its answers (Saerens et al. 2002, doi 10.1162/089976602753284446). The network then
learns the teacher's answers on augmented views, as in self-training by Xie et al. 2020, arXiv:1911.04252. Statistics
of batch normalisation stay as they are, since those of the new laboratory would be those of its class proportions.

Of a network that comes without the colours it learned from, the floor is left: to estimate those statistics anew
(Li et al. 2016, arXiv:1603.04779), each cell counting as its class would in training.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, frame, locate_nuclei
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.modeling import Colours, Normalise, colour_maps, fold_colours, measure_colours

Progress = Callable[[float], None]

MIN_UNLABELLED = 50
_BATCH = 32
_ROUNDS = 4
_HEAVIEST = 10.0  # weight of one cell: of a class that is hardly there, few cells must not decide alone
_EM_STEPS = 100
_SPANS = (0.6, 0.5, 0.42)  # of the nucleus of most cells, in sides of the views that the teacher sees
_VIEWS = (0.6, 1.4)  # sides of those views, in sides of the picture
_PRIOR = 0.25  # power of the estimated proportions in what is learned: all of them would drown the rare classes
_LEARNED = 0.8  # share of the cells of each class, the surest, that are learned from
_EPOCHS = 4
_LABELLED_STEPS = 120
_RATES = {"without": 2e-4, "with": 5e-4}
_SMOOTHING = 0.05


def adapt_without_labels(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    processor: BaseImageProcessor,
    *,
    colours: Colours | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Suit a network to unlabelled cells, in place.

    Args:
        network: Of the project's five classes.
        squares: uint8 (n, 3, edge, edge), with `resized_edge` of the processor.
        processor: The network's.
        colours: Of the cells that the network was trained on; where they are not known, only the statistics of batch
            normalisation are estimated anew.
        seed: Of everything that is drawn.
        progress: Told how far it is, 0 to 1.

    Returns:
        The estimated proportions of the classes, float (classes,), sum 1.
    """
    if colours is None:
        return reestimate_batch_norm(network, squares, processor)
    answers = _teach(network, squares, processor, colours, progress)
    proportions, _ = estimate_proportions(answers)
    targets = _towards(answers, proportions, _PRIOR)
    weights = np.zeros(len(targets))
    for cells in _by_class(targets.argmax(1)):
        count = max(2, int(np.ceil(_LEARNED * len(cells))))
        surest = cells[np.argsort(-targets[cells].max(1), kind="stable")][:count]
        weights[surest] = len(surest) ** -0.5
    steps = max(1, _EPOCHS * len(squares) // _BATCH)
    _learn(network, squares, targets, weights, processor, steps, _RATES["without"], seed, _second_half(progress))
    return proportions


def adapt_with_labels(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    labels: np.ndarray,
    processor: BaseImageProcessor,
    *,
    colours: Colours | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Suit a network to labelled cells, in place.

    Args:
        network, squares, processor, colours, seed, progress: As for `adapt_without_labels`.
        labels: int (n,), class indices; -1 where nobody said: such cells only help to know the laboratory's colours.
    """
    if colours is not None:
        _give_colours(network, squares, processor, colours)
    known = labels >= 0
    squares, labels = squares[torch.from_numpy(known)], labels[known]
    targets = np.eye(network.config.num_labels)[labels]
    targets = (1 - _SMOOTHING) * targets + _SMOOTHING / targets.shape[1]
    weights = np.zeros(len(labels))
    for cells in _by_class(labels):
        weights[cells] = len(cells) ** -0.75
    _learn(network, squares, targets, weights, processor, _LABELLED_STEPS, _RATES["with"], seed, progress)


@torch.no_grad()
def consistency(
    network: ResNetForImageClassification, squares: torch.Tensor, processor: BaseImageProcessor, *, seed: int = 0
) -> float:
    """Share of cells that get the same class in another view: turned, moved, stained a little otherwise. 0 to 1."""
    size = processor.size["shortest_edge"]
    seeds = np.stack([np.full(len(squares), seed), np.arange(len(squares))], axis=1)
    plain, other = (
        _logits(network, Augmentation(size, strength)(squares, seeds), processor).argmax(1) for strength in (0.0, 1.0)
    )
    return float((plain == other).mean())


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
        posterior = _towards(probabilities, proportions, 1)
        proportions = (posterior.sum(0) + 1) / (cells + classes)
    return proportions, posterior


def reestimate_batch_norm(
    network: ResNetForImageClassification, squares: torch.Tensor, processor: BaseImageProcessor
) -> np.ndarray:
    """Estimate the statistics of batch normalisation anew, in place; returns the estimated proportions (classes,)."""
    images = _network_input(_middle(squares, processor), processor)
    logits = estimate_statistics(network, images)
    for _ in range(_ROUNDS):
        proportions, posterior = estimate_proportions(logits.softmax(1).numpy())
        logits = estimate_statistics(network, images, (posterior / proportions).sum(1).clip(max=_HEAVIEST))
    return estimate_proportions(logits.softmax(1).numpy())[0]


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

    weight = weight.to(network.device)

    def estimate(layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        values = inputs[0].float()
        mean = (values * weight).mean((0, 2, 3))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_((weight * (values - mean.view(1, -1, 1, 1)).square()).mean((0, 2, 3)))

    hooks = [layer.register_forward_pre_hook(estimate) for layer in _normalisations(network)]
    network.eval()
    logits = network(pixel_values=images.to(network.device)).logits.float().cpu()
    for hook in hooks:
        hook.remove()
    return logits


def _teach(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    processor: BaseImageProcessor,
    colours: Colours,
    progress: Progress | None,
) -> np.ndarray:
    """Probabilities by the mean of the network's answers in several colours and framings, float64 (n, classes)."""
    size, images = processor.size["shortest_edge"], squares.float() / 255
    _, extent = locate_nuclei(images)
    # One framing for all, since the sizes of cells tell the types apart; wider than the picture where it is tight.
    views = (float(extent.median()) / torch.tensor(_SPANS)).clamp(*_VIEWS)
    middle = torch.zeros(len(images), 2)
    framings = [frame(images, size, middle, view.expand(len(images))) for view in views]
    maps = colour_maps(measure_colours(squares), colours)
    answers = []
    for matrix, offset in maps:
        mapped = copy.deepcopy(network)
        fold_colours(mapped, processor, matrix, offset)
        answers += [_logits(mapped, framing, processor) for framing in framings]
        _tell(progress, len(answers) / len(maps) / len(framings) / 2)
    # The last one is the mean of the others, and what the network is given.
    network.load_state_dict(mapped.state_dict())
    scores = torch.from_numpy(np.stack(answers)).log_softmax(2).mean(0)
    return scores.softmax(1).double().numpy()


def _give_colours(
    network: ResNetForImageClassification, squares: torch.Tensor, processor: BaseImageProcessor, colours: Colours
) -> None:
    fold_colours(network, processor, *colour_maps(measure_colours(squares), colours)[-1])


def _learn(
    network: ResNetForImageClassification,
    squares: torch.Tensor,
    targets: np.ndarray,
    weights: np.ndarray,
    processor: BaseImageProcessor,
    steps: int,
    rate: float,
    seed: int,
    progress: Progress | None,
) -> None:
    """Train all weights on augmented views, with the statistics of batch normalisation as they are.

    Args:
        targets: float (n, classes), rows sum to 1.
        weights: (n,), how often each cell is drawn, in proportion.
        steps: Of `_BATCH` cells.
        rate: Peak learning rate.
    """
    generator = torch.Generator().manual_seed(seed)
    augment = Augmentation(processor.size["shortest_edge"])
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, steps), pct_start=0.15)
    aim, share = torch.from_numpy(targets).float(), torch.from_numpy(weights)
    network.to(memory_format=torch.channels_last).train()
    for layer in _normalisations(network):
        layer.eval()
    for step in range(steps):
        chosen = torch.multinomial(share, _BATCH, replacement=True, generator=generator)
        seeds = np.stack([np.full(_BATCH, seed), np.full(_BATCH, step), np.arange(_BATCH)], axis=1)
        images = _network_input(augment(squares[chosen], seeds), processor).to(network.device)
        with _fast(network.device):
            logits = network(pixel_values=images).logits
        F.cross_entropy(logits.float(), aim[chosen].to(network.device)).backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        _tell(progress, (step + 1) / steps)
    network.eval()


@torch.no_grad()
def _logits(network: ResNetForImageClassification, images: torch.Tensor, processor: BaseImageProcessor) -> np.ndarray:
    """Of float images of 0 to 1, as float32 (n, classes)."""
    network.to(memory_format=torch.channels_last).eval()
    parts = [_network_input(part, processor).to(network.device) for part in images.split(2 * _BATCH)]
    with _fast(network.device):
        return torch.cat([network(pixel_values=part).logits.float().cpu() for part in parts]).numpy()


def _fast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device.type))


def _middle(squares: torch.Tensor, processor: BaseImageProcessor) -> torch.Tensor:
    """What the processor's crop leaves, float32 of 0 to 1."""
    return Augmentation(processor.size["shortest_edge"], 0.0)(squares, np.zeros((len(squares), 1), dtype=int))


def _network_input(images: torch.Tensor, processor: BaseImageProcessor) -> torch.Tensor:
    return Normalise(processor, images.device)(images).contiguous(memory_format=torch.channels_last)


def _normalisations(network: ResNetForImageClassification) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


def _towards(probabilities: np.ndarray, proportions: np.ndarray, power: float) -> np.ndarray:
    """Probabilities that take a power of the classes' proportions into account."""
    weighted = probabilities * proportions**power
    return weighted / weighted.sum(1, keepdims=True)


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _tell(progress: Progress | None, share: float) -> None:
    if progress is not None:
        progress(share)


def _second_half(progress: Progress | None) -> Progress | None:
    return None if progress is None else lambda share: progress(0.5 + share / 2)
