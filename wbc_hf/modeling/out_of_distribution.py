"""Out-of-distribution score: how far an image lies from the training images in a network's feature space."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Share of a laboratory's own cells that the threshold rejects.
OUT_OF_DISTRIBUTION_SHARE = 0.025
_COMPONENTS = 32
_NEIGHBOURS = 5
_AT_ONCE = 1024  # references, whose differences stay in the processor's cache


@dataclass(frozen=True)
class OutOfDistributionScore:
    """Mean distance to the nearest training images (Sun et al. 2022, arXiv:2204.06507).

    Attributes:
        mean: float32 (d,), of the training images' features.
        components: float32 (d, r), their principal components.
        references: float32 (m, r), training images in those components. Like the components they are rounded to half
            precision, as the file stores them, so that thresholds are fitted on what is read back.
    """

    mean: np.ndarray
    components: np.ndarray
    references: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "OutOfDistributionScore":
        """Fit on features of training images, float32 (m, d), as `forward_with_features` returns them."""
        mean = features.mean(0)
        _, _, directions = np.linalg.svd(features - mean, full_matrices=False)
        mean, components = mean.astype(np.float32), _round_to_half(directions[:_COMPONENTS].T)
        return cls(mean, components, _round_to_half((features - mean) @ components))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Scores of images by their features (n, d): (n,), 0 or more, higher for images less like the training's."""
        return mean_of_nearest(self.distances(features))

    def leave_one_out(self, features: np.ndarray) -> np.ndarray:
        """Scores of the references themselves, each among the others, (m,).

        Args:
            features: Those that the score was fitted on, (m, d).
        """
        distances = self.distances(features)
        np.fill_diagonal(distances, np.inf)
        return mean_of_nearest(distances, len(features) - 1)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distances of images by their features (n, d) to the references: (n, m)."""
        # The sums of scipy's `cdist`, term by term, without the half second of its import. Not scikit-learn's search:
        # its threads go on spinning, and the model's next batch takes half as long again.
        images = ((features - self.mean) @ self.components).astype(np.float64)
        squares = np.empty((len(images), self._columns.shape[1]))
        buffer = np.empty((len(self._columns), _AT_ONCE))
        for image, row in zip(images, squares, strict=True):
            for start in range(0, len(row), _AT_ONCE):
                columns, of_these = self._columns[:, start : start + _AT_ONCE], row[start : start + _AT_ONCE]
                differences = np.subtract(columns, image[:, None], out=buffer[:, : len(of_these)])
                np.multiply(differences, differences, out=differences).sum(0, out=of_these)
        return np.sqrt(squares, out=squares)

    @cached_property
    def _columns(self) -> np.ndarray:
        """The references, one a column, float64 (r, m): converting them takes longer than all the sums of an image."""
        return np.ascontiguousarray(self.references.T, dtype=np.float64)


def mean_of_nearest(distances: np.ndarray, available: int | None = None) -> np.ndarray:
    """Mean of the five smallest distances of each row, or of the `available` ones if they are fewer."""
    count = min(_NEIGHBOURS, distances.shape[1] if available is None else available)
    return np.partition(distances, count - 1, axis=1)[:, :count].mean(1)


def _round_to_half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)
