"""Manik, Saini & Vadera 2016: nucleus enhanced and segmented, geometry of nucleus and cell, a small neural network.

S. Manik, L. M. Saini, N. Vadera: Counting and classification of white blood cell using artificial neural network
(ANN), IEEE International Conference on Power Electronics, Intelligent Control and Energy Systems (ICPEICES) 2016,
doi:10.1109/ICPEICES.2016.7853644.

**Published.** Neither the figure nor the cells were available, nor whether near-duplicates were kept on one side.

**Known.** The nucleus is enhanced and segmented, features of the cell and of the nucleus are measured, an artificial
neural network decides.

**Chosen.** The enhancer is that of the project's segmentation, optical density in red and green less twice that in
blue. Features are the geometry of nucleus and cell, their ratio of areas, and the mean colours of both, standardised.
The network has one hidden layer of sigmoid units; their number and the weight decay are chosen on validation.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wbc_hf.data import Leucocytes
from wbc_hf.survey.features import CELL_SHAPE, MEAN_COLOURS, NUCLEUS_SHAPE, columns, measure_cells
from wbc_hf.survey.system import Published, System, pictures

_COLUMNS = columns((*NUCLEUS_SHAPE, *CELL_SHAPE, *MEAN_COLOURS))
_UNITS = (10, 20, 40)
_DECAYS = (1e-4, 1e-2, 1e-1)
_ITERATIONS = 300


class Manik2016(System):
    """A small neural network on geometry and mean colours."""

    name = "manik-2016"
    title = "After Manik et al. 2016, neural network on features"
    published = Published("Manik, Saini & Vadera 2016, ICPEICES, doi:10.1109/ICPEICES.2016.7853644")
    start = "from scratch"

    def fit(self, leucocytes: Leucocytes) -> None:
        train, validation = leucocytes["train"], leucocytes["validation"]
        features, unseen = (measure_cells(pictures(rows))[:, _COLUMNS] for rows in (train, validation))
        fixed = {"activation": "logistic", "solver": "lbfgs", "max_iter": _ITERATIONS, "random_state": self.seed}
        networks = (MLPClassifier((units,), alpha=decay, **fixed) for units, decay in product(_UNITS, _DECAYS))
        self._network = max(
            (make_pipeline(StandardScaler(), network).fit(features, train["label"]) for network in networks),
            key=lambda fitted: balanced_accuracy_score(validation["label"], fitted.predict(unseen)),
        )

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._network.predict_proba(measure_cells(images)[:, _COLUMNS])

    @property
    def parameters(self) -> int:
        scaler, network = self._network[0], self._network[1]
        return sum(part.size for part in (scaler.mean_, scaler.scale_, *network.coefs_, *network.intercepts_))
