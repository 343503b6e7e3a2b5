"""95 % confidence intervals by cluster bootstrap: whole groups of images are resampled.

Images of one physical cell or photograph are not independent, so that resampling images would make intervals too
narrow. Whole groups are drawn with replacement (Efron & Tibshirani 1993, chapter 8); the limits are the 2.5th and
97.5th percentile. `scipy.stats.bootstrap` resamples single observations and calls the statistic for each resample;
here resamples are weights of images, so that every figure of a report is a few matrix products.

A single group gives no interval. And resampling never invents a mistake that was not made: without mistakes every
resample is perfect, while n distinct cells without a mistake allow for an error rate of up to 3 / n (Hanley &
Lippman-Hand 1983, JAMA 249:1743). So where all resamples are alike, the limits are exact ones (Clopper & Pearson 1934,
Biometrika 26:404), of as many cells as the figure rests on:

- accuracy on all distinct cells, recall on those of the class, precision on those that are given the class.
- F1 is 2 J / (1 + J), where J is the share of right cells among those that are of the class or given it.
- A ROC area is the chance that a cell of the class scores higher than another: as many pairs without a common cell can
  be formed as the smaller of both kinds has cells.
- A mean over k classes on k times the cells of the smallest. If one cell of each class is drawn, and all k are right
  with a chance of q or more, the mean is at least the k-th root of q, as the geometric mean is never above it.
- Matthews' correlation is a linear function of accuracy where class shares stay.
"""

import math
import re
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import betaincinv, gammaincinv

from wbc_hf.evaluation.figure_names import HEADLINE_NAMES
from wbc_hf.labels import CLASS_NAMES

RESAMPLES = 1000
CONFIDENCE = 0.95
PERCENTILES = (2.5, 97.5)

# [low, high], a list since that is what comes back from JSON; None where there is none.
Interval = list[float] | None

_CLASSES = len(CLASS_NAMES)
# An interval narrower than this has no width: all resamples gave the same figure.
_NO_WIDTH = 1e-9


def format_figure(value: float | None, spec: str = ".3f") -> str:
    """A figure as text, "–" where it is not defined. The type "%" has a space before the sign: "93.0 %"."""
    return "–" if value is None else _format(value, spec)


def format_interval(interval: Sequence[float] | None, spec: str = ".3f", *, between: str = " to ") -> str:
    """A confidence interval as text, "–" where there is none.

    `format_interval([0.91, 0.95])` is "0.910 to 0.950", and with `".1%"` "91.0 to 95.0 %". Limits that would look the
    same though they are not have more decimals: "0.9996 to 0.9999".
    """
    if interval is None:
        return "–"
    spec = _telling(interval, spec)
    low, high = (_format(limit, spec) for limit in interval)
    return low.removesuffix(" %") + between + high


def format_estimate(value: float | None, interval: Sequence[float] | None, spec: str = ".3f") -> str:
    """A figure and, if it has one, its confidence interval: "0.930 (0.910 to 0.950)"."""
    text = format_figure(value, spec if interval is None else _telling(interval, spec))
    return text if interval is None else f"{text} ({format_interval(interval, spec)})"


def _telling(interval: Sequence[float], spec: str) -> str:
    """A format with so many decimals that the limits of an interval with a width differ, six at most."""
    low, high = interval
    while low != high and _format(low, spec) == _format(high, spec):
        finer = re.sub(r"(?<=\.)[0-5](?=[f%])", lambda decimals: str(int(decimals[0]) + 1), spec)
        if finer == spec:
            break
        spec = finer
    return spec


def _format(value: float, spec: str) -> str:
    return format(value, spec).replace("%", " %")


