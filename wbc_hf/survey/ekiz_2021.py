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
from itertools import islice, product
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from scipy.special import softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn
from transformers import set_seed

from wbc_hf.data import Leucocytes
from wbc_hf.evaluation import compute_metrics
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import fit_temperature
from wbc_hf.survey.networks import Classifier, Logits, Recipe
from wbc_hf.survey.system import Published, System, pictures

_RECIPE = Recipe(epochs=14)
_CHANNELS = (24, 48, 96, 192)
_PENALTIES = (0.1, 1.0, 10.0, 100.0)
_GAMMAS = (0.1, 1.0, 10.0)  # in relation to one over the number of features, which are of variance 1


_PORTION = 256  # pictures held at a time


class Ekiz2021(System):
    """A convolutional network, then a support vector machine."""

    name = "ekiz-2021"
    title = "Ekiz et al. 2021: CNN, SVM"
    published = Published(
        source="Ekiz, Kaplan & Ertunç 2021, SIU",
        accuracy=0.8595,
        cells="not known here",
        copies_apart=None,
    )
    start = "from scratch"

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe = _RECIPE):
        super().__init__(folder, seed)
        set_seed(seed)
        self._network = _build_network()
        self._classifier = Classifier(Logits(self._network), recipe, folder / "network", seed)
        self._machine: Pipeline | None = None
        self._temperature = 1.0

    def fit(self, leucocytes: Leucocytes) -> None:
        self._classifier.fit(leucocytes)
        features = {split: self._features_of(leucocytes[split]) for split in ("train", "validation")}
        labels = {split: np.array(leucocytes[split]["label"]) for split in features}
        width = features["train"].shape[1]
        machines = [
            make_pipeline(StandardScaler(), SVC(C=penalty, gamma=gamma / width)).fit(
                features["train"], labels["train"]
            )
            for penalty, gamma in product(_PENALTIES, _GAMMAS)
        ]
        self._machine = max(
            machines,
            key=lambda machine: compute_metrics(
                labels["validation"].tolist(), machine.predict(features["validation"]).tolist()
            )["macro_f1"],
        )
        decisions = self._machine.decision_function(features["validation"])
        self._temperature = fit_temperature(decisions, labels["validation"])

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        features = self._classifier.features(images, self._network.features)
        return softmax(self._machine.decision_function(features) / self._temperature, axis=1)

    @property
    def parameters(self) -> int:
        machine = self._machine[-1]
        return self._classifier.parameters + sum(
            numbers.size for numbers in (machine.support_vectors_, machine.dual_coef_, machine.intercept_)
        )

    def _features_of(self, rows: Dataset) -> np.ndarray:
        images = pictures(rows)
        portions = iter(lambda: list(islice(images, _PORTION)), [])
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
