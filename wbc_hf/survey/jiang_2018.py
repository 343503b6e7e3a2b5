"""Jiang et al. 2018: WBCNet, a residual network with batch normalisation and a leaky activation.

M. Jiang, L. Cheng, F. Qin, L. Du, M. Zhang: White blood cells classification with deep convolutional neural networks,
International Journal of Pattern Recognition and Artificial Intelligence 32(9):1857006, doi:10.1142/S0218001418570069.

**Published.** Cells of the bone marrow, of so many kinds that the five best answers are counted too: 77.65 % right on
the training set, 83 % on the test set (98.65 % of the training set among the best five). Whether copies of one cell
lie on both sides is not said.

**Known.** 33 layers that join batch normalisation, residual convolution blocks and "an improved activation function",
trained from scratch. This is what the abstract says; the text was not to be had.

**Chosen.** How the 33 layers are laid out: two convolutions of 3 x 3, fifteen residual blocks of two such convolutions
in four stages (3, 4, 5, 3) of 64, 128, 256 and 512 channels, each but the first halving the picture, mean over the
picture, one layer for the classes. The activation: leaky, slope 0.1. The size of the picture (96 px), a quarter of the
channels, and the training: that of all networks of this survey.
"""

from pathlib import Path

import torch
from torch import nn

from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.networks import OneNetwork, Recipe
from wbc_hf.survey.system import Published

_RECIPE = Recipe()
_SLOPE = 0.1
_STEM = 64
# Channels, blocks.
_STAGES = ((64, 3), (128, 4), (256, 5), (512, 3))


class Jiang2018(OneNetwork):
    """WBCNet."""

    name = "jiang-2018"
    title = "Jiang et al. 2018, WBCNet"
    published = Published(
        source="Jiang, Cheng, Qin, Du, Zhang 2018, IJPRAI 32(9):1857006, doi:10.1142/S0218001418570069",
        accuracy=0.83,
        cells="bone marrow, many kinds of cell",
        copies_apart=None,
    )

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe = _RECIPE):
        super().__init__(folder, seed, recipe)

    @staticmethod
    def _build(recipe: Recipe) -> nn.Module:
        return wbcnet(recipe.width)


def wbcnet(width: float) -> nn.Sequential:
    """The 33 layers, with `width` times the channels: float (n, 3, side, side) → logits (n, classes)."""
    channels = round(_STEM * width)
    layers: list[nn.Module] = [
        *_convolution(3, channels, stride=2),
        nn.LeakyReLU(_SLOPE, inplace=True),
        *_convolution(channels, channels),
        nn.LeakyReLU(_SLOPE, inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    for stage, (wide, blocks) in enumerate(_STAGES):
        for block in range(blocks):
            outputs = round(wide * width)
            layers.append(_Residual(channels, outputs, stride=2 if stage and not block else 1))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASS_NAMES)))


class _Residual(nn.Module):
    """Two convolutions, to whose result their input is added."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(inputs, outputs, stride),
            nn.LeakyReLU(_SLOPE, inplace=True),
            *_convolution(outputs, outputs),
        )
        # Each block passes on what it gets at first, which trains faster: Goyal et al. 2017, arXiv:1706.02677.
        nn.init.zeros_(self.body[-1].weight)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, stride, kernel=1))
        self.activation = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.activation(self.body(hidden) + self.shortcut(hidden))


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )
