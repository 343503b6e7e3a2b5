"""Yu et al. 2017: several networks of ImageNet, fine-tuned, and a majority vote.

W. Yu, J. Chang, C. Yang, L. Zhang, H. Shen, Y. Xia, J. Sha: Automatic classification of leukocytes using deep neural
network, IEEE 12th International Conference on ASIC (ASICON) 2017, doi:10.1109/ASICON.2017.8252657.

**Published.** Neither the figure nor the cells could be had, nor whether copies of one cell lie on both sides.

**Known.** Several networks trained on ImageNet are fine-tuned on leucocytes; the class with the most votes wins. The
text was not to be had. That they were ResNet-50, Inception-V3, VGG-16, VGG-19 and Xception is from memory.

**Chosen.** Three of the five, of three families, so that two cores can train them: ResNet-50, VGG-16 and Xception,
each with a quarter of its channels, from scratch, for pictures of 80 px. VGG-16 has batch normalisation, without which
it does not train from scratch, and a head of one layer after the mean over the picture in place of two of 4,096
values. Where the Hub can be reached ResNet-50 is whole and starts from ImageNet; the Hub has no weights of the other
two in a form that transformers reads. If votes are equal the higher sum of probabilities wins.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import set_seed

from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import DEFAULT_MODEL, build_from_pretrained, build_from_scratch
from wbc_hf.survey.networks import Classifier, Logits, Recipe, fine_tuning, imagenet_weights
from wbc_hf.survey.system import Published, System

_RECIPE = Recipe(image_size=80, epochs=8)
# Channels of VGG-16's convolutions, between one pooling and the next (Simonyan & Zisserman 2015, arXiv:1409.1556).
_VGG_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Channels of Xception's flows: entry, middle, exit (Chollet 2017, arXiv:1610.02357, figure 5).
_ENTRY = (128, 256, 728)
_MIDDLE_BLOCKS = 8
_EXIT = (1024, 1536, 2048)


class Yu2017(System):
    """ResNet-50, VGG-16 and Xception, and their majority."""

    name = "yu-2017"
    title = "Yu et al. 2017, vote of networks"
    published = Published(
        source="Yu, Chang, Yang, Zhang, Shen, Xia, Sha 2017, ASICON, doi:10.1109/ASICON.2017.8252657",
        accuracy=None,
        cells="not known",
        copies_apart=None,
    )

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe = _RECIPE):
        super().__init__(folder, seed)
        self.recipe = recipe
        self._classifiers: list[Classifier] = []

    def fit(self, leucocytes: Leucocytes) -> None:
        weights = imagenet_weights(DEFAULT_MODEL)
        self.start = "from scratch" if weights is None else "ImageNet (ResNet-50), from scratch (VGG-16, Xception)"
        set_seed(self.seed)
        if weights is None:
            resnet, _ = build_from_scratch(self.recipe.width, image_size=self.recipe.image_size)
        else:
            resnet, _ = build_from_pretrained(weights, image_size=self.recipe.image_size)
        vgg, last = Logits(vgg_16(self.recipe.width)), Logits(xception(self.recipe.width))
        # A folder of its own: a checkpoint of one does not fit the other.
        name, recipe = ("resnet-50", self.recipe) if weights is None else ("resnet-imagenet", fine_tuning(self.recipe))
        self._classifiers = [
            Classifier(resnet, recipe, self.folder / name, self.seed),
            Classifier(vgg, self.recipe, self.folder / "vgg-16", self.seed),
            Classifier(last, self.recipe, self.folder / "xception", self.seed),
        ]
        for classifier in self._classifiers:
            classifier.fit(leucocytes)

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        """See `vote`."""
        return vote(np.stack([classifier.probabilities(images) for classifier in self._classifiers]))

    @property
    def parameters(self) -> int:
        return sum(classifier.parameters for classifier in self._classifiers)


def vote(probabilities: np.ndarray) -> np.ndarray:
    """Shares of the votes, where the voters together have one more vote and part it as their mean probabilities.

    That vote decides between classes with equally many, and never against one with more: float (n, classes), rows of
    sum 1.

    Args:
        probabilities: float (voters, n, classes), rows of sum 1.
    """
    voters, _, classes = probabilities.shape
    votes = np.eye(classes)[probabilities.argmax(2)].sum(0)
    return (votes + probabilities.mean(0, dtype=np.float64)) / (voters + 1)


def vgg_16(width: float) -> nn.Sequential:
    """VGG-16 with batch normalisation and `width` times the channels: float (n, 3, side, side) → (n, classes)."""
    layers: list[nn.Module] = []
    channels = 3
    for block in _VGG_16:
        for wide in block:
            outputs = round(wide * width)
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_head(channels))


def xception(width: float) -> nn.Sequential:
    """Xception with `width` times the channels: float (n, 3, side, side) → logits (n, classes)."""
    stem, second = round(32 * width), round(64 * width)
    layers: list[nn.Module] = [
        nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
        nn.Conv2d(stem, second, 3, padding=1, bias=False),
        nn.BatchNorm2d(second),
    ]
    channels = second
    for wide in _ENTRY:
        outputs = round(wide * width)
        layers.append(_Separable((channels, outputs, outputs), halves=True))
        channels = outputs
    layers += [_Separable((channels,) * 4, halves=False) for _ in range(_MIDDLE_BLOCKS)]
    last, *ends = (round(wide * width) for wide in _EXIT)
    layers.append(_Separable((channels, channels, last), halves=True))
    channels = last
    for outputs in ends:
        layers += [*_separable(channels, outputs), nn.ReLU(inplace=True)]
        channels = outputs
    return nn.Sequential(*layers, *_head(channels))


class _Separable(nn.Module):
    """Separable convolutions, each after an activation, with a way around them; one that halves the picture pools."""

    def __init__(self, channels: tuple[int, ...], halves: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(channels):
            # Not in place: the way around them takes the same input.
            layers += [nn.ReLU(), *_separable(inputs, outputs)]
        # Each block passes on what it gets at first, which trains faster: Goyal et al. 2017, arXiv:1706.02677.
        nn.init.zeros_(layers[-1].weight)
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels[0], channels[-1], 1, stride=2, bias=False), nn.BatchNorm2d(channels[-1])
            )
        self.body = nn.Sequential(*layers)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.body(hidden) + self.shortcut(hidden)


def _separable(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return (
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _head(channels: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASS_NAMES))
