"""Ekiz, Kaplan & Ertunç 2021: what a convolutional network finds, told apart by a support vector machine ("Con-SVM").

A. Ekiz, K. Kaplan, H. M. Ertunç: Classification of white blood cells using CNN and Con-SVM, 29th Signal Processing
and Communications Applications Conference (SIU) 2021. Published: accuracy 85.95 %. Only a summary could be had:
neither the test cells nor the split are known here.

Known: a convolutional network is trained on the pictures; a support vector machine takes the place of its last layer.

Chosen: four blocks of convolution, batch normalisation, ReLU and pooling with 24 to 192 channels, averaged over the
picture, from scratch; a radial kernel, whose width and penalty are those with the highest macro F1 on "validation";
probabilities by one temperature, fitted there too. The machine learns from the plain pictures, without augmentation.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from torch import nn
from transformers import set_seed

from wbc_hf.data import Leucocytes
from wbc_hf.inference import batches
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.machines import SupportVectorMachine
from wbc_hf.survey.networks import Classifier, Logits, Recipe
from wbc_hf.survey.system import Published, System, pictures

_RECIPE = Recipe(epochs=14)
_CHANNELS = (24, 48, 96, 192)
_PENALTIES = (0.1, 1.0, 10.0, 100.0)
_GAMMAS = (0.1, 1.0, 10.0)
_PORTION = 256  # pictures held at a time


class Ekiz2021(System):
    """A convolutional network, then a support vector machine."""

    name = "ekiz-2021"
    title = "Ekiz et al. 2021, CNN and support vector machine"
    published = Published(
        source="Ekiz, Kaplan & Ertunç 2021, SIU",
        accuracy=0.8595,
        cells="not known",
        copies_apart=None,
    )
    start = "from scratch"

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe = _RECIPE):
        super().__init__(folder, seed)
        set_seed(seed)
        self._network = _build_network()
        self._classifier = Classifier(Logits(self._network), recipe, folder / "network", seed)
        self._machine = SupportVectorMachine(_PENALTIES, _GAMMAS)

    def fit(self, leucocytes: Leucocytes) -> None:
        self._classifier.fit(leucocytes)
        train, validation = leucocytes["train"], leucocytes["validation"]
        self._machine.fit(
            self._features_of(train),
            np.array(train["label"]),
            self._features_of(validation),
            np.array(validation["label"]),
        )

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._machine.predict_proba(self._classifier.features(images, self._network.features))

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self._network.features.parameters()) + self._machine.parameters

    def _features_of(self, rows: Dataset) -> np.ndarray:
        portions = batches(pictures(rows), _PORTION)
        return np.concatenate([self._classifier.features(portion, self._network.features) for portion in portions])


def _build_network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip((3, *_CHANNELS), _CHANNELS, strict=False):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(features=features, head=nn.Linear(_CHANNELS[-1], len(CLASS_NAMES))))
