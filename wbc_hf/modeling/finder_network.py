"""The finder's network: a small fully convolutional detector of leucocytes.

One pass over a photograph gives, at several strides, a heat map of cell centres with the offset and the size of each
cell, as in "Objects as Points" (Zhou et al. 2019, arXiv:1904.07850). The strides share one head and divide the sizes
among themselves, as in feature pyramid networks (Lin et al. 2017, arXiv:1612.03144), so that the scale of a photograph
need not be known.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# Height and width of the input must be multiples of the deepest stride.
MULTIPLE = 32
# Channels of the output: heat (logit), offset of the centre in x and y (strides), width and height (log of strides).
OUTPUTS = 5
_PRIOR = 0.01  # of a centre, before training


@dataclass(frozen=True)
class FinderConfig:
    """Shape of the network and how it is used.

    Attributes:
        mean: Subtracted from red, green and blue, 0 to 255.
        stem: Channels at stride 2.
        widths: Channels at strides 4, 8 and 16.
        depths: Number of blocks at these strides.
        deepest: Channels at stride 32.
        neck: Channels of the feature pyramid.
        strides: Of the outputs, in pixels of the input.
        sizes: For each stride the smallest and largest cells that it finds, in pixels of the input.
        thresholds: For each stride the least heat of a cell, 0 to 1.
    """

    mean: tuple[float, ...] = (123.0, 117.0, 104.0)
    stem: int = 64
    widths: tuple[int, ...] = (128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 3)
    deepest: int = 128
    neck: int = 40
    strides: tuple[int, ...] = (4, 8, 16)
    sizes: tuple[tuple[float, float], ...] = ((8, 40), (28, 88), (60, 220))
    thresholds: tuple[float, ...] = (0.55, 0.5, 0.4)


class _Bottleneck(nn.Module):
    """A residual block (He et al. 2016) whose batch norm is folded into its convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        inner = outputs // 4
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)
        self.reduce = nn.Conv2d(inputs, inner, 1, stride)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1)
        self.expand = nn.Conv2d(inner, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.middle(F.relu(self.reduce(x))))
        return F.relu(self.shortcut(x) + self.expand(inner))


def _convolution(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class FinderNetwork(nn.Module):
    """Detect leucocytes: RGB in, heat maps of centres with offsets and sizes out.

    The trunk is the beginning of a ResNet with bottlenecks: stem and the stages at strides 4, 8 and 16.
    """

    mean: torch.Tensor

    def __init__(self, config: FinderConfig | None = None):
        super().__init__()
        self.config = config = config or FinderConfig()
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Conv2d(3, config.stem, 7, 2, 3)
        self.stages = nn.ModuleList()
        inputs = config.stem
        for number, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            first = _Bottleneck(inputs, width, 2 if number else 1)
            self.stages.append(nn.Sequential(first, *(_Bottleneck(width, width, 1) for _ in range(depth - 1))))
            inputs = width
        deepest, neck = config.deepest, config.neck
        self.deepest = nn.Sequential(
            _convolution(inputs, deepest // 4 * 3, size=1),
            _convolution(deepest // 4 * 3, deepest, 2),
            _convolution(deepest, deepest),
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, neck, 1) for width in (*config.widths, deepest))
        self.smooth = nn.ModuleList(_convolution(neck, neck) for _ in config.strides)
        self.tower = _convolution(neck, neck)
        self.output = nn.Conv2d(neck, OUTPUTS, 1)
        bias = torch.zeros(OUTPUTS)
        bias[0] = -np.log((1 - _PRIOR) / _PRIOR)
        self.output.bias = nn.Parameter(bias)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Outputs at each stride.

        Args:
            pixels: uint8 or float (n, 3, height, width), RGB, 0 to 255; sides are multiples of `MULTIPLE`.

        Returns:
            For each stride float (n, `OUTPUTS`, height / stride, width / stride).
        """
        x = F.relu(self.stem(pixels.float() - self.mean))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features.append(self.deepest(x))
        merged = self.lateral[-1](features[-1])
        levels = {}
        for index in range(len(features) - 2, -1, -1):
            merged = self.lateral[index](features[index]) + F.interpolate(merged, scale_factor=2, mode="nearest")
            levels[4 << index] = merged
        return [
            self.output(self.tower(smooth(levels[stride])))
            for stride, smooth in zip(self.config.strides, self.smooth, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write `config.json` and the weights in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")
        weights = {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in self.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "FinderNetwork":
        """Read what `save` wrote, in single precision."""
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config = FinderConfig(**{name: _as_tuple(value) for name, value in values.items()})
        network = cls(config)
        network.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()})
        return network.eval()


def _as_tuple(value: Any) -> Any:
    """Lists, which JSON has, as tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def decode(
    outputs: Sequence[np.ndarray], strides: Sequence[int], thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the peaks in the heat maps of one image.

    Args:
        outputs: For each stride float (`OUTPUTS`, rows, columns).
        strides: In pixels.
        thresholds: For each stride the least heat, 0 to 1.

    Returns:
        float (n, 4), x0, y0, x1, y1 in pixels of the input, not clipped, and float (n,), their heat; the highest first
        and no two of the same cell.
    """
    boxes, scores = [], []
    for output, stride, threshold in zip(outputs, strides, thresholds, strict=True):
        heat = output[0]
        padded = np.pad(heat, 1, constant_values=-np.inf)
        peak = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max((2, 3))
        rows, columns = np.nonzero((heat >= np.log(threshold / (1 - threshold))) & (heat == peak))
        _, dx, dy, width, height = output[:, rows, columns].astype(np.float64)
        x, y = (columns + 0.5 + dx) * stride, (rows + 0.5 + dy) * stride
        half_width, half_height = np.exp(np.clip([width, height], -3, 5)) * stride / 2
        boxes.append(np.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1))
        scores.append(1 / (1 + np.exp(-heat[rows, columns].astype(np.float64))))
    return suppress(np.concatenate(boxes), np.concatenate(scores))


def suppress(
    boxes: np.ndarray, scores: np.ndarray, overlap: float = 0.4, within: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes that overlap one of higher heat, or lie mostly within it or round it: they show the same cell."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in range(len(boxes)):
        if kept:
            low, high = np.maximum(boxes[kept, :2], boxes[index, :2]), np.minimum(boxes[kept, 2:], boxes[index, 2:])
            common = np.maximum(high - low, 0).prod(1)
            union = area[kept] + area[index] - common
            if ((common > overlap * union) | (common > within * np.minimum(area[kept], area[index]))).any():
                continue
        kept.append(index)
    return boxes[kept], scores[kept]
