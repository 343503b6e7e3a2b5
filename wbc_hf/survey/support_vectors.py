"""Systems that end in a support vector machine."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import ClassVar

import numpy as np
from datasets import Dataset
from PIL import Image
from scipy.special import softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from wbc_hf.data import Leucocytes
from wbc_hf.evaluation import compute_metrics
from wbc_hf.modeling import fit_temperature
from wbc_hf.survey.system import System, pictures


class SupportVectorMachine:
    """A support vector machine with a Gaussian kernel on standardised features, with calibrated probabilities.

    Args:
        costs: Penalties C to choose from.
        gammas: Kernel coefficients to choose from, as multiples of 1 / number of features.
    """

    def __init__(self, costs: Sequence[float], gammas: Sequence[float] = (1.0,)):
        self._grid = list(product(costs, gammas))

    def fit(self, features: np.ndarray, labels: np.ndarray, unseen: np.ndarray, unseen_labels: np.ndarray) -> None:
        """Fit on training cells; choose cost and kernel by macro F1 on validation cells, and fit a temperature there.

        Args:
            features, unseen: float (n, d) and (m, d), of training and of validation cells.
            labels, unseen_labels: Class indices, (n,) and (m,). All classes must occur among the first.
        """

        def macro_f1(machine: Pipeline) -> float:
            return compute_metrics(unseen_labels, machine.decision_function(unseen).argmax(1))["macro_f1"]

        svcs = (SVC(C=cost, gamma=gamma / features.shape[1]) for cost, gamma in self._grid)
        self._machine = max((make_pipeline(StandardScaler(), svc).fit(features, labels) for svc in svcs), key=macro_f1)
        self._temperature = fit_temperature(self._machine.decision_function(unseen), unseen_labels)

    def fit_splits(self, leucocytes: Leucocytes, compute: Callable[[Dataset], np.ndarray]) -> None:
        """Fit on "train" and "validation"; `compute` gives the features of a split."""
        train, validation = leucocytes["train"], leucocytes["validation"]
        labels, unseen_labels = (np.array(rows["label"]) for rows in (train, validation))
        self.fit(compute(train), labels, compute(validation), unseen_labels)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Compute probabilities, float (n, 5) with rows of sum 1, from features (n, d)."""
        return softmax(self._machine.decision_function(features) / self._temperature, axis=1)

    @property
    def parameters(self) -> int:
        """Number of learnt values: scaling of the features, support vectors and their weights, temperature."""
        scaler, svc = self._machine[0], self._machine[1]
        learnt = (scaler.mean_, scaler.scale_, svc.support_vectors_, svc.dual_coef_, svc.intercept_)
        return sum(part.size for part in learnt) + 1


class SupportVectorSystem(System):
    """A system that is a support vector machine on features of each picture.

    Attributes:
        costs, gammas: As for `SupportVectorMachine`.
    """

    costs: ClassVar[Sequence[float]]
    gammas: ClassVar[Sequence[float]] = (1.0,)

    @abstractmethod
    def features(self, images: Iterable[Image.Image]) -> np.ndarray:
        """Compute the features of RGB images, float (n, d)."""

    def fit(self, leucocytes: Leucocytes) -> None:
        self._machine = SupportVectorMachine(self.costs, self.gammas)
        self._machine.fit_splits(leucocytes, lambda rows: self.features(pictures(rows)))

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._machine.predict_proba(self.features(images))

    @property
    def parameters(self) -> int:
        return self._machine.parameters
