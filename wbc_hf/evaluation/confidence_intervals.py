"""95 % confidence intervals by cluster bootstrap: whole groups of images are resampled.

Images of one physical cell or photograph are not independent, so that resampling images would make intervals too
narrow. Whole groups are drawn with replacement (Efron & Tibshirani 1993, chapter 8); the limits are the 2.5th and
97.5th percentile. `scipy.stats.bootstrap` resamples single observations and calls the statistic for each resample;
here resamples are weights of images, so that every figure of a report is a few matrix products.

A single group gives no interval. And resampling never invents a mistake that was not made: without mistakes the
interval is 1 to 1, while n distinct cells without a mistake allow for an error rate of up to 3 / n (Hanley &
Lippman-Hand 1983, JAMA 249:1743).
"""

from collections.abc import Hashable, Sequence

import numpy as np

from wbc_hf.labels import CLASS_NAMES

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)

# [low, high], a list since that is what comes back from JSON; None where there is none.
Interval = list[float] | None

_CLASSES = len(CLASS_NAMES)


def format_figure(value: float | None, spec: str = ".3f") -> str:
    """A figure as text, "–" where it is not defined. The type "%" has a space before the sign: "93.0 %"."""
    return "–" if value is None else _format(value, spec)


def format_interval(interval: Sequence[float] | None, spec: str = ".3f", *, between: str = " to ") -> str:
    """A confidence interval as text, "–" where there is none.

    `format_interval([0.91, 0.95])` is "0.910 to 0.950", and with `".1%"` "91.0 to 95.0 %".
    """
    if interval is None:
        return "–"
    low, high = (_format(limit, spec) for limit in interval)
    return low.removesuffix(" %") + between + high


def format_estimate(value: float | None, interval: Sequence[float] | None, spec: str = ".3f") -> str:
    """A figure and, if it has one, its confidence interval: "0.930 (0.910 to 0.950)"."""
    text = format_figure(value, spec)
    return text if interval is None else f"{text} ({format_interval(interval, spec)})"


def _format(value: float, spec: str) -> str:
    return format(value, spec).replace("%", " %")


