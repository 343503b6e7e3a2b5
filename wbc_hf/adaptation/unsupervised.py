"""Unsupervised domain adaptation: self-training on cells without labels, with a diagnosis before and after."""

import numpy as np
from scipy.special import softmax

from wbc_hf.adaptation.progress import subprogress
from wbc_hf.adaptation.results import STATUSES, Diagnosis
from wbc_hf.adaptation.self_training import consistency, self_train
from wbc_hf.adaptation.task import Task
from wbc_hf.data import may_be_stained_cell
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration

_ACCEPTED_SHARE = 0.43
_COLLAPSED = 0.95  # share of one class among the predictions from which on they look like a collapse
_UNPROVEN = (
    f"The surest {_ACCEPTED_SHARE:.0%} of these cells are confident, by the choice of the threshold: how many of them "
    "are right only labels can tell. In two laboratories whose labels were known 95 % and 73 % were."
)


def adapt_unsupervised(task: Task) -> tuple[Calibration, dict]:
    """Adapt the task's network in place. Returns its calibration and fields of `Adaptation`."""
    task.progress("Predicting the cells", 0)
    before = _diagnose(task, task.predictor.calibration, *task.logits_and_features())
    report = subprogress(task.progress, 0.25, 0.75)
    proportions = self_train(
        task.network,
        task.squares,
        task.predictor.processor,
        colours=task.colours,
        seed=task.seed,
        progress=lambda share: report("Adapting", share),
    )
    task.progress("Predicting the cells again", 0.75)
    logits, features = task.logits_and_features()
    predicted = logits.argmax(1)
    calibration = task.calibration(
        features,
        predicted,
        temperature=1.0 if task.predictor.calibration is None else task.predictor.calibration.temperature,
        threshold=unsupervised_review_threshold(softmax(logits, axis=1)),
        target_reached=False,
        fitted_on=len(task.cells),
    )
    after = _diagnose(task, calibration, logits, features)
    return calibration, {
        "diagnosis_before": before,
        "diagnosis_after": after,
        "proportions": dict(zip(CLASS_NAMES, map(float, proportions), strict=True)),
        "remarks": (_UNPROVEN,),
        "warning": _warning(predicted, before, after),
    }


def unsupervised_review_threshold(probabilities: np.ndarray) -> float:
    """Review threshold where no labels tell how often predictions are correct.

    It accepts the share `_ACCEPTED_SHARE` of the most confident predictions. In the laboratory with which this share
    was chosen 95 % of those were correct, in another one 73 %: see docs/unseen-laboratory.md.

    Args:
        probabilities: Of the adapted network, (n, classes).
    """
    return float(np.quantile(probabilities.max(1), 1 - _ACCEPTED_SHARE))


def _diagnose(task: Task, calibration: Calibration | None, logits: np.ndarray, features: np.ndarray) -> Diagnosis:
    confidence = softmax(logits, axis=1).max(1)
    shares = None
    if calibration is not None:
        may_be_cell = [may_be_stained_cell(cell.image) for cell in task.cells]
        statuses = np.array(calibration.statuses(confidence, features, may_be_cell))
        shares = {status: float((statuses == status).mean()) for status in STATUSES}
    agreement = consistency(task.network, task.squares, task.predictor.processor, seed=task.seed)
    return Diagnosis(shares, float(confidence.mean()), agreement)


def _warning(predicted: np.ndarray, before: Diagnosis, after: Diagnosis) -> str | None:
    counts = np.bincount(predicted, minlength=len(CLASS_NAMES))
    if counts.max() >= _COLLAPSED * len(predicted):
        return (
            f"Nearly all cells are answered {CLASS_NAMES[counts.argmax()]}: unless they are, the adaptation led "
            "astray. Label about 20 cells of each class, and adapt with these."
        )
    if after.consistency <= before.consistency:
        return (
            f"Adaptation did not help by the one criterion that needs no labels: {after.consistency:.1%} of the "
            f"cells get the same class in another view, {before.consistency:.1%} before. Label about 20 cells of "
            "each class, and adapt with these."
        )
    return None
