"""Fit temperature and thresholds on laboratories that were left out of training.

What a model's own validation images tell of its confidence does not hold in a laboratory that it has not seen. There
it is surer than it should be, and every image lies farther from the training images than those of home do. Models that
were trained alike, each without one laboratory, tell how much; see docs/unseen-laboratory.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import softmax

from wbc_hf.modeling.calibration import Calibration, fit_temperature, review_threshold

# Accuracy that accepted predictions shall reach, each laboratory counting alike.
TARGET_ELSEWHERE = 0.95
# Accuracy of predictions that all orientations together need not confirm. It is higher, since their mean ranks the
# others better: with two laboratories setting the thresholds of the third, more is accepted and no less of it right.
TARGET_AT_ONCE = 0.97
# Predictions that a threshold has to accept: of fewer all may be right by luck.
_LEAST_ACCEPTED = 20
# Share of the cells of a laboratory that may be unfamiliar because of its stain and its camera alone.
UNFAMILIAR_ELSEWHERE = 0.1


@dataclass(frozen=True)
class LeftOut:
    """Predictions for a laboratory by a calibrated model that was trained without it.

    Attributes:
        laboratory: Its name.
        logits: float (n, classes).
        tta_logits: float (n, classes), the mean over all orientations of each image.
        labels: int (n,), class indices.
        distances: float (n,), out-of-distribution scores in units of the model's threshold.
        groups: Cell or photograph that each image shows, n of them; empty where unknown.
    """

    laboratory: str
    logits: np.ndarray
    tta_logits: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    groups: Sequence[str] = ()


def recalibrate(calibration: Calibration, left_out: Sequence[LeftOut]) -> tuple[float, Calibration]:
    """Fit a model's temperature and thresholds to laboratories that models trained like it have not seen.

    The out-of-distribution threshold lets all but `UNFAMILIAR_ELSEWHERE` of each laboratory's cells pass. The review
    threshold is the lowest at which `TARGET_ELSEWHERE` of the accepted predictions are right, each laboratory counting
    alike: what to expect of a new one, as far as it is like these. Where images are predicted in all orientations,
    that is done below the probability at which `TARGET_AT_ONCE` are right, and the threshold of their means is the
    lowest at which `TARGET_ELSEWHERE` of all that is accepted are right; it is for images that are unfamiliar by the
    model's threshold at home. Where there is no such threshold, nothing is accepted.

    Args:
        calibration: Of the model of all laboratories, fitted at home.
        left_out: One laboratory each, by models calibrated at home.

    Returns:
        The factor of the temperature, to be folded into the model, and its new calibration.
    """
    logits, tta_logits, labels, distances = (
        np.concatenate([getattr(each, name) for each in left_out])
        for name in ("logits", "tta_logits", "labels", "distances")
    )
    weights = np.concatenate([np.full(len(each.labels), 1 / len(each.labels)) for each in left_out])
    factor = fit_temperature(logits, labels, weights)
    # At home nothing becomes unfamiliar that was not.
    farthest = max(1.0, *(float(np.quantile(each.distances, 1 - UNFAMILIAR_ELSEWHERE)) for each in left_out))
    familiar = distances <= farthest
    at_once, averaged = (softmax(each[familiar] / factor, axis=1) for each in (logits, tta_logits))
    labels, weights, like_home = labels[familiar], weights[familiar], distances[familiar] <= 1
    fit = partial(review_threshold, weights=weights, least=_LEAST_ACCEPTED)
    right = at_once.argmax(1) == labels
    threshold, reached = fit(at_once.max(1), right, target=TARGET_ELSEWHERE)
    below, found = fit(at_once.max(1), right, target=TARGET_AT_ONCE)
    threshold, below = threshold if reached else 1.0, below if found else 1.0
    again, means = at_once.max(1) < below, averaged.max(1)
    right = np.where(again, averaged.argmax(1) == labels, right)
    # Those that are accepted whatever the threshold of the means come first, those that never are by it last.
    means = np.where(again & ~like_home, means, np.where(again & (means < threshold), means - 1, means + 1))
    tta_threshold, tta_reached = fit(means, right, target=TARGET_ELSEWHERE)
    return factor, replace(
        calibration,
        temperature=calibration.temperature * factor,
        review_threshold=threshold,
        tta_below=below,
        tta_threshold=float(np.clip(tta_threshold, 0, 1)) if tta_reached else 1.0,
        tta_distance=1 / farthest,
        target_reached=reached,
        out_of_distribution_threshold=calibration.out_of_distribution_threshold * farthest,
        left_out=tuple(each.laboratory for each in left_out),
    )
