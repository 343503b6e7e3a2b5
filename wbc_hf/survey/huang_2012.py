"""Huang & Hung 2012: principal components of nucleus features, K-means initialised by a genetic algorithm.

D.-C. Huang, K.-D. Hung: Leukocyte nucleus segmentation and recognition in color blood-smear images, IEEE International
Instrumentation and Measurement Technology Conference (I2MTC) 2012, pages 171-176.

**Published.** "A high and promised accurate recognition rate" of the five classes, says the abstract. Neither the
figure nor the cells were available, nor whether near-duplicates were kept on one side.

**Known.** A nucleus enhancer suppresses everything else; the nucleus is segmented; features of the nucleus alone are
reduced by principal component analysis; K-means with a genetic algorithm clusters them into the five classes.

**Chosen.** The enhancer is that of the project's segmentation, optical density in red and green less twice that in
blue. Features are shape and texture of the nucleus, standardised; the principal components kept hold 95 % of the
variance. The genetic algorithm is that of Krishna & Murty (1999, IEEE Transactions on Systems, Man, and Cybernetics B
29(3):433-439) with centres as genes: a child takes each centre from one of its parents or, rarely, from a random cell,
one step of K-means follows, and tournaments select parents with tight clusters. K-means starts from the best. The
number of clusters is chosen on validation: with five, which the abstract suggests, two classes often share one, and 59
% of PBC's validation cells are right. The probabilities of a cell are the shares of the classes among the training
cells of its cluster, with one more of each (Laplace smoothing).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.features import NUCLEUS_SHAPE, NUCLEUS_TEXTURE, columns, measure_cells
from wbc_hf.survey.system import Published, System, pictures

_COLUMNS = columns((*NUCLEUS_SHAPE, *NUCLEUS_TEXTURE))
_VARIANCE = 0.95
# With more of them, each would hold too few cells.
_CLUSTERS = (5, 10, 20, 40, 80)
_POPULATION = 20
_GENERATIONS = 15
_TOURNAMENT = 3  # individuals drawn, of which the best becomes a parent
_MUTATION = 0.02


class Huang2012(System):
    """Clusters of nuclei, each with the shares of its classes."""

    name = "huang-2012"
    title = "After Huang & Hung 2012, clusters of nuclei"
    published = Published("Huang & Hung 2012, I2MTC, 171-176", cells="five kinds, number not known")

    def fit(self, leucocytes: Leucocytes) -> None:
        train, validation = leucocytes["train"], leucocytes["validation"]
        features, labels = measure_cells(pictures(train))[:, _COLUMNS], np.asarray(train["label"])
        self._reduce = make_pipeline(StandardScaler(), PCA(_VARIANCE, svd_solver="full"))
        cells = self._reduce.fit_transform(features)
        unseen = self._reduce.transform(measure_cells(pictures(validation))[:, _COLUMNS])
        best = -1.0
        for count in _CLUSTERS:
            if count > len(cells):
                break
            centres = evolve_centres(cells, count, np.random.default_rng([self.seed, count]))
            clusters = KMeans(count, init=centres, n_init=1).fit(cells)
            shares = shares_of_classes(clusters.labels_, labels, count)
            named = shares[clusters.predict(unseen)].argmax(axis=1)
            accuracy = balanced_accuracy_score(validation["label"], named)
            if accuracy > best:
                best, self._clusters, self._shares = accuracy, clusters, shares

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        cells = self._reduce.transform(measure_cells(images)[:, _COLUMNS])
        return self._shares[self._clusters.predict(cells)]

    @property
    def parameters(self) -> int:
        scaler, components = self._reduce[0], self._reduce[1]
        learnt = (scaler.mean_, scaler.scale_, components.mean_, components.components_)
        return sum(part.size for part in (*learnt, self._clusters.cluster_centers_, self._shares))


def shares_of_classes(clusters: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Compute the classes' shares in each cluster, with one more cell of each: float (count, classes), rows of sum 1.

    Args:
        clusters: int (n,), the cluster of each cell.
        labels: int (n,).
        count: Number of clusters.
    """
    cells = np.ones((count, len(CLASS_NAMES)))
    np.add.at(cells, (clusters, labels), 1)
    return cells / cells.sum(axis=1, keepdims=True)


def evolve_centres(cells: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Find centres of tight clusters, float (count, d), by a genetic algorithm.

    Args:
        cells: float (n, d), n >= count.
    """
    population = [cells[generator.choice(len(cells), count, replace=False)] for _ in range(_POPULATION)]
    for _ in range(_GENERATIONS):
        stepped = [_step(cells, centres) for centres in population]
        population, spreads = [centres for centres, _ in stepped], np.array([spread for _, spread in stepped])
        children = [population[spreads.argmin()]]
        while len(children) < _POPULATION:
            mother, father = (
                population[min(generator.choice(_POPULATION, _TOURNAMENT, replace=False), key=spreads.__getitem__)]
                for _ in range(2)
            )
            # Each centre of the mother is paired with one near by in the father.
            father = father[linear_sum_assignment(cdist(mother, father))[1]]
            child = np.where(generator.random((count, 1)) < 0.5, mother, father)
            mutated = generator.random(count) < _MUTATION
            child[mutated] = cells[generator.integers(len(cells), size=mutated.sum())]
            children.append(child)
        population = children
    return population[0]


def _step(cells: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Do one step of K-means: the new centres, and the sum of squared distances from the old ones."""
    distances = cdist(cells, centres, "sqeuclidean")
    nearest = distances.argmin(axis=1)
    sizes = np.bincount(nearest, minlength=len(centres))
    sums = np.stack([np.bincount(nearest, column, len(centres)) for column in cells.T], axis=1)
    middles = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return middles, float(distances.min(axis=1).sum())
