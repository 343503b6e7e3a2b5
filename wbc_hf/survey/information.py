"""The maximal information coefficient of features with a label: Reshef et al. 2011, doi:10.1126/science.1205438."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

_EXPONENT = 0.6  # a grid over n points has at most n ** 0.6 cells: what the paper advises
_BLOCK = 128
_PARTS = 40  # of a feature, between which it may be cut: more of them change the ranking little and cost their square


def maximal_information(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the maximal information coefficient of each feature with a label.

    It is the highest mutual information of all grids over feature and label, divided by the logarithm of the shorter
    side of the grid. The label is cut in every way that keeps its values in order. The feature is cut by dynamic
    programming, as in the paper, at borders between 40 parts with equally many points: this approximation makes the
    result too low rather than too high.

    Args:
        features: float (n, d).
        labels: int (n,), of which a few values occur.

    Returns:
        float64 (d,), 0 to 1. 0 where one label alone occurs.
    """
    values, numbers = np.unique(labels, return_inverse=True)
    # In blocks: the gains between any two borders are in memory for all features of a block.
    starts = range(0, features.shape[1], _BLOCK)
    return np.concatenate([_of_block(features[:, start : start + _BLOCK], numbers, len(values)) for start in starts])


def _of_block(features: np.ndarray, numbers: np.ndarray, labels: int) -> np.ndarray:
    counts = _counts(features, numbers, labels)
    result = np.zeros(features.shape[1])
    for rows in _groupings(labels):
        most = min(int(len(features) ** _EXPONENT / len(rows)), _PARTS)
        merged = np.stack([counts[:, :, list(row)].sum(2) for row in rows], 2)
        for columns, information in _best_cuts(merged, most):
            np.maximum(result, information / np.log(min(columns, len(rows))), out=result)
    return result


def _counts(features: np.ndarray, numbers: np.ndarray, labels: int) -> np.ndarray:
    """Count points by feature, part and label: (d, parts, labels). Equal values stay in one part."""
    counts = np.zeros((features.shape[1], _PARTS, labels))
    for feature, table in zip(features.T, counts, strict=True):
        ordered = np.sort(feature)
        first = np.searchsorted(ordered, feature, side="left")
        np.add.at(table, (first * _PARTS // len(feature), numbers), 1)
    return counts


def _groupings(labels: int) -> Iterator[list[range]]:
    """Cut 0, 1, …, labels - 1 into two or more neighbouring groups in every way."""
    for cuts in range(1, labels):
        for inner in combinations(range(1, labels), cuts):
            edges = [0, *inner, labels]
            yield [range(start, end) for start, end in pairwise(edges)]


def _best_cuts(counts: np.ndarray, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield numbers of columns with the highest mutual information in nats, (d,), that they allow.

    Further columns never lower it: from as many columns as rows upwards, only the maximum counts.

    Args:
        counts: (d, parts, rows).
        most: Maximum of columns.
    """
    _, parts, rows = counts.shape
    total = counts[0].sum()
    running = np.concatenate([np.zeros_like(counts[:, :1]), counts.cumsum(1)], 1)
    entropy = -_plogp(running[0, -1] / total).sum()
    # What a column from border s to border t adds: the sum over its rows of p log(p / p of the column).
    within = running[:, None] - running[:, :, None]
    gain = (_plogp(within / total).sum(3) - _plogp(within.sum(3) / total)).transpose(1, 2, 0).copy()
    every_part = gain[np.arange(parts), np.arange(1, parts + 1)].sum(0)
    best = gain[0].copy()
    for columns in range(2, (min(most, rows - 1) if most == parts else most) + 1):
        # From the last border down: what ends before a border is still that of one column fewer.
        for end in range(parts, 0, -1):
            best[end] = (best[:end] + gain[:end, end]).max(0)
        if columns < rows or columns == most:
            yield columns, entropy + best[-1]
    if most == parts:
        yield parts, entropy + every_part


def _plogp(shares: np.ndarray) -> np.ndarray:
    """p log p, and 0 where p is not above 0."""
    return shares * np.log(np.where(shares > 0, shares, 1))
