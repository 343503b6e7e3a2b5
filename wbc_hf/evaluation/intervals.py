"""95 % intervals by bootstrap over groups: what other cells of the same kind would have given.

Images of one physical cell or photograph say the same thing several times, so that resampling images would make
intervals too narrow. Whole groups are drawn with replacement (Efron & Tibshirani 1993, chapter 8) and the 2.5th and
97.5th percentile of each figure are its limits.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from wbc_hf.labels import CLASS_NAMES

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
# An area under a curve has to be sorted anew in each resample; fewer of them are precise enough for two places.
_AREA_RESAMPLES = 200
_CLASSES = len(CLASS_NAMES)

Interval = tuple[float, float] | None


def bootstrap_intervals(
    references: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0
) -> dict:
    """Intervals of the figures of `compute_metrics`.

    Args:
        references: True class indices, (n,).
        probabilities: Of each class, (n, 5); the likeliest is given.
        groups: Group of each image, n of them.
        seed: Of the resampling.

    Returns:
        The same names as `compute_metrics`, with (low, high) or None where a figure is not defined; `per_class` as
        there. `count` and `confusion_matrix` have none.
    """
    weights = _group_weights(groups, RESAMPLES, seed)
    tables = _resampled_tables(references, probabilities.argmax(1), weights)
    headline, per_class = _figures(tables)
    areas = _areas(references, probabilities, weights[:_AREA_RESAMPLES])
    result: dict = {name: _limits(values) for name, values in headline.items()}
    result["roc_auc"] = _limits(_mean_of_defined(areas))
    result["per_class"] = {
        name: {figure: _limits(values[:, index]) for figure, values in per_class.items()}
        | {"roc_auc": _limits(areas[:, index])}
        for index, name in enumerate(CLASS_NAMES)
    }
    return result


def paired_difference(
    references: np.ndarray, first: np.ndarray, second: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """How much better the first of two models is on one split, each resample judging both on the same cells.

    Args:
        references: True class indices, (n,).
        first, second: Class indices that the two models give, (n,).
        groups: Group of each image.

    Returns:
        For each headline figure the difference first - second on all cells, and its limits (difference, low, high).
    """
    weights = _group_weights(groups, RESAMPLES, seed)
    weights = np.concatenate([np.ones_like(weights[:1]), weights])  # row 0: all cells as they are
    ours, theirs = (_figures(_resampled_tables(references, given, weights))[0] for given in (first, second))
    differences = {name: ours[name] - theirs[name] for name in ours}
    return {name: (float(d[0]), *np.nanpercentile(d[1:], PERCENTILES).tolist()) for name, d in differences.items()}


def resample(groups: Sequence[Hashable], resamples: int = RESAMPLES, *, seed: int = 0) -> np.ndarray:
    """How often each image stands in each resample, when whole groups are drawn: float32 (resamples, n)."""
    return _group_weights(groups, resamples, seed)


def limits(values: np.ndarray) -> Interval:
    """(low, high) of a figure's values over the resamples, leaving out those where it is not defined (NaN)."""
    return _limits(values)


def _group_weights(groups: Sequence[Hashable], resamples: int, seed: int) -> np.ndarray:
    index_of = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([index_of[group] for group in groups])
    count = len(index_of)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.float32)[:, group_of]


def _resampled_tables(references: np.ndarray, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Confusion matrices, float64 (resamples, 5, 5), rows true, columns given."""
    cell = np.zeros((len(references), _CLASSES * _CLASSES), dtype=np.float32)
    cell[np.arange(len(references)), references * _CLASSES + given] = 1
    return (weights @ cell).astype(np.float64).reshape(-1, _CLASSES, _CLASSES)


def _figures(tables: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Headline figures (resamples,) and per-class figures (resamples, 5), NaN where not defined."""
    right = np.diagonal(tables, axis1=1, axis2=2)
    true, given, total = tables.sum(2), tables.sum(1), tables.sum((1, 2))
    present = true > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / true
        precision = np.where(given > 0, right / given, 0.0)
        f1 = 2 * right / (true + given)
        precision, f1 = np.where(present, precision, np.nan), np.where(present, f1, np.nan)
        covariance = right.sum(1) * total - (true * given).sum(1)
        spread = np.sqrt((total**2 - (given**2).sum(1)) * (total**2 - (true**2).sum(1)))
        one_given = (given > 0).sum(1) == 1
        matthews = np.where(present.sum(1) > 1, np.where(one_given, 0.0, covariance / spread), np.nan)
    headline = {
        "accuracy": right.sum(1) / total,
        "balanced_accuracy": _mean_of_defined(recall),
        "macro_precision": _mean_of_defined(precision),
        "macro_recall": _mean_of_defined(recall),
        "macro_f1": _mean_of_defined(f1),
        "matthews_correlation": matthews,
    }
    return headline, {"precision": precision, "recall": recall, "f1": f1}


def _areas(references: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One-vs-rest areas under the ROC curve, (resamples, 5), NaN where a class has no cells or all of them."""
    areas = np.full((len(weights), _CLASSES), np.nan)
    for row, weight in zip(areas, weights, strict=True):
        drawn = weight > 0
        for index in range(_CLASSES):
            positive = references[drawn] == index
            if positive.any() and not positive.all():
                row[index] = roc_auc_score(positive, probabilities[drawn, index], sample_weight=weight[drawn])
    return areas


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(1) / np.where(defined.any(1), defined.sum(1), np.nan)


def _limits(values: np.ndarray) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)
