"""The support vector machine that several systems of the survey end in."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.special import softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from wbc_hf.evaluation import compute_metrics
from wbc_hf.modeling import fit_temperature


class SupportVectorMachine:
    """One with a Gaussian kernel, on features brought to one scale.

    Args:
        costs: Of a mistake, to choose from.
        gammas: Narrowness of the kernel, to choose from, in relation to one over the number of features.
    """

    def __init__(self, costs: Sequence[float], gammas: Sequence[float] = (1.0,)):
        self._grid = list(product(costs, gammas))
        self._machine: Pipeline | None = None
        self._temperature = 1.0

    def fit(self, features: np.ndarray, labels: np.ndarray, unseen: np.ndarray, unseen_labels: np.ndarray) -> None:
        """Learn from training cells; cost, kernel and temperature are chosen on those of validation.

        The pair with the highest macro F1 is taken. Decision values become probabilities by one temperature.

        Args:
            features, unseen: float (n, d) and (m, d), of training and of validation cells.
            labels, unseen_labels: Class indices, (n,) and (m,); among the first are all classes.
        """
        highest = -1.0
        for cost, gamma in self._grid:
            svc = SVC(C=cost, gamma=gamma / features.shape[1])
            machine = make_pipeline(StandardScaler(), svc).fit(features, labels)
            logits = machine.decision_function(unseen)
            macro_f1 = compute_metrics(unseen_labels, logits.argmax(1))["macro_f1"]
            if macro_f1 > highest:
                highest, self._machine = macro_f1, machine
                self._temperature = fit_temperature(logits, unseen_labels)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """float (n, 5), rows of sum 1, of features (n, d)."""
        return softmax(self._machine.decision_function(features) / self._temperature, axis=1)

    @property
    def parameters(self) -> int:
        """Scale of the features, support vectors with their weights, and the temperature."""
        scaler, svc = self._machine[0], self._machine[1]
        learnt = (scaler.mean_, scaler.scale_, svc.support_vectors_, svc.dual_coef_, svc.intercept_)
        return sum(part.size for part in learnt) + 1