def draw_groups(groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Resample groups with replacement.

    Args:
        groups: Group of each image, n of them.
        resamples: How many.
        seed: Random seed.

    Returns:
        How often each image is in each resample, float32 (resamples, n); (0, n) if all images are of one group.
    """
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group_of, count = np.array([number_of[group] for group in groups]), len(number_of)
    if count < 2:
        return np.zeros((0, len(group_of)), dtype=np.float32)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.float32)[:, group_of]


def percentile_interval(values: np.ndarray) -> Interval:
    """Confidence interval of a figure from its values over the resamples, (resamples,), NaN left out."""
    values = values[~np.isnan(values)]
    return np.percentile(values, PERCENTILES).tolist() if len(values) else None


def mean_interval(values: np.ndarray, weights: np.ndarray, among: np.ndarray | None = None) -> Interval:
    """Confidence interval of the mean of `values`, (n,), over the images where `among`, bool (n,), is true."""
    among = np.ones(len(values)) if among is None else among.astype(float)
    with np.errstate(invalid="ignore"):  # none of them in a resample: 0 / 0, no figure
        return percentile_interval(weights @ (values * among) / (weights @ among))


def bootstrap_intervals(
    references: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0
) -> dict:
    """Compute 95 % confidence intervals of the figures of `compute_metrics`.

    A resample without any cell of a class leaves that class out of macro figures, as `compute_metrics` does.

    Args:
        references: True class indices, (n,), n >= 1.
        probabilities: Of each class, (n, 5); the likeliest is the predicted one.
        groups: Group of each image, n of them.
        seed: Random seed of the bootstrap.

    Returns:
        `[low, high]` by the names of `compute_metrics`, None where a figure is not defined or rests on one group.
        `count`, `support` and `confusion_matrix` have none.
    """
    weights = draw_groups(groups, seed=seed)
    headline, per_class = resampled_figures(references, probabilities.argmax(1), weights)
    per_class["roc_auc"] = resampled_areas(references, probabilities, weights)
    headline["roc_auc"] = _mean_of_defined(per_class["roc_auc"])
    enough = [count > 1 for count in count_distinct(references, groups).values()]
    return {name: percentile_interval(values) for name, values in headline.items()} | {
        "per_class": {
            name: {
                figure: percentile_interval(values[:, index]) if enough[index] else None
                for figure, values in per_class.items()
            }
            for index, name in enumerate(CLASS_NAMES)
        }
    }


def paired_difference(
    references: np.ndarray, first: np.ndarray, second: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0
) -> dict[str, dict]:
    """Compare two models on the same images by a paired bootstrap: each resample is the same for both.

    Args:
        references: True class indices, (n,), n >= 1.
        first, second: Class indices that the two models predict, (n,).
        groups: Group of each image.
        seed: Random seed of the bootstrap.

    Returns:
        By headline figure except the ROC area, and "recall of <class>": `first`, `second` and `difference`, first -
        second, each None where it is not defined, and the confidence `interval` of the difference.
    """
    weights = draw_groups(groups, seed=seed)
    weights = np.concatenate([np.ones((1, len(references)), dtype=np.float32), weights])  # row 0: all as they are
    ours, theirs = (_with_recalls(*resampled_figures(references, given, weights)) for given in (first, second))
    return {
        name: {
            "first": _number(ours[name][0]),
            "second": _number(theirs[name][0]),
            "difference": _number(ours[name][0] - theirs[name][0]),
            "interval": percentile_interval((ours[name] - theirs[name])[1:]),
        }
        for name in ours
    }


def count_distinct(references: np.ndarray, groups: Sequence[Hashable]) -> dict[str, int]:
    """Number of groups of each class by its name. A group with two classes counts in both."""
    pairs = set(zip(np.asarray(references).tolist(), groups, strict=True))
    labels = [label for label, _ in pairs]
    return {name: labels.count(index) for index, name in enumerate(CLASS_NAMES)}


def resampled_figures(
    references: np.ndarray, given: np.ndarray, weights: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weighted figures of `compute_metrics` for each resample, NaN where not defined; weights of 1 give its own.

    Args:
        references, given: True and predicted class indices, (n,).
        weights: From `draw_groups`, (resamples, n).

    Returns:
        Headline figures by name, (resamples,) each; precision, recall and f1 of the classes, (resamples, 5) each.
    """
    cells = np.eye(_CLASSES**2, dtype=np.float32)[references * _CLASSES + given]
    tables = (weights @ cells).astype(np.float64).reshape(-1, _CLASSES, _CLASSES)  # confusion matrices
    right = np.diagonal(tables, axis1=1, axis2=2)
    true, given_counts, total = tables.sum(2), tables.sum(1), tables.sum((1, 2))
    absent = true == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / true
        precision = np.where(given_counts > 0, right / given_counts, 0.0)
        f1 = 2 * right / (true + given_counts)
    precision[absent], f1[absent] = np.nan, np.nan
    headline = {
        "accuracy": right.sum(1) / total,
        "balanced_accuracy": _mean_of_defined(recall),
        "macro_precision": _mean_of_defined(precision),
        "macro_recall": _mean_of_defined(recall),
        "macro_f1": _mean_of_defined(f1),
        "matthews_correlation": _matthews(right.sum(1), true, given_counts, total),
    }
    return headline, {"precision": precision, "recall": recall, "f1": f1}


def resampled_areas(references: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted one-vs-rest areas under the ROC curve for each resample.

    The area is the chance that an image of the class scores higher than one of the others, ties counting half (Hanley
    & McNeil 1982). Images are ranked once; each resample then adds up weights, some hundred times faster
    than `roc_auc_score` with sample weights.

    Args:
        references: True class indices, (n,).
        scores: Higher for a likelier class, (n, 5).
        weights: From `draw_groups`, (resamples, n).

    Returns:
        (resamples, 5), NaN where a class has no images or all of them.
    """
    areas = np.full((len(weights), _CLASSES), np.nan)
    for index in range(_CLASSES):
        positive = references == index
        others, ours = scores[~positive, index], scores[positive, index]
        order = np.argsort(others)
        below = np.zeros((len(weights), len(others) + 1), dtype=np.float32)
        np.cumsum(weights[:, ~positive][:, order], axis=1, out=below[:, 1:])
        lower, upper = (np.searchsorted(others[order], ours, side) for side in ("left", "right"))
        ours_weights = weights[:, positive]
        wins = (ours_weights * (below[:, lower] + below[:, upper])).sum(1, dtype=np.float64) / 2
        pairs = ours_weights.sum(1, dtype=np.float64) * below[:, -1]
        with np.errstate(invalid="ignore"):
            areas[:, index] = wins / pairs
    return areas


def _matthews(right: np.ndarray, true: np.ndarray, given: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Gorodkin's R_K, (resamples,): 0 if only one class is predicted, NaN if only one is true."""
    covariance = right * total - (true * given).sum(1)
    spread = np.sqrt((total**2 - (given**2).sum(1)) * (total**2 - (true**2).sum(1)))
    with np.errstate(invalid="ignore"):
        correlation = np.where((given > 0).sum(1) == 1, 0.0, covariance / spread)
    return np.where((true > 0).sum(1) > 1, correlation, np.nan)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean of each row without its NaN; NaN where nothing is left."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=1) / (~np.isnan(values)).sum(1)


def _with_recalls(headline: dict[str, np.ndarray], per_class: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return headline | {f"recall of {name}": per_class["recall"][:, index] for index, name in enumerate(CLASS_NAMES)}


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
