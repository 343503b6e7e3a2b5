"""Ushizima, Lorena & de Carvalho 2005: features of nucleus and cytoplasm, a support vector machine.

D. M. Ushizima, A. C. Lorena, A. C. P. L. F. de Carvalho: Support vector machines applied to white blood cell
recognition, International Conference on Hybrid Intelligent Systems (HIS) 2005.

**Published.** Support vector machines told kinds of white blood cells apart by a few features. Neither the figure nor
the cells could be had, nor whether copies of one cell lie on both sides.

**Known.** Nucleus and cytoplasm are measured, a support vector machine decides.

**Chosen.** What is measured follows Osowski & Markiewicz (2007, Kernel Methods in Bioengineering, Signal and Image
Processing, chapter 4): geometry, statistics of the intensity and texture of the nucleus and of the cytoplasm. They too
select features, by a linear machine; here all are kept. The kernel is Gaussian; the cost and the width of the kernel
are chosen on validation. The machine's answers become probabilities by one temperature, fitted on validation.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from wbc_hf.data import Leucocytes
from wbc_hf.modeling import fit_temperature
from wbc_hf.survey.features import measure_cells
from wbc_hf.survey.system import Published, System, pictures

_COSTS = (1.0, 10.0, 100.0)
_GAMMAS = (0.001, 0.003, 0.01, 0.03)  # of features whose variance is 1


class Ushizima2005(System):
    """A support vector machine on features of nucleus and cytoplasm. Nothing is drawn."""

    name = "ushizima-2005"
    title = "Ushizima et al. 2005, support vector machine"
    published = Published(
        source="Ushizima, Lorena & de Carvalho 2005, HIS",
        accuracy=None,
        cells="not known",
        copies_apart=None,
    )

    def fit(self, leucocytes: Leucocytes) -> None:
        train, validation = leucocytes["train"], leucocytes["validation"]
        features, unseen = measure_cells(pictures(train)), measure_cells(pictures(validation))
        labels = np.asarray(validation["label"])
        best = -1.0
        for cost, gamma in product(_COSTS, _GAMMAS):
            machine = make_pipeline(StandardScaler(), SVC(C=cost, gamma=gamma)).fit(features, train["label"])
            logits = machine.decision_function(unseen)
            accuracy = balanced_accuracy_score(labels, logits.argmax(axis=1))
            if accuracy > best:
                best, self._machine, self._temperature = accuracy, machine, fit_temperature(logits, labels)

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return softmax(self._machine.decision_function(measure_cells(images)) / self._temperature, axis=1)

    @property
    def parameters(self) -> int:
        scaler, svc = self._machine[0], self._machine[1]
        learnt = (scaler.mean_, scaler.scale_, svc.support_vectors_, svc.dual_coef_, svc.intercept_)
        # With the temperature.
        return sum(part.size for part in learnt) + 1
