"""Which cell to review next, so that a model learns most from the first few reviews of another laboratory."""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2

from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState

# So many labels are worth giving to begin with; once each cluster has one, more and smaller clusters are looked at.
_CLUSTERS = (40, 80)
_MOST_CELLS = 1000  # that are looked at: a key waits for the answer
_LEAST_LOGARITHM = -6.0  # of a probability: smaller ones say nothing more


def next_to_teach(cells: Sequence[Cell]) -> Cell | None:
    """The waiting cell that teaches most: the most typical one of the largest group of which no cell was reviewed.

    When labels are few, typical cells teach most (Hacohen et al. 2022, arXiv:2202.02794). The groups are clusters by
    k-means of what the model says of each cell, as logarithms of the probabilities: a rare class, or one that this
    laboratory makes look like another, is a cluster of its own. See docs/unseen-laboratory.md for what the first 40
    labels give in this order and in others.

    Args:
        cells: Of a specimen.

    Returns:
        None where no cell waits.
    """
    first = next((cell for cell in cells if cell.state is CellState.WAITING), None)
    whole = [cell for cell in cells if cell.state not in (*NEVER_COUNTED, CellState.CUT)][:_MOST_CELLS]
    waiting = np.array([cell.state is CellState.WAITING for cell in whole], dtype=bool)
    if not waiting.any():
        return first
    reviewed = np.array([cell.review is not None for cell in whole], dtype=bool)
    points = _logarithms(whole)
    different = len(np.unique(points.round(6), axis=0))
    for count in _CLUSTERS:
        distances, cluster = _cluster(points, min(count, different))
        sizes = np.bincount(cluster, minlength=count)
        fresh = waiting & ~np.isin(cluster, cluster[reviewed])
        if fresh.any():
            # Ties by number, so that two looks at one specimen name the same cell.
            order = np.lexsort((distances, -sizes[cluster], ~fresh))
            return whole[order[0]]
    return first


def _logarithms(cells: Sequence[Cell]) -> np.ndarray:
    """Logarithms of the probabilities, (n, classes); the lowest for a class that a cell's model does not know."""
    each = [dict([(one.label, one.probability), *one.alternatives]) for one in (cell.prediction for cell in cells)]
    names = sorted(set().union(*each))
    lowest = np.exp(_LEAST_LOGARITHM)
    return np.log([[max(of_cell.get(name, 0.0), lowest) for name in names] for of_cell in each])


def _cluster(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point to the middle of its cluster, (n,), and that cluster, int (n,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a cluster that lost all its cells to others
        middles, cluster = kmeans2(points, count, iter=30, minit="++", seed=0)
    return np.linalg.norm(points - middles[cluster], axis=1), cluster
