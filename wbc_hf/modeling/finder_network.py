"""The finder's network: a small fully convolutional detector of leucocytes.

One pass over a photograph gives, at several strides, a heat map of cell centres with the offset and the size of each
cell, as in "Objects as Points" (Zhou et al. 2019, arXiv:1904.07850). The strides share one head and divide the sizes
among themselves, as in feature pyramid networks (Lin et al. 2017, arXiv:1612.03144), so that the scale of a photograph
need not be known.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from wbc_hf.files import write_json
from wbc_hf.hub import CONFIG_FILE, WEIGHTS_FILE
from wbc_hf.modeling.finder_boxes import OUTPUTS, FinderConfig

_PRIOR = 0.01  # of a centre, before training


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
        write_json(folder / CONFIG_FILE, asdict(self.config))
        weights = {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in self.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "FinderNetwork":
        """Read what `save` wrote, in single precision."""
        network = cls(FinderConfig.load(folder))
        network.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()})
        return network.eval()
