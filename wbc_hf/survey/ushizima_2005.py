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

import numpy as np
from PIL import Image

from wbc_hf.data import Leucocytes
from wbc_hf.survey.features import measure_cells
from wbc_hf.survey.machines import SupportVectorMachine
from wbc_hf.survey.system import Published, System, pictures

_COSTS = (1.0, 10.0, 100.0)
_GAMMAS = (0.1, 0.3, 1.0, 3.0)


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
        self._machine = SupportVectorMachine(_COSTS, _GAMMAS)
        self._machine.fit(
            measure_cells(pictures(train)),
            np.array(train["label"]),
            measure_cells(pictures(validation)),
            np.array(validation["label"]),
        )

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._machine.predict_proba(measure_cells(images))

    @property
    def parameters(self) -> int:
        return self._machine.parameters
