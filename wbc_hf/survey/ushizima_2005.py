"""Ushizima, Lorena & de Carvalho 2005: features of nucleus and cytoplasm, a support vector machine.

D. M. Ushizima, A. C. Lorena, A. C. P. L. F. de Carvalho: Support vector machines applied to white blood cell
recognition, International Conference on Hybrid Intelligent Systems (HIS) 2005.

**Published.** Support vector machines classify white blood cells by a few features. Neither the figure nor the cells
were available, nor whether near-duplicates were kept on one side.

**Known.** Nucleus and cytoplasm are measured, a support vector machine decides.

**Chosen.** Features follow Osowski & Markiewicz (2007, Kernel Methods in Bioengineering, Signal and Image Processing,
chapter 4): geometry, statistics of the intensity and texture of nucleus and cytoplasm. They also select features by a
linear machine; here all are kept. The kernel is Gaussian; its cost and width are chosen on validation. One
temperature, fitted on validation, turns decision values into probabilities.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from wbc_hf.survey.features import measure_cells
from wbc_hf.survey.support_vectors import SupportVectorSystem
from wbc_hf.survey.system import Published


class Ushizima2005(SupportVectorSystem):
    """A support vector machine on features of nucleus and cytoplasm. It is deterministic."""

    name = "ushizima-2005"
    title = "After Ushizima et al. 2005, support vector machine"
    published = Published("Ushizima, Lorena & de Carvalho 2005, HIS")
    costs = (1.0, 10.0, 100.0)
    gammas = (0.1, 0.3, 1.0, 3.0)

    def features(self, images: Iterable[Image.Image]) -> np.ndarray:
        return measure_cells(images)
