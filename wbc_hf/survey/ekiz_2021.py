"""Ekiz, Kaplan & Ertunç 2021: features of a convolutional network, classified by a support vector machine ("Con-SVM").

A. Ekiz, K. Kaplan, H. M. Ertunç: Classification of white blood cells using CNN and Con-SVM, 29th Signal Processing and
Communications Applications Conference (SIU) 2021.

**Published.** Accuracy 85.95 %. Only a summary was available: neither the test cells nor the split are known here.

**Known.** A convolutional network is trained on the pictures; a support vector machine replaces its last layer.

**Chosen.** Four blocks of convolution, batch normalisation, ReLU and pooling with 24 to 192 channels, averaged over
the picture, from scratch. The kernel is Gaussian; its width and cost are those with the highest macro F1 on
"validation", where one temperature for the probabilities is fitted too. The machine is fitted on pictures without
augmentation.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image
from torch import nn

from wbc_hf.data import Leucocytes
from wbc_hf.survey.networks import FeatureNetwork, OneNetwork, Recipe, convolution
from wbc_hf.survey.support_vectors import SupportVectorMachine
from wbc_hf.survey.system import Published, in_chunks

_CHANNELS = (24, 48, 96, 192)


class Ekiz2021(OneNetwork):
    """A convolutional network, then a support vector machine."""

    name = "ekiz-2021"
    title = "After Ekiz et al. 2021, CNN and support vector machine"
    published = Published("Ekiz, Kaplan & Ertunç 2021, SIU", accuracy=0.8595)
    default_recipe = Recipe(epochs=14)

    @staticmethod
    def build(recipe: Recipe) -> FeatureNetwork:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *_CHANNELS), _CHANNELS, strict=False):
            layers += [convolution(inputs, outputs), nn.MaxPool2d(2)]
        return FeatureNetwork(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), channels=_CHANNELS[-1])

    def fit(self, leucocytes: Leucocytes) -> None:
        super().fit(leucocytes)
        self._machine = SupportVectorMachine((0.1, 1.0, 10.0, 100.0), (0.1, 1.0, 10.0))
        self._machine.fit_splits(leucocytes, partial(in_chunks, self._features))

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._machine.predict_proba(self._features(images))

    @property
    def parameters(self) -> int:
        layers = self._classifiers[0].network.get_submodule("body.features")
        return sum(weight.numel() for weight in layers.parameters()) + self._machine.parameters

    def _features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._classifiers[0].features(images, "body.features")
