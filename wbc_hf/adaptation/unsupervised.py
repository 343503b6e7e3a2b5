"""Unsupervised domain adaptation: another last layer for cells without labels, with a diagnosis before and after."""

import copy

import numpy as np
from scipy.special import softmax

from wbc_hf.adaptation.fine_tuning import consistency
from wbc_hf.adaptation.last_layer import move_last_layer
from wbc_hf.adaptation.progress import subprogress
from wbc_hf.adaptation.results import STATUSES, Diagnosis
from wbc_hf.adaptation.task import Task
from wbc_hf.data import may_be_stained_cell
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration

# Of so many of the cells of laboratories that the model had not seen, 95 % were right: docs/unseen-laboratory.md.
ACCEPTED_SHARE = 0.35
_COLLAPSED = 0.95  # share of one class among the predictions from which on they look like a collapse
_UNPROVEN = (
    f"The surest {ACCEPTED_SHARE:.0%} of these cells are confident, by the choice of the threshold: how many of them "
    "are right only labels can tell. In three laboratories with known labels 95 % were on average, 81 % at worst."
)


def adapt_unsupervised(task: Task) -> tuple[Calibration, dict]:
    """Adapt the task's network in place, unless that does not help. Returns its calibration, fields of `Adaptation`.

    Whether it helps is told by consistency, which needs no labels. Where that falls, or nearly all cells get one
    class, the weights stay as they were.
    """
    task.progress("Predicting the cells", 0)
    own = task.predictor.calibration
    logits_before, features_before = task.logits_and_features()
    before = _diagnose(task, own, logits_before, features_before, _consistency(task))
    layer = task.network.classifier[-1]
    weights = copy.deepcopy(layer.state_dict())
    proportions = move_last_layer(
        task.network,
        task.squares,
        task.cell_of,
        task.labels,
        task.predictor.processor,
        seed=task.seed,
        progress=subprogress(task.progress, 0.25, 0.75),
    )
    task.progress("Predicting the cells again", 0.75)
    logits, features = task.logits_and_features()
    agreement = _consistency(task)
    warning = _warning(logits.argmax(1), before.consistency, agreement)
    if warning:
        agreement = before.consistency
        layer.load_state_dict(weights)
        logits, features = logits_before, features_before
    calibration = task.calibration(
        features,
        logits.argmax(1),
        temperature=1.0 if own is None else own.temperature,
        threshold=unsupervised_review_threshold(softmax(logits, axis=1)),
        target_reached=False,
        fitted_on=len(task.cells),
    )
    return calibration, {
        "diagnosis_before": before,
        "diagnosis_after": _diagnose(task, calibration, logits, features, agreement),
        "proportions": dict(zip(CLASS_NAMES, map(float, proportions), strict=True)),
        "remarks": (_UNPROVEN,),
        "warning": warning,
    }


def unsupervised_review_threshold(probabilities: np.ndarray) -> float:
    """Review threshold where no labels tell how often predictions are correct.

    It accepts the share `ACCEPTED_SHARE` of the most confident predictions.

    Args:
        probabilities: Of the adapted network, (n, classes).
    """
    return float(np.quantile(probabilities.max(1), 1 - ACCEPTED_SHARE))


def _consistency(task: Task) -> float:
    return consistency(task.network, task.squares, task.predictor.processor, seed=task.seed)


def _diagnose(
    task: Task, calibration: Calibration | None, logits: np.ndarray, features: np.ndarray, agreement: float
) -> Diagnosis:
    confidence = softmax(logits, axis=1).max(1)
    shares = None
    if calibration is not None:
        may_be_cell = [may_be_stained_cell(cell.image) for cell in task.cells]
        statuses = np.array(calibration.statuses(confidence, calibration.distances(features), may_be_cell))
        shares = {status: float((statuses == status).mean()) for status in STATUSES}
    return Diagnosis(shares, float(confidence.mean()), agreement)


def _warning(predicted: np.ndarray, before: float, after: float) -> str | None:
    """Why the adaptation is taken back; None if it is not."""
    counts = np.bincount(predicted, minlength=len(CLASS_NAMES))
    if counts.max() >= _COLLAPSED * len(predicted):
        return (
            f"Nearly all cells were answered {CLASS_NAMES[counts.argmax()]} after adaptation, so the weights were "
            "left as they were. If they are something else, label about 20 cells of each class, and adapt with these."
        )
    if after < before:
        return (
            "Adaptation did not help by the one criterion that needs no labels, so the weights were left as they "
            f"were: {after:.1%} of the cells got the same class in another view, {before:.1%} before. "
            "Label about 20 cells of each class, and adapt with these."
        )
    return None
