"""Toğaçar, Ergen & Cömert 2020: features of three networks, two selections, a quadratic discriminant.

M. Toğaçar, B. Ergen, Z. Cömert: Classification of white blood cells using deep features obtained from Convolutional
Neural Network models based on the combination of feature selection methods, Applied Soft Computing 97:106810,
doi:10.1016/j.asoc.2020.106810.

**Published.** Accuracy 97.95 %. Only the summary was available: whether near-duplicates were kept on one side is not
known here.

**Known.** AlexNet, GoogLeNet and ResNet-50 give 1000 features each, maximal information coefficient and ridge
regression select among them, a quadratic discriminant analysis classifies.

**Chosen.** Features are those before each network's head, which has five outputs here, not a thousand. All networks
are trained on the cells first, at a fraction of the published channels. AlexNet (Krizhevsky et al. 2012) has half its
first stride, so that its maps are as large as published though the picture is not; AlexNet and GoogLeNet (Szegedy et
al. 2015, arXiv:1409.4842) have batch normalisation, without which they do not train in minutes; GoogLeNet has no
auxiliary heads. ResNet-50 begins from ImageNet where a Hub can be reached. A feature is kept if both methods have it
among their best so many; how many, and how far the covariances are shrunk, is what gives the highest macro F1 on
"validation". Where the kept features hardly vary within a class (one of them may be constant there), its covariance
would be singular: a small variance is added to it. The coefficient is against the numbered label, see
`wbc_hf.survey.information`. Ridge regression is on one column a class, and a feature's weight is the length of its row
of coefficients.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from PIL import Image
from sklearn.covariance import ShrunkCovariance, empirical_covariance
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import set_seed

from wbc_hf.data import Leucocytes
from wbc_hf.evaluation import compute_metrics
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.information import maximal_information
from wbc_hf.survey.networks import Classifier, FeatureNetwork, Logits, NetworkSystem, Recipe, build_resnet, convolution
from wbc_hf.survey.system import Published, in_chunks

_LAYERS = ("body.features", "body.features", "resnet.pooler")  # before the heads of the three networks
_BEST = (0.05, 0.1, 0.2, 0.4)  # shares of the features that either method puts first
_SHRINKAGE = (0.01, 0.1, 0.3, 0.6)  # of each covariance towards a sphere
_LEAST_VARIANCE = 2e-4  # of features of variance 1; scikit-learn refuses covariances with less than 1e-4


class Togacar2020(NetworkSystem):
    """A quadratic discriminant on selected features of AlexNet, GoogLeNet and ResNet-50."""

    name = "togacar-2020"
    title = "After Toğaçar et al. 2020, features of three networks"
    published = Published("Toğaçar, Ergen & Cömert 2020, Applied Soft Computing 97:106810", accuracy=0.9795)
    default_recipe = Recipe(epochs=8)

    def fit(self, leucocytes: Leucocytes) -> None:
        self._classifiers = self._build_networks()
        for classifier in self._classifiers:
            classifier.fit(leucocytes)
        train, validation = (in_chunks(self._features, leucocytes[split]) for split in ("train", "validation"))
        labels, references = (np.array(leucocytes[split]["label"]) for split in ("train", "validation"))
        self._scaler = StandardScaler()
        train = self._scaler.fit_transform(train)
        validation = self._scaler.transform(validation)
        by_information = np.argsort(-maximal_information(train, labels), kind="stable")
        by_ridge = np.argsort(-_ridge_weights(train, labels), kind="stable")
        highest = -1.0
        for share, shrinkage in product(_BEST, _SHRINKAGE):
            best = round(share * train.shape[1])
            kept = np.intersect1d(by_information[:best], by_ridge[:best])
            if not len(kept):
                continue
            discriminant = _fit_discriminant(train[:, kept], labels, shrinkage)
            given = discriminant.predict(validation[:, kept])
            score = compute_metrics(references.tolist(), given.tolist())["macro_f1"]
            if score > highest:
                highest, self._kept, self._discriminant = score, kept, discriminant

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        features = self._scaler.transform(self._features(images))[:, self._kept]
        probabilities = np.zeros((len(images), len(CLASS_NAMES)))
        probabilities[:, self._discriminant.classes_] = self._discriminant.predict_proba(features)
        return probabilities

    @property
    def parameters(self) -> int:
        features = len(self._kept)
        # Of each class a mean, a symmetrical covariance and a share of the cells.
        discriminant = len(self._discriminant.classes_) * (features + features * (features + 1) // 2 + 1)
        scale = self._scaler.mean_.size + self._scaler.scale_.size
        return discriminant + scale + super().parameters

    def _build_networks(self) -> list[Classifier]:
        set_seed(self.seed)
        alexnet, googlenet = _build_alexnet(self.recipe.width), _build_googlenet(self.recipe.width)
        resnet, self.start = build_resnet(self.recipe, self.folder, self.seed)
        return [
            Classifier(Logits(alexnet), self.recipe, self.folder / "alexnet", self.seed),
            Classifier(Logits(googlenet), self.recipe, self.folder / "googlenet", self.seed),
            resnet,
        ]

    def _features(self, images: Sequence[Image.Image]) -> np.ndarray:
        pairs = zip(self._classifiers, _LAYERS, strict=True)
        return np.concatenate([classifier.features(images, layer) for classifier, layer in pairs], 1)


class _RegularisedCovariance(ShrunkCovariance):
    """A covariance (1 - s) S + v I, where v is s times the mean variance of S, but no less than `_LEAST_VARIANCE`."""

    def fit(self, X, y=None):  # noqa: N803
        covariance = empirical_covariance(X)
        variance = max(self.shrinkage * np.trace(covariance) / len(covariance), _LEAST_VARIANCE)
        self.covariance_ = (1 - self.shrinkage) * covariance + variance * np.eye(len(covariance))
        return self


def _fit_discriminant(features: np.ndarray, labels: np.ndarray, shrinkage: float) -> QuadraticDiscriminantAnalysis:
    """Fit a quadratic discriminant on features (n, d), which may be constant within a class."""
    return QuadraticDiscriminantAnalysis(
        solver="eigen", covariance_estimator=_RegularisedCovariance(shrinkage=shrinkage)
    ).fit(features, labels)


def _ridge_weights(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Length of each standardised feature's row of ridge coefficients, (d,)."""
    return np.linalg.norm(RidgeClassifier().fit(features, labels).coef_, axis=0)


