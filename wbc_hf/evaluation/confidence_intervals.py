"""95 % intervals by bootstrap over groups: what other cells of the same kind would have given.

Images of one physical cell or photograph say the same thing several times, so that resampling images would make
intervals too narrow. Whole groups are drawn with replacement (Efron & Tibshirani 1993, chapter 8), and the 2.5th and
97.5th percentile of a figure are its limits.

Two things to know when reading them. Nothing can be drawn from a single group, so that figures of one have no
interval. And resampling never invents a mistake that was not made: where there was none, the interval is 1 to 1, while
n distinct cells without a mistake allow for an error rate of up to 3 / n (Hanley & Lippman-Hand 1983, JAMA 249:1743).
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
    """How often each image stands in each resample, when as many groups as there are get drawn with replacement.

    Args:
        groups: Group of each image, n of them.

    Returns:
        float32 (resamples, n), whole numbers from 0; (0, n) where all images are of one group.
    """
    group_of = number_groups(groups)
    count = group_of.max() + 1
    if count < 2:
        return np.zeros((0, len(group_of)), dtype=np.float32)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.float32)[:, group_of]


def number_groups(groups: Sequence[Hashable]) -> np.ndarray:
    """The group of each image as a number from 0, (n,), in the order in which they first appear."""
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([number_of[group] for group in groups])


def percentile_interval(values: np.ndarray) -> Interval:
    """The limits of a figure from its values over the resamples, (resamples,), passing over NaN."""
    values = values[~np.isnan(values)]
    return np.percentile(values, PERCENTILES).tolist() if len(values) else None


def mean_interval(values: np.ndarray, weights: np.ndarray, among: np.ndarray | None = None) -> Interval:
    """Interval of the mean of something known of each image.

    Args:
        values: (n,).
        weights: From `draw_groups`.
        among: True for the images that the mean is over, (n,); all, without it.
    """
    among = np.ones(len(values)) if among is None else among.astype(float)
    counts = weights @ among
    with np.errstate(invalid="ignore"):  # none of them in a resample: 0 / 0, no figure
        return percentile_interval(weights @ (values * among) / counts)


def bootstrap_intervals(
    references: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0
) -> dict:
    """Intervals of the figures of `compute_metrics`.

    A resample without any cell of a class leaves that class out, as `compute_metrics` does: the macro figures of
    classes with two or three groups hold on average fewer classes than the figure itself.

    Args:
        references: True class indices, (n,), n >= 1.
        probabilities: Of each class, (n, 5); the likeliest is given.
        groups: Group of each image, n of them.
        seed: Of the resampling.

    Returns:
        The names of `compute_metrics`' figures, with `[low, high]` or None where the figure is not defined or rests
        on one group; `per_class` as there. `count`, `support` and `confusion_matrix` have none.
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
    """How much better the first of two models is on the same cells, each resample judging both on the same ones.

    Args:
        references: True class indices, (n,), n >= 1.
        first, second: Class indices that the two models give, (n,).
        groups: Group of each image.

    Returns:
        By headline figure except the ROC area, and "recall of <class>": `first`, `second` and `difference`, first -
        second, each a number or None where it is not defined, and the `interval` of the difference.
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
    """How many groups each class has images of, by class name. A group with two classes counts in both."""
    pairs = set(zip(np.asarray(references).tolist(), groups, strict=True))
    labels = [label for label, _ in pairs]
    return {name: labels.count(index) for index, name in enumerate(CLASS_NAMES)}


def resampled_figures(
    references: np.ndarray, given: np.ndarray, weights: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The figures of `compute_metrics` for each row of weights, NaN where not defined; a row of ones gives its own.

    Args:
        references, given: Class indices, (n,).
        weights: From `draw_groups`, (resamples, n).

    Returns:
        Headline figures by name, (resamples,) each; precision, recall and f1 of the classes, (resamples, 5) each.
    """
    tables = _resampled_tables(references, given, weights)
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
    """One-vs-rest areas under the ROC curve for each row of weights.

    The area is the chance that an image of the class scores higher than one of the others, ties counting half (Hanley
    & McNeil 1982). Images are ranked once; each row then only adds up the weights that lie below.

    Args:
        references: Class indices, (n,).
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


def _resampled_tables(references: np.ndarray, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Confusion matrices, float64 (resamples, 5, 5), rows true, columns given."""
    cell = np.zeros((len(references), _CLASSES * _CLASSES), dtype=np.float32)
    cell[np.arange(len(references)), references * _CLASSES + given] = 1
    return (weights @ cell).astype(np.float64).reshape(-1, _CLASSES, _CLASSES)


def _matthews(right: np.ndarray, true: np.ndarray, given: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Gorodkin's R_K, (resamples,): 0 where one class is given throughout, NaN where one is true throughout."""
    covariance = right * total - (true * given).sum(1)
    spread = np.sqrt((total**2 - (given**2).sum(1)) * (total**2 - (true**2).sum(1)))
    with np.errstate(invalid="ignore"):
        correlation = np.where((given > 0).sum(1) == 1, 0.0, covariance / spread)
    return np.where((true > 0).sum(1) > 1, correlation, np.nan)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean of each row over what is not NaN; NaN where nothing is."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=1) / (~np.isnan(values)).sum(1)


def _with_recalls(headline: dict[str, np.ndarray], per_class: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return headline | {f"recall of {name}": per_class["recall"][:, index] for index, name in enumerate(CLASS_NAMES)}


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
