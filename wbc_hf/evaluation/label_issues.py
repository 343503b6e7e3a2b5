"""Labels that a model doubts: images of which it predicts another class and hardly believes the given one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from wbc_hf.data import DOUBTED_BELOW, LabelIssue
from wbc_hf.errors import WbcError
from wbc_hf.evaluation.metrics import check_labels, check_scores
from wbc_hf.labels import CLASS_NAMES


def find_label_issues(labels: ArrayLike, probabilities: np.ndarray, sources: Sequence[str]) -> tuple[LabelIssue, ...]:
    """Find labels that are likely to be wrong, by what a model predicts for their images.

    Those to which it gives less than `DOUBTED_BELOW`, in the order of that probability: the self-confidence of
    confident learning (Northcutt et al. 2021, arXiv:1911.00068). docs/audit.md compares that method's own cut.

    Args:
        labels: Given class indices, (n,), n >= 1; classes may be missing.
        probabilities: Of each class, 0 to 1, (n, 5), columns in the order of `CLASS_NAMES`, of a calibrated model. One
            that was trained on these images agrees with their labels, wrong ones too.
        sources: Files of the images, n of them.

    Returns:
        The least likely label first.

    Raises:
        WbcError: No labels, labels or probabilities of another shape, or not one source per label.
    """
    labels, _ = check_labels(labels, labels)
    scores = check_scores(probabilities, len(labels))
    if len(sources) != len(labels):
        raise WbcError(f"sources: {len(sources)} for {len(labels)} labels: give one per label")
    given = scores[np.arange(len(labels)), labels]
    predicted, highest = scores.argmax(1), scores.max(1)
    ranked = np.argsort(given, kind="stable")
    return tuple(
        LabelIssue(
            sources[at], CLASS_NAMES[labels[at]], CLASS_NAMES[predicted[at]], float(given[at]), float(highest[at])
        )
        for at in ranked[given[ranked] < DOUBTED_BELOW].tolist()
    )
