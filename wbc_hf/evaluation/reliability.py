"""Calibration of probabilities, and the risk–coverage curve of selective prediction."""

from dataclasses import dataclass

import numpy as np

from wbc_hf.evaluation.confidence_intervals import Interval, mean_interval, percentile_interval
from wbc_hf.labels import CLASS_NAMES

BINS = 15
_DRAWN_BINS = 10


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram: images by confidence, lowest first; no bin is empty.

    Attributes:
        low: Lower limit of each bin, (bins,).
        width: Of all bins.
        confidence, accuracy: Means in each bin, (bins,).
        count: Number of images in each bin, (bins,).
        calibration_error: Of all images, from `expected_calibration_error`.
    """

    low: np.ndarray
    width: float
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    calibration_error: float


@dataclass(frozen=True)
class RiskCoverage:
    """A risk–coverage curve.

    Attributes:
        coverage: Share of images that is accepted, above 0 to 1, increasing, (points,).
        error: Error rate of the accepted images, 0 to 1, (points,).
    """

    coverage: np.ndarray
    error: np.ndarray

    def error_at(self, coverage: float) -> float:
        """The error rate at a coverage, or at the next larger one of the curve."""
        return float(self.error[np.searchsorted(self.coverage, coverage)])


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray) -> ReliabilityBins:
    """Compute a reliability diagram with bins of equal width: bins of equal mass would be slivers beside 1.

    Args:
        probabilities: Of each class, (n, 5), rows sum to 1; the likeliest is the predicted one.
        labels: True class indices, (n,), n >= 1.
    """
    confidence, right = _confidence(probabilities, labels)
    bin_of = np.minimum((confidence * _DRAWN_BINS).astype(int), _DRAWN_BINS - 1)
    used, bin_of, count = np.unique(bin_of, return_inverse=True, return_counts=True)
    return ReliabilityBins(
        low=used / _DRAWN_BINS,
        width=1 / _DRAWN_BINS,
        confidence=np.bincount(bin_of, confidence) / count,
        accuracy=np.bincount(bin_of, right) / count,
        count=count,
        calibration_error=expected_calibration_error(probabilities, labels),
    )


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Compute the expected calibration error (ECE): mean distance between confidence and accuracy, 0 to 1.

    Naeini et al. 2015 (doi:10.1609/aaai.v29i1.9602) and Guo et al. 2017 (arXiv:1706.04599), but in bins of equal mass
    instead of equal width (Nixon et al. 2019, arXiv:1904.01685): a good model gives nearly all its images more
    than 0.9, which leaves most bins of equal width with next to no images. It is above 0 even for perfectly calibrated
    probabilities, the more the fewer images there are to a bin.

    Args:
        probabilities: Of each class, (n, 5), rows sum to 1; the likeliest is the predicted one.
        labels: True class indices, (n,), n >= 1.
        bins: How many at most; images of equal confidence share one.
    """
    return float(_calibration_errors(probabilities, labels, np.ones((1, len(labels))), bins)[0])


def calibration_error_interval(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Interval:
    """Confidence interval of `expected_calibration_error`; `weights` from `draw_groups`, (resamples, n).

    Resampling adds noise, which can only increase a mean of distances: the values over the resamples are shifted so
    that their mean is the figure itself, and clipped to 0 and 1.
    """
    if not len(weights):
        return None
    values = _calibration_errors(probabilities, labels, weights, BINS)
    shifted = values - values.mean() + expected_calibration_error(probabilities, labels)
    return percentile_interval(np.clip(shifted, 0, 1))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Compute the Brier score in its original, multi-class form: 0 to 2, smaller is better (Brier 1950).

    The form for two classes, 0 to 1, is half of it. A probability of 1/5 for all five classes has 0.8.

    Args:
        probabilities: Of each class, (n, 5).
        labels: True class indices, (n,), n >= 1.
    """
    return float(_squared_distances(probabilities, labels).mean())


def brier_interval(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Interval:
    """Confidence interval of `brier_score`; `weights` from `draw_groups`, (resamples, n)."""
    return mean_interval(_squared_distances(probabilities, labels), weights)


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """Risk–coverage curve of selective prediction by confidence (El-Yaniv & Wiener 2010, JMLR 11:1605).

    Images of equal confidence are accepted together, hence one point for them.

    Args:
        probabilities: Of each class, (n, 5); the likeliest is the predicted one.
        labels: True class indices, (n,), n >= 1.
    """
    confidence, right = _confidence(probabilities, labels)
    ranked = np.argsort(-confidence, kind="stable")
    accepted = np.arange(1, len(labels) + 1)
    error = (~right[ranked]).cumsum() / accepted
    last_of_equals = np.append(np.diff(confidence[ranked]) != 0, True)
    return RiskCoverage(coverage=accepted[last_of_equals] / len(labels), error=error[last_of_equals])


def _confidence(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the predicted class, float64 (n,), and whether that is the true one, bool (n,)."""
    return probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels


def _calibration_errors(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
    """The calibration error of each resample, (resamples,). The bins are those of all images."""
    confidence, right = _confidence(probabilities, labels)
    # By rank; equals have the rank of their first.
    bin_of = np.searchsorted(np.sort(confidence), confidence) * bins // len(confidence)
    gaps = weights @ (np.eye(bins)[bin_of] * (right - confidence)[:, None])
    return np.abs(gaps).sum(1) / weights.sum(1)


def _squared_distances(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return ((probabilities.astype(np.float64) - np.eye(len(CLASS_NAMES))[labels]) ** 2).sum(1)
