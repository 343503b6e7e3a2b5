"""Yu et al. 2017: several networks of ImageNet, fine-tuned, and a majority vote.

W. Yu, J. Chang, C. Yang, L. Zhang, H. Shen, Y. Xia, J. Sha: Automatic classification of leukocytes using deep neural
network, IEEE 12th International Conference on ASIC (ASICON) 2017, doi:10.1109/ASICON.2017.8252657.

**Published.** Neither the figure nor the cells were available, nor whether near-duplicates were kept on one side.

**Known.** Several networks trained on ImageNet are fine-tuned on leucocytes; the class with the most votes wins. The
text was unavailable. That they were ResNet-50, Inception-V3, VGG-16, VGG-19 and Xception is from memory.

**Chosen.** Three of the five, of three families, so that two cores can train them: ResNet-50, VGG-16 and Xception,
each with a quarter of its channels, from scratch, for pictures of 80 px. VGG-16 has batch normalisation, without which
it does not train from scratch, and one layer after the mean over the picture instead of two of 4,096 values. Where the
Hub can be reached, ResNet-50 is whole and starts from ImageNet; the Hub has no weights of the other two in a form that
transformers reads. Among classes with equally many votes, the higher sum of probabilities wins.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import set_seed

from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.networks import Classifier, Logits, NetworkSystem, Recipe, build_resnet, convolution, pass_on
from wbc_hf.survey.system import Published

# Channels of VGG-16's convolutions, between one pooling and the next (Simonyan & Zisserman 2015, arXiv:1409.1556).
_VGG_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Channels of Xception's flows: entry, middle, exit (Chollet 2017, arXiv:1610.02357, figure 5).
_ENTRY = (128, 256, 728)
_MIDDLE_BLOCKS = 8
_EXIT = (1024, 1536, 2048)


class Yu2017(NetworkSystem):
    """Majority vote of ResNet-50, VGG-16 and Xception."""

    name = "yu-2017"
    title = "After Yu et al. 2017, vote of networks"
    published = Published("Yu, Chang, Yang, Zhang, Shen, Xia, Sha 2017, ASICON, doi:10.1109/ASICON.2017.8252657")
    default_recipe = Recipe(image_size=80, epochs=8)

    def fit(self, leucocytes: Leucocytes) -> None:
        set_seed(self.seed)
        resnet, self.start = build_resnet(self.recipe, self.folder, self.seed)
        networks = {"vgg-16": vgg_16(self.recipe.width), "xception": xception(self.recipe.width)}
        self._classifiers = [resnet] + [
            Classifier(Logits(network), self.recipe, self.folder / name, self.seed)
            for name, network in networks.items()
        ]
        for classifier in self._classifiers:
            classifier.fit(leucocytes)

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        """See `vote`."""
        return vote(np.stack([classifier.probabilities(images) for classifier in self._classifiers]))


def vote(probabilities: np.ndarray) -> np.ndarray:
    """Compute shares of the votes, with one more vote that is divided as the voters' mean probabilities.

    That vote decides among classes with equally many votes, and never against one with more.

    Args:
        probabilities: float (voters, n, classes), rows of sum 1.

    Returns:
        float (n, classes), rows of sum 1.
    """
    voters, _, classes = probabilities.shape
    votes = np.eye(classes)[probabilities.argmax(2)].sum(0)
    return (votes + probabilities.mean(0, dtype=np.float64)) / (voters + 1)


def vgg_16(width: float) -> nn.Sequential:
    """Build VGG-16 with batch normalisation and `width` times the channels: (n, 3, side, side) → (n, classes)."""
    layers: list[nn.Module] = []
    channels = 3
    for block in _VGG_16:
        for wide in block:
            layers.append(convolution(channels, round(wide * width)))
            channels = round(wide * width)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_head(channels))


def xception(width: float) -> nn.Sequential:
    """Build Xception with `width` times the channels: float (n, 3, side, side) → logits (n, classes)."""
    stem, second = round(32 * width), round(64 * width)
    layers: list[nn.Module] = [convolution(3, stem, stride=2), convolution(stem, second, activation=None)]
    channels = second
    for wide in _ENTRY:
        outputs = round(wide * width)
        layers.append(_SeparableBlock((channels, outputs, outputs), halves=True))
        channels = outputs
    layers += [_SeparableBlock((channels,) * 4, halves=False) for _ in range(_MIDDLE_BLOCKS)]
    last, *ends = (round(wide * width) for wide in _EXIT)
    layers.append(_SeparableBlock((channels, channels, last), halves=True))
    channels = last
    for outputs in ends:
        layers += [_separable(channels, outputs), nn.ReLU(inplace=True)]
        channels = outputs
    return nn.Sequential(*layers, *_head(channels))


class _SeparableBlock(nn.Module):
    """Separable convolutions, each after an activation, with a shortcut; one that halves the picture pools."""

    def __init__(self, channels: tuple[int, ...], halves: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            # Not in place: the shortcut takes the same input.
            layers += [nn.ReLU(), _separable(inputs, outputs)]
        pass_on(layers[-1])
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            self.shortcut = convolution(channels[0], channels[-1], 1, stride=2, activation=None)
        self.body = nn.Sequential(*layers)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.body(hidden) + self.shortcut(hidden)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, convolution(inputs, outputs, 1, activation=None))


def _head(channels: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASS_NAMES))
