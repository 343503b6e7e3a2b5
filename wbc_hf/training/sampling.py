"""How often an epoch shows each training image, and how much each class weighs in the loss."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


def expected_draws(labels: Sequence[int], laboratories: Sequence[str], balance: float) -> np.ndarray:
    """How often an epoch shows each image on average, float64 (n,), with mean 1.

    Args:
        labels: Class index of each image.
        laboratories: Laboratory of each image.
        balance: 0 shows each once; 1 shows each class of each laboratory equally often; between them, a class of a
            laboratory with m images is shown in proportion to m to the power of 1 - balance.
    """
    strata = [f"{label} {laboratory}" for label, laboratory in zip(labels, laboratories, strict=True)]
    _, stratum, counts = np.unique(strata, return_inverse=True, return_counts=True)
    draws = counts[stratum].astype(np.float64) ** -balance
    return draws / draws.mean()


class BalancedSampler(Sampler[int]):
    """Draws images with repeats, as many an epoch as there are, each as often as expected or less than once more.

    Args:
        draws: Expected number of draws of each image, with mean 1.
        seed: Random seed; with the number of the epoch, all that the draws depend on.
    """

    def __init__(self, draws: np.ndarray, seed: int):
        self.draws, self.seed, self.epoch = draws, seed, 0

    def __len__(self) -> int:
        return len(self.draws)

    def set_epoch(self, epoch: int) -> None:
        """Draw for this epoch from now on, also in a resumed run."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.draws))
        ends = np.cumsum(self.draws[order])
        # Evenly spaced points: each image is met as often as its share of the line has room for.
        points = (np.arange(len(ends)) + rng.random()) * ends[-1] / len(ends)
        drawn = order[np.searchsorted(ends, points, side="right").clip(max=len(ends) - 1)]
        return iter(rng.permutation(drawn).tolist())


def balanced_weights(labels: Sequence[int], classes: int, draws: np.ndarray | None = None) -> list[float]:
    """Inverse class frequencies with mean 1 over the images that are shown; 0 for an empty class.

    Args:
        labels: Class indices.
        classes: Number of classes.
        draws: From `expected_draws`; by default each image is shown once.
    """
    counts = np.bincount(labels, weights=draws, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.tolist()
