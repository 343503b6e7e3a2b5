"""How far images lie from those of the laboratories that a model has learned: to tell a new laboratory.

The out-of-distribution score does not tell. A laboratory whose smears vary much sets its threshold, and the cells of a
new one lie no farther from a laboratory whose smears vary little. Here each laboratory is measured by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wbc_hf.modeling.out_of_distribution import OutOfDistributionScore, mean_of_nearest

# Cells that suffice to tell another laboratory by their median; a single cell does not tell.
MIN_DROP = 10
# Share of such drops of a laboratory's own cells that the limit calls foreign.
_FOREIGN_SHARE = 0.01
_DROPS = 1000
_MIN_OF_CLASS = 5  # a class with fewer cells is left out of the drops


@dataclass(frozen=True)
class LaboratoryDistance:
    """Distance to the nearest of several laboratories, each in units of what is usual within it.

    Attributes:
        members: Number of the laboratory of each reference of the out-of-distribution score, int8 (m,).
        scales: Median score of each laboratory's own images that were not trained on.
        limit: Several cells whose median distance is larger are of another laboratory.
    """

    members: np.ndarray
    scales: tuple[float, ...]
    limit: float

    @classmethod
    def fit(
        cls,
        score: OutOfDistributionScore,
        members: Sequence[str],
        features: np.ndarray,
        labels: np.ndarray,
        laboratories: Sequence[str],
    ) -> "LaboratoryDistance":
        """Fit on images that were not trained on.

        Args:
            score: Fitted on training images.
            members: Laboratory of each of these.
            features, labels, laboratories: Of the other images: (n, d), (n,), and n names. Laboratories without any
                have none of the references.
        """
        names = [name for name in dict.fromkeys(members) if name in set(laboratories)]
        numbers = np.array([names.index(name) if name in names else -1 for name in members], dtype=np.int8)
        of, distances = np.array(laboratories), score.distances(features)
        scales = tuple(
            float(np.median(mean_of_nearest(distances[np.ix_(of == name, numbers == number)])))
            for number, name in enumerate(names)
        )
        unlimited = cls(numbers, scales, np.inf)
        return cls(numbers, scales, drop_limit(unlimited(distances), labels, laboratories))

    @classmethod
    def fit_one(cls, scores: np.ndarray, labels: np.ndarray) -> "LaboratoryDistance":
        """Fit a single laboratory on its own references.

        Args:
            scores: Of each reference among the others, (m,).
            labels: Of these, true or predicted, int (m,).
        """
        scale = float(np.median(scores))
        return cls(np.zeros(len(scores), np.int8), (scale,), drop_limit(scores / scale, labels))

    def __call__(self, distances: np.ndarray) -> np.ndarray:
        """Distances of images from the nearest laboratory: (n,), about 1 within one that was learned.

        Args:
            distances: To all references, (n, m), as `OutOfDistributionScore.distances` gives them.
        """
        # Of one laboratory alone nothing has to be picked out, which takes as long as the distances themselves.
        if not self.members.any():
            return mean_of_nearest(distances) / self.scales[0]
        of_each = [mean_of_nearest(distances[:, self.members == k]) / scale for k, scale in enumerate(self.scales)]
        return np.min(of_each, axis=0)


def drop_limit(distances: np.ndarray, labels: np.ndarray, laboratories: Sequence[str] = ()) -> float:
    """Fit the median distance of several cells above which they are of another laboratory.

    Drops of ten cells of each laboratory, in all proportions of the classes, give it: 99 % of those of the laboratory
    that varies most lie below.

    Args:
        distances: Of images that were not trained on, (n,).
        labels: Class indices, int (n,): true or predicted.
        laboratories: Of each image; by default all are of one.
    """
    rng = np.random.default_rng(0)
    of = np.array(laboratories or [""] * len(distances))
    limits = []
    for laboratory in np.unique(of):
        inside = of == laboratory
        scores = distances[inside]
        _, classes, counts = np.unique(labels[inside], return_inverse=True, return_counts=True)
        usable = counts >= min(_MIN_OF_CLASS, counts.max())
        medians = []
        for shares in rng.dirichlet(np.ones(usable.sum()), _DROPS):
            weights = np.zeros(len(counts))
            weights[usable] = shares / counts[usable]
            medians.append(np.median(rng.choice(scores, MIN_DROP, p=weights[classes])))
        limits.append(np.quantile(medians, 1 - _FOREIGN_SHARE))
    return float(max(limits))
