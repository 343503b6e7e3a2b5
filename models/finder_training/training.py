"""Train the finder's network on views of photographs with boxed leucocytes, single cells and painted fields."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler

from finder_training.views import Example, TrainingViews
from wbc_hf.errors import WbcError
from wbc_hf.files import write_atomically
from wbc_hf.hardware import has_fast_bf16, usable_cores
from wbc_hf.modeling import FinderConfig, FinderNetwork, build_from_pretrained, training_memory_format

logger = logging.getLogger(__name__)

_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]

# Learning rate of a trunk that was trained before, in relation to that of the rest.
_TRUNK_SHARE = 0.15


def detection_loss(
    outputs: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], config: FinderConfig
) -> torch.Tensor:
    """Focal loss of the heat (Law & Deng 2018, arXiv:1808.01244) and smooth L1 of offsets and sizes."""
    total = outputs[0].new_zeros((), dtype=torch.float32)
    centres = sum(int((batch[f"heat{stride}"] == 1).sum()) for stride in config.strides)
    for output, stride in zip(outputs, config.strides, strict=True):
        output, heat = output.float(), batch[f"heat{stride}"]
        logit, probability = output[:, 0], output[:, 0].sigmoid()
        positive, negative = heat == 1, (heat >= 0) & (heat < 1)
        focal = -((1 - probability[positive]) ** 2 * F.logsigmoid(logit[positive])).sum()
        weight = (1 - heat[negative]) ** 4
        focal -= (weight * probability[negative] ** 2 * F.logsigmoid(-logit[negative])).sum()
        near = heat > 0.3
        boxes = output[:, 1:].permute(0, 2, 3, 1)[near], batch[f"box{stride}"].permute(0, 2, 3, 1)[near]
        regression = (F.smooth_l1_loss(*boxes, beta=0.2, reduction="none").sum(1) * heat[near]).sum()
        total = total + focal + 0.35 * regression
    return total / max(1, centres)


def load_trunk(network: FinderNetwork, folder: Path) -> None:
    """Copy the first stages of a ResNet into a finder, its normalisation and batch norm folded into convolutions.

    Args:
        network: Of the same widths and mean; it may have fewer blocks.
        folder: Of a transformers ResNet with bottlenecks that halve the size in their first convolution.

    Raises:
        WbcError: The folder's files cannot be used.
    """
    classifier, processor = cast(Any, build_from_pretrained(folder))
    model = classifier.resnet.eval()
    _fold(model.embedder.embedder, network.stem)
    network.stem.weight.data /= 255 * torch.tensor(processor.image_std).view(1, 3, 1, 1)
    for stage, blocks in zip(model.encoder.stages, network.stages, strict=False):
        for layer, block in zip(stage.layers, cast(Any, blocks), strict=False):
            if isinstance(block.shortcut, torch.nn.Conv2d):
                _fold(layer.shortcut, block.shortcut)
            for convolution, into in zip(layer.layer, (block.reduce, block.middle, block.expand), strict=True):
                _fold(convolution, into)


def _fold(layer: Any, into: torch.nn.Conv2d) -> None:
    """Copy a convolution with the batch norm after it, a layer of a transformers ResNet."""
    norm = layer.normalization
    assert into.bias is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    into.weight.data.copy_(layer.convolution.weight * scale.view(-1, 1, 1, 1))
    into.bias.data.copy_(norm.bias - norm.running_mean * scale)


class _Keys(Sampler[tuple[int, int]]):
    """Numbers of views with the index of the example that each shows, -1 for a picture without smear."""

    def __init__(self, weights: np.ndarray, not_smear: float, numbers: range, seed: int):
        self._numbers = numbers
        # All from the beginning, so that a resumed run draws what an uninterrupted one does.
        rng = np.random.default_rng(seed)
        self._indices = rng.choice(len(weights), numbers.stop, p=weights / weights.sum())
        self._indices[rng.random(numbers.stop) < not_smear] = -1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((number, int(self._indices[number])) for number in self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def train_finder(
    examples: Sequence[Example],
    shares: Mapping[str, float],
    folder: Path,
    *,
    config: FinderConfig | None = None,
    steps: int = 3000,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    not_smear: float = 0.06,
    start: Path | None = None,
    seed: int = 0,
    checkpoint_every: int = 100,
    workers: int | None = None,
) -> FinderNetwork:
    """Train a finder; a second call with the same folder resumes after the last checkpoint.

    Args:
        examples: Photographs of all sources.
        shares: By source, how often its photographs are drawn in relation to the others'.
        folder: For the checkpoint, `checkpoint.safetensors`.
        config: Shape of the network.
        steps: Number of batches.
        batch_size: Views in a batch.
        learning_rate: The highest; it rises for the first twelfth of the steps and falls along a cosine.
        not_smear: Share of the views that show no smear at all.
        start: Folder of a transformers ResNet with bottlenecks, from whose first stages the trunk starts. Its stem and
            first stage then stay as they are, and the others change slowly.
        seed: Of weights, views and their order.
        checkpoint_every: Number of batches between checkpoints.
        workers: Processes that make views beside this one; by default one less than there are cores, but at least one.

    Returns:
        The exponential moving average of the weights, in evaluation mode.

    Raises:
        WbcError: The loss is not finite any more; the checkpoint is of before. Or `start` cannot be used.
    """
    torch.manual_seed(seed)
    network = FinderNetwork(config).train()
    config = network.config
    groups = [{"params": list(network.parameters()), "share": 1.0}]
    if start is not None:
        load_trunk(network, start)
        for part in (network.stem, network.stages[0]):
            part.requires_grad_(False)
        trunk = list(network.stages[1:].parameters())
        others = [value for name, value in network.named_parameters() if not name.startswith(("stem.", "stages."))]
        groups = [{"params": trunk, "share": _TRUNK_SHARE}, {"params": others, "share": 1.0}]
    average = AveragedModel(network, multi_avg_fn=_average, use_buffers=True)
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=1e-4)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    done = _resume(checkpoint, network, average, optimizer) if checkpoint.exists() else 0
    memory_format = training_memory_format(network)
    # The stubs do not know this argument.
    network.to(memory_format=memory_format)  # type: ignore[call-overload]

    counts = {source: sum(example.source == source for example in examples) for source in shares}
    weights = np.array([shares[example.source] / counts[example.source] for example in examples])
    workers = max(1, usable_cores() - 1) if workers is None else workers
    loader = DataLoader(
        TrainingViews(examples, config, seed),
        batch_size,
        sampler=_Keys(weights, not_smear, range(done * batch_size, steps * batch_size), seed),
        num_workers=workers,
        # A process that was forked off one with threads may wait for ever for a lock that one of these held.
        multiprocessing_context="forkserver" if workers else None,
    )
    started, running = time.monotonic(), None
    for step, batch in enumerate(loader, done):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate * _schedule(step / steps)
        pixels = batch.pop("pixels").to(memory_format=memory_format)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16("cpu")):
            outputs = network(pixels)
        value = detection_loss(outputs, batch, config)
        if not value.isfinite():
            raise WbcError(f"{folder}: after {step} batches the loss is not finite any more. Lower the learning rate.")
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(network)
        running = value.item() if running is None else 0.98 * running + 0.02 * value.item()
        if (step + 1) % 50 == 0:
            pace = (step + 1 - done) * batch_size / (time.monotonic() - started)
            logger.info("step %d of %d, loss %.3f, %.1f views/s", step + 1, steps, running, pace)
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            _save(checkpoint, step + 1, network, average, optimizer)
    return cast(FinderNetwork, average.module.eval())


def _average(averaged: _Tensors, current: _Tensors, count: torch.Tensor | int) -> None:
    """Exponential moving average, in place, over a tenth of the batches so far and 500 at most."""
    weight = max(0.002, 9 / (10 + float(count)))
    for mean, value in zip(averaged, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)


def _schedule(progress: float) -> float:
    """Share of the highest learning rate: a linear warm-up, then a cosine down to nothing."""
    warmup = 1 / 12
    return progress / warmup + 1e-3 if progress < warmup else 0.5 + 0.5 * float(np.cos(np.pi * progress))


def _save(
    checkpoint: Path, done: int, network: FinderNetwork, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> None:
    tensors = {"done": torch.tensor(done)}
    tensors |= {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    write_atomically(checkpoint, save({name: value.contiguous() for name, value in tensors.items()}))


def _resume(checkpoint: Path, network: FinderNetwork, average: AveragedModel, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint and return how many batches were done."""
    tensors = load_file(checkpoint)
    done = int(tensors.pop("done"))
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    network.load_state_dict(parts["network"])
    average.load_state_dict(parts["average"])
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    logger.info("resuming after %d batches", done)
    return done
