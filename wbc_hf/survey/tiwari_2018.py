"""Tiwari et al. 2018: DCLNN, a network of two convolutions, against naive Bayes and a support vector machine.

P. Tiwari, J. Qian, Q. Li, B. Wang, D. Gupta, A. Khanna, J. J. P. C. Rodrigues, V. H. C. de Albuquerque: Detection of
subtype blood cells using deep learning, Cognitive Systems Research 52:1036-1044, doi:10.1016/j.cogsys.2018.08.022.

**Published.** Neither the figures nor the cells were available, nor whether near-duplicates were kept on one side.
Some 13,000 pictures of four kinds, from memory: that would be Kaggle's augmented set of BCCD's photographs.

**Known.** A "double convolution layer neural network" is trained and compared with naive Bayes and a support vector
machine. The text was unavailable.

**Chosen.** DCLNN is the small network that Keras' examples made common: two convolutions of 3 x 3 (32 and 64
channels), pooling, dropout, a layer of 128 values, dropout, the classes. Its pictures have 48 px: 64 px take twice as
long. Naive Bayes (with normal distributions) and the support vector machine (with a Gaussian kernel, its cost chosen
by macro F1 on validation) take the colours of pictures of 32 px; 64 px helped neither. One temperature, fitted on
validation, turns decision values into probabilities.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from sklearn.naive_bayes import GaussianNB
from torch import nn

from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Preprocessing, build_processor
from wbc_hf.survey.networks import OneNetwork, Recipe
from wbc_hf.survey.support_vectors import SupportVectorSystem
from wbc_hf.survey.system import Published, System, pictures

_PUBLISHED = Published("Tiwari et al. 2018, Cognitive Systems Research 52:1036-1044, doi:10.1016/j.cogsys.2018.08.022")
_CONVOLUTIONS = (32, 64)
_HIDDEN = 128
_PIXELS = 32


class Tiwari2018Dclnn(OneNetwork):
    """DCLNN."""

    name = "tiwari-2018-dclnn"
    title = "After Tiwari et al. 2018, DCLNN"
    published = _PUBLISHED
    default_recipe = Recipe(image_size=48, learning_rate=1e-3, width=1.0)

    @staticmethod
    def build(recipe: Recipe) -> nn.Module:
        return dclnn(recipe.image_size, recipe.width)


class Tiwari2018Bayes(System):
    """Naive Bayes on pixels. It is deterministic."""

    name = "tiwari-2018-bayes"
    title = "After Tiwari et al. 2018, naive Bayes"
    published = _PUBLISHED

    def fit(self, leucocytes: Leucocytes) -> None:
        rows = leucocytes["train"]
        self._bayes = GaussianNB().fit(_pixels(pictures(rows)), rows["label"])

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._bayes.predict_proba(_pixels(images))

    @property
    def parameters(self) -> int:
        return self._bayes.theta_.size + self._bayes.var_.size + self._bayes.class_prior_.size


class Tiwari2018Svm(SupportVectorSystem):
    """A support vector machine on pixels. It is deterministic."""

    name = "tiwari-2018-svm"
    title = "After Tiwari et al. 2018, support vector machine"
    published = _PUBLISHED
    costs = (1.0, 10.0)

    def features(self, images: Iterable[Image.Image]) -> np.ndarray:
        return _pixels(images)


def dclnn(side: int, width: float) -> nn.Sequential:
    """Build DCLNN with `width` times the channels: float (n, 3, side, side) → logits (n, classes)."""
    first, second = (round(wide * width) for wide in _CONVOLUTIONS)
    # Two convolutions without padding take two pixels each, pooling halves.
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
    """Colours of RGB images, preprocessed as for networks but smaller: float64 (n, pixels x colours), 0 to 1."""
    preprocessing = Preprocessing(build_processor(_PIXELS))
    return np.stack([preprocessing.crop(image).ravel() for image in images]) / 255
