"""Tiwari et al. 2018: DCLNN, a network of two convolutions, against naive Bayes and a support vector machine.

P. Tiwari, J. Qian, Q. Li, B. Wang, D. Gupta, A. Khanna, J. J. P. C. Rodrigues, V. H. C. de Albuquerque: Detection of
subtype blood cells using deep learning, Cognitive Systems Research 52:1036-1044, doi:10.1016/j.cogsys.2018.08.022.

**Published.** Neither the figures nor the cells could be had, nor whether copies of one cell lie on both sides. Some
13,000 pictures of four kinds, as far as we remember: that would be the Kaggle set of copies of BCCD's photographs.

**Known.** A "double convolution layer neural network" is trained and compared with naive Bayes and a support vector
machine. The text was not to be had.

**Chosen.** DCLNN: two convolutions of 3 x 3 (32 and 64 channels) one after the other, pooling, dropout, a layer of 128
values, dropout, the classes: the small network that Keras' examples made common. Its pictures have 48 px: 64 px take
twice as long. Naive Bayes (with normal distributions) and the support vector machine (with a Gaussian kernel, its C
chosen by macro F1 on validation) see the colours of the pixels of pictures of 32 px; 64 px helped neither. The
machine's answers become probabilities by one temperature, fitted on validation.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.naive_bayes import GaussianNB
from torch import nn

from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Preprocessing, build_processor
from wbc_hf.survey.machines import SupportVectorMachine
from wbc_hf.survey.networks import OneNetwork, Recipe
from wbc_hf.survey.system import Published, System, pictures

_PUBLISHED = Published(
    source="Tiwari et al. 2018, Cognitive Systems Research 52:1036-1044, doi:10.1016/j.cogsys.2018.08.022",
    accuracy=None,
    cells="not known",
    copies_apart=None,
)
_RECIPE = Recipe(image_size=48, learning_rate=1e-3, width=1.0)
_CONVOLUTIONS = (32, 64)
_HIDDEN = 128
_PIXELS = 32
_COSTS = (1.0, 10.0)


class Tiwari2018Dclnn(OneNetwork):
    """DCLNN."""

    name = "tiwari-2018-dclnn"
    title = "Tiwari et al. 2018, DCLNN"
    published = _PUBLISHED

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe = _RECIPE):
        super().__init__(folder, seed, recipe)

    @staticmethod
    def _build(recipe: Recipe) -> nn.Module:
        return dclnn(recipe.image_size, recipe.width)


class Tiwari2018Bayes(System):
    """Naive Bayes on pixels. Nothing is drawn."""

    name = "tiwari-2018-bayes"
    title = "Tiwari et al. 2018, naive Bayes"
    published = _PUBLISHED

    def fit(self, leucocytes: Leucocytes) -> None:
        rows = leucocytes["train"]
        self._bayes = GaussianNB().fit(_pixels(pictures(rows)), rows["label"])

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._bayes.predict_proba(_pixels(images))

    @property
    def parameters(self) -> int:
        return self._bayes.theta_.size + self._bayes.var_.size + self._bayes.class_prior_.size


class Tiwari2018Svm(System):
    """A support vector machine on pixels. Nothing is drawn."""

    name = "tiwari-2018-svm"
    title = "Tiwari et al. 2018, support vector machine"
    published = _PUBLISHED

    def fit(self, leucocytes: Leucocytes) -> None:
        train, validation = leucocytes["train"], leucocytes["validation"]
        self._machine = SupportVectorMachine(_COSTS)
        self._machine.fit(
            _pixels(pictures(train)),
            np.array(train["label"]),
            _pixels(pictures(validation)),
            np.array(validation["label"]),
        )

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._machine.predict_proba(_pixels(images))

    @property
    def parameters(self) -> int:
        return self._machine.parameters


def dclnn(side: int, width: float) -> nn.Sequential:
    """DCLNN with `width` times the channels: float (n, 3, side, side) → logits (n, classes)."""
    first, second = (round(wide * width) for wide in _CONVOLUTIONS)
    # Two convolutions without padding take two pixels each, pooling takes half.
    left = (side - 4) // 2
    return nn.Sequential(
        nn.Conv2d(3, first, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(second * left**2, round(_HIDDEN * width)),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(round(_HIDDEN * width), len(CLASS_NAMES)),
    )


def _pixels(images: Iterable[Image.Image]) -> np.ndarray:
    """float64 (n, pixels x colours), 0 to 1, of RGB images: what networks see of them, but smaller."""
    preparation = Preprocessing(build_processor(_PIXELS))
    return np.stack([preparation.crop(image).ravel() for image in images]) / 255