def _halve() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, padding=1)


def _build_alexnet(width: float) -> FeatureNetwork:
    """Five convolutions and two wide layers: Krizhevsky et al. 2012, figure 2, for one device instead of two."""
    first, second, third, fourth, fifth, dense = (
        round(channels * width) for channels in (96, 256, 384, 384, 256, 4096)
    )
    return FeatureNetwork(
        convolution(3, first, 11, 2),
        _halve(),
        convolution(first, second, 5),
        _halve(),
        convolution(second, third, 3),
        convolution(third, fourth, 3),
        convolution(fourth, fifth, 3),
        _halve(),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(fifth * 36, dense),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(dense, dense),
        nn.ReLU(inplace=True),
        channels=dense,
    )


# Of Szegedy et al. 2015, table 1: channels after 1 x 1, before and after 3 x 3, before and after 5 x 5, after pooling.
_INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_BEFORE_INCEPTIONS = (64, 64, 192)


class _Inception(nn.Module):
    """Four paths side by side, whose channels are put together."""

    def __init__(self, inputs: int, channels: Sequence[int]):
        super().__init__()
        alone, before_3, after_3, before_5, after_5, pooled = channels
        self.outputs = alone + after_3 + after_5 + pooled
        self.paths = nn.ModuleList(
            [
                convolution(inputs, alone, 1),
                nn.Sequential(convolution(inputs, before_3, 1), convolution(before_3, after_3, 3)),
                nn.Sequential(convolution(inputs, before_5, 1), convolution(before_5, after_5, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, padding=1), convolution(inputs, pooled, 1)),
            ]
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([path(images) for path in self.paths], 1)


def _build_googlenet(width: float) -> FeatureNetwork:
    """Nine inception modules: Szegedy et al. 2015, table 1."""
    first, reduced, channels = (round(number * width) for number in _BEFORE_INCEPTIONS)
    layers: list[nn.Module] = [
        convolution(3, first, 7, 2),
        _halve(),
        convolution(first, reduced, 1),
        convolution(reduced, channels, 3),
        _halve(),
    ]
    for name, numbers in _INCEPTIONS.items():
        if name in ("4a", "5a"):
            layers.append(_halve())
        inception = _Inception(channels, [round(number * width) for number in numbers])
        layers.append(inception)
        channels = inception.outputs
    return FeatureNetwork(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), channels=channels)