def exact_limits(count: int, total: int) -> tuple[float, float]:
    """Clopper-Pearson 95 % confidence limits of `count` out of `total` as a share, 0 to 1; 0 and 1 if `total` is 0."""
    if total == 0:
        return 0.0, 1.0
    # Quantiles of beta distributions. Importing scipy.stats for them takes longer than counting a field.
    low, high = (percentile / 100 for percentile in PERCENTILES)
    return (
        float(betaincinv(count, total - count + 1, low)) if count else 0.0,
        float(betaincinv(count + 1, total - count, high)) if count < total else 1.0,
    )


def exact_rate_limits(events: int, total: int) -> tuple[float, float]:
    """Exact 95 % confidence limits of a rate of events, such as false boxes a photograph (Garwood 1936).

    Args:
        events: How many in all.
        total: In how many photographs, 1 or more.
    """
    low, high = (percentile / 100 for percentile in PERCENTILES)
    least = gammaincinv(events, low) if events else 0.0
    return float(least / total), float(gammaincinv(events + 1, high) / total)


def draw_groups(groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Resample groups with replacement.

    Args:
        groups: Group of each image, n of them.
        resamples: How many.
        seed: Random seed.

    Returns:
        How often each image is in each resample, float32 (resamples, n); (0, n) if all images are of one group.
    """
    group_of, count = _number_groups(groups)
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


def share_interval(
    values: np.ndarray, groups: Sequence[Hashable], weights: np.ndarray, among: np.ndarray | None = None
) -> Interval:
    """Confidence interval of how often `values`, bool (n,), are true; exact where all resamples are alike.

    Args:
        values: One per image.
        groups: Group of each image.
        weights: From `draw_groups` of these groups, (resamples, n).
        among: Which images count, bool (n,); by default all.
    """
    interval = mean_interval(values, weights, among)
    if interval is None or not _is_degenerate(interval):
        return interval
    counted = np.ones(len(values), dtype=bool) if among is None else among
    cells = {group for group, counts in zip(groups, counted.tolist(), strict=True) if counts}
    return _exact_share(interval[0], len(cells))


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
        `[low, high]` by the names of `compute_metrics`, None where a figure is not defined or rests on one group, and
        for a correlation of 0 because one class is predicted for every cell.
        `count`, `support` and `confusion_matrix` have none.
    """
    given, weights = probabilities.argmax(1), draw_groups(groups, seed=seed)
    headline, per_class = resampled_figures(references, given, weights)
    per_class["roc_auc"] = resampled_areas(references, probabilities, weights)
    headline["roc_auc"] = _mean_of_defined(per_class["roc_auc"])
    cells = _cells_of_figures(references, given, groups)
    present = cells["recall"] > 0
    enough = cells["recall"] > 1
    under = {
        "balanced_accuracy": "recall",
        "macro_recall": "recall",
        "macro_precision": "precision",
        "macro_f1": "f1",
        "roc_auc": "roc_auc",
    }
    rests_on = {name: int(present.sum() * cells[figure][present].min()) for name, figure in under.items()}
    rests_on |= dict.fromkeys(("accuracy", "matthews_correlation"), len(set(groups)))
    return {
        name: _interval(name, percentile_interval(values), rests_on[name], references)
        for name, values in headline.items()
    } | {
        "per_class": {
            name: {
                figure: _interval(figure, percentile_interval(values[:, index]), int(cells[figure][index]), references)
                if enough[index]
                else None
                for figure, values in per_class.items()
            }
            for index, name in enumerate(CLASS_NAMES)
        }
    }


def paired_difference(
    references: np.ndarray, first: np.ndarray, second: np.ndarray, groups: Sequence[Hashable]
) -> dict[str, dict]:
    """Compare two models on the same images by a paired bootstrap: each resample is the same for both.

    Args:
        references: True class indices, (n,), n >= 1.
        first, second: Class indices that the two models predict, (n,).
        groups: Group of each image.

    Returns:
        By headline figure except the ROC area, and "recall of <class>": `first`, `second` and `difference`, first -
        second, each None where it is not defined, and the confidence `interval` of the difference. Where no resample
        differs, because the models were never seen to part, or always, the interval leaves room for the cells that
        may do otherwise without one of them having been seen.
    """
    weights = draw_groups(groups)
    weights = np.concatenate([np.ones((1, len(references)), dtype=np.float32), weights])  # row 0: all as they are
    ours, theirs = (_with_recalls(*resampled_figures(references, given, weights)) for given in (first, second))
    unseen = _unseen_shares(references, groups)
    return {
        name: {
            "first": _number(ours[name][0]),
            "second": _number(theirs[name][0]),
            "difference": _number(ours[name][0] - theirs[name][0]),
            "interval": _difference_interval(percentile_interval((ours[name] - theirs[name])[1:]), unseen[name]),
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


def _number_groups(groups: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """The number of each image's group, (n,), and how many groups there are."""
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([number_of[group] for group in groups], dtype=int), len(number_of)


def _cells_of_figures(references: np.ndarray, given: np.ndarray, groups: Sequence[Hashable]) -> dict[str, np.ndarray]:
    """How many distinct cells each figure of a class rests on, (5,) by name of the figure."""
    group_of, count = _number_groups(groups)
    true, predicted = np.zeros((2, count, _CLASSES), dtype=bool)
    true[group_of, references] = True
    predicted[group_of, given] = True
    cells = true.sum(0)
    return {
        "recall": cells,
        "precision": predicted.sum(0),
        "f1": (true | predicted).sum(0),
        "roc_auc": np.minimum(cells, count - cells),
    }


def _interval(name: str, interval: Interval, cells: int, references: np.ndarray) -> Interval:
    """The interval of a figure, exact where all resamples are alike."""
    if interval is None or not _is_degenerate(interval):
        return interval
    value = interval[0]
    if name == "matthews_correlation":
        chance = _chance_agreement(references)
        return [(exact_limits(cells, cells)[0] - chance) / (1 - chance), 1.0] if value == 1 else None
    if name.endswith("f1"):
        return [2 * limit / (1 + limit) for limit in _exact_share(value / (2 - value), cells)]
    return _exact_share(value, cells)


def _is_degenerate(interval: Sequence[float]) -> bool:
    return interval[1] - interval[0] < _NO_WIDTH


def _exact_share(share: float, cells: int) -> list[float]:
    """Exact limits of a share of distinct cells, the wider ones where it is no whole number of them."""
    count = round(share * cells, 6)
    return [exact_limits(math.floor(count), cells)[0], exact_limits(math.ceil(count), cells)[1]]


def _chance_agreement(references: np.ndarray) -> float:
    """How often two images drawn at random are of one class."""
    return float(((np.bincount(references) / len(references)) ** 2).sum())


def _unseen_shares(references: np.ndarray, groups: Sequence[Hashable]) -> dict[str, float]:
    """The largest share of cells, by name of a figure, of a kind of which not one may have been seen."""
    cells = list(count_distinct(references, groups).values())
    present = [count for count in cells if count]
    everywhere = 1 - exact_limits(len(set(groups)), len(set(groups)))[0]
    by_class = len(present) * min(present)
    shares = dict.fromkeys(HEADLINE_NAMES, 1 - exact_limits(by_class, by_class)[0]) | {
        f"recall of {name}": 1 - exact_limits(count, count)[0] for name, count in zip(CLASS_NAMES, cells, strict=True)
    }
    chance = _chance_agreement(references)
    correlation = everywhere / (1 - chance) if chance < 1 else 1.0
    return shares | {"accuracy": everywhere, "matthews_correlation": correlation}


def _difference_interval(interval: Interval, unseen: float) -> Interval:
    """The interval of a difference; where all resamples are alike, as wide as unseen cells can make it."""
    if interval is None or not _is_degenerate(interval):
        return interval
    # A cell on which both agree moves the difference by one at most, one on which they part by two.
    room = unseen * (1 + abs(interval[0]))
    return [max(-1.0, interval[0] - room), min(1.0, interval[0] + room)]


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
