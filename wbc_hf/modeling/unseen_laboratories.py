"""Fit temperature and thresholds on laboratories that were left out of training.

What a model's own validation images tell of its confidence does not hold in a laboratory that it has not seen. There
it is surer than it should be, and every image lies farther from the training images than those of home do. Models that
were trained alike, each without one laboratory, tell how much; see docs/unseen-laboratory.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from wbc_hf.modeling.calibration import Calibration

# Accuracy that accepted predictions shall reach, as the mean of the laboratories.
TARGET_ELSEWHERE = 0.95
# Share of the cells of a laboratory that may be unfamiliar because of its stain and its camera alone.
UNFAMILIAR_ELSEWHERE = 0.1
_TEMPERATURES = (0.2, 10.0)
# An accuracy among fewer accepted cells than these says too little.
_FEWEST = 20


@dataclass(frozen=True)
class LeftOut:
    """Predictions for a laboratory by a calibrated model that was trained without it.

    Attributes:
        laboratory: Its name.
        logits: float (n, classes).
        labels: int (n,), class indices.
        distances: float (n,), out-of-distribution scores in units of the model's threshold.
    """

    laboratory: str
    logits: np.ndarray
    labels: np.ndarray
    distances: np.ndarray


def fit_temperature_elsewhere(left_out: Sequence[LeftOut]) -> float:
    """Fit the temperature that the mean cross-entropy of the laboratories is lowest at, each counting alike."""
    parts = [(torch.from_numpy(each.logits).double(), torch.from_numpy(each.labels)) for each in left_out]

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        losses = [torch.nn.functional.cross_entropy(logits / temperature, labels) for logits, labels in parts]
        return torch.stack(losses).mean().item()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def recalibrate(calibration: Calibration, left_out: Sequence[LeftOut]) -> tuple[float, Calibration]:
    """Fit a model's temperature and thresholds to laboratories that models trained like it have not seen.

    The out-of-distribution threshold lets all but `UNFAMILIAR_ELSEWHERE` of each laboratory's cells pass. The review
    threshold is the lowest at which `TARGET_ELSEWHERE` of the accepted predictions are right, each laboratory counting
    alike: what to expect of a new one, as far as it is like these.

    Args:
        calibration: Of the model of all laboratories, fitted at home.
        left_out: One laboratory each, by models calibrated at home.

    Returns:
        The factor of the temperature, to be folded into the model, and its new calibration.
    """
    factor = fit_temperature_elsewhere(left_out)
    farthest = max(float(np.quantile(each.distances, 1 - UNFAMILIAR_ELSEWHERE)) for each in left_out)
    farthest = max(1.0, farthest)
    threshold, reached = _review_threshold(left_out, factor, farthest)
    return factor, replace(
        calibration,
        temperature=calibration.temperature * factor,
        review_threshold=threshold,
        target_reached=reached,
        out_of_distribution_threshold=calibration.out_of_distribution_threshold * farthest,
        left_out=tuple(each.laboratory for each in left_out),
    )


def _review_threshold(left_out: Sequence[LeftOut], temperature: float, farthest: float) -> tuple[float, bool]:
    """The lowest probability from which on enough of the familiar cells are right, and whether there is one."""
    sure, right = [], []
    for each in left_out:
        familiar = each.distances <= farthest
        probabilities = softmax(each.logits[familiar] / temperature, axis=1)
        order = np.argsort(-probabilities.max(1), kind="stable")
        sure.append(probabilities.max(1)[order])
        right.append(np.cumsum((probabilities.argmax(1) == each.labels[familiar])[order]))
    candidates = np.unique(np.concatenate(sure))
    accepted = np.stack([np.searchsorted(-confidence, -candidates, side="right") for confidence in sure])
    correct = np.stack([np.append(0, count)[number] for count, number in zip(right, accepted, strict=True)])
    accuracy = (correct / np.maximum(accepted, 1)).mean(0)
    enough = np.flatnonzero((accuracy >= TARGET_ELSEWHERE) & (accepted.min(0) >= _FEWEST))
    return (float(candidates[enough[0]]), True) if len(enough) else (1.0, False)
