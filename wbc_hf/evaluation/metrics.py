"""Classification metrics: accuracy, precision, recall, F1, Matthews correlation, ROC areas, confusion matrix.

`LeucocyteMetrics` offers `compute_metrics` as an `evaluate.Metric`: built directly, or by
`evaluate.load("wbc_hf/evaluation/metrics.py")`, both without a network. Nothing here is ever NaN: what is not defined
is None.
"""

from collections.abc import Sequence

import datasets
import evaluate  # not `from evaluate import Metric`: evaluate.load takes the first Metric it finds in this file
import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix, matthews_corrcoef, precision_recall_fscore_support, roc_auc_score

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.figure_names import HEADLINE_NAMES
from wbc_hf.labels import CLASS_NAMES


def compute_metrics(references: ArrayLike, predictions: ArrayLike, scores: ArrayLike | None = None) -> dict:
    """Compute classification metrics from true and predicted classes.

    The figures of a class without any cell in `references` are None, and every macro figure averages over the other
    classes only. A class that has cells and is never predicted has precision 0.

    Args:
        references: True class indices, (n,), n >= 1, each an index into `CLASS_NAMES`.
        predictions: Predicted class indices, (n,), the same range.
        scores: Higher for a likelier class, (n, 5), finite; probabilities or logits. Without them no ROC area.

    Returns:
        A dictionary that goes into JSON as it is:

        - `count`: n.
        - `accuracy`, `balanced_accuracy`, `macro_precision`, `macro_recall`, `macro_f1`: 0 to 1. Balanced accuracy
          and macro recall are by definition the same; people search for both names.
        - `matthews_correlation`: -1 to 1; 0 where one class is predicted for every cell; None where `references` hold
          only one class (Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006).
        - `roc_auc`: 0 to 1, the mean of the one-vs-rest areas of the classes that have cells, if there are cells of
          other classes; None where no class has one, or without `scores`.
        - `per_class`: by class name, `precision`, `recall`, `f1`, `roc_auc` (0 to 1 or None), `support` (cells).
        - `confusion_matrix`: 5 x 5 counts, a row per true, a column per predicted class, in order of `CLASS_NAMES`.

    Raises:
        WbcError: No cells, different lengths, a label that is not a class index, scores of another shape or NaN.
    """
    references, predictions = check_labels(references, predictions)
    columns = None if scores is None else check_scores(scores, len(references)).T

    classes = range(len(CLASS_NAMES))
    precision, recall, f1, support = precision_recall_fscore_support(
        references, predictions, labels=classes, zero_division=0.0
    )
    of_classes = {"precision": precision, "recall": recall, "f1": f1}
    present = support > 0
    areas = [
        float(roc_auc_score(references == index, columns[index]))
        if columns is not None and 0 < support[index] < len(references)
        else None
        for index in classes
    ]
    defined = [area for area in areas if area is not None]
    macro_recall = float(recall[present].mean())
    return {
        "count": len(references),
        "accuracy": float(np.mean(references == predictions)),
        "balanced_accuracy": macro_recall,
        "macro_precision": float(precision[present].mean()),
        "macro_recall": macro_recall,
        "macro_f1": float(f1[present].mean()),
        "matthews_correlation": float(matthews_corrcoef(references, predictions)) if present.sum() > 1 else None,
        "roc_auc": float(np.mean(defined)) if defined else None,
        "per_class": {
            name: {figure: float(values[index]) if present[index] else None for figure, values in of_classes.items()}
            | {"support": int(support[index]), "roc_auc": areas[index]}
            for index, name in enumerate(CLASS_NAMES)
        },
        "confusion_matrix": confusion_matrix(references, predictions, labels=classes).tolist(),
    }


def headline(metrics: dict) -> dict[str, float]:
    """The scalar metrics without undefined ones, which `Trainer.log_metrics` cannot print."""
    return {name: metrics[name] for name in HEADLINE_NAMES if metrics[name] is not None}


def check_labels(references: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as integer arrays (n,) of class indices, n >= 1; `WbcError` if they are anything else."""
    references, predictions = np.asarray(references), np.asarray(predictions)
    if len(references) != len(predictions):
        raise WbcError(
            f"{len(predictions)} predictions for {len(references)} references: give one prediction per reference"
        )
    if len(references) == 0:
        raise WbcError("0 cells to evaluate, at least 1 is needed: is the test split empty?")
    allowed = ", ".join(f"{index} ({name})" for index, name in enumerate(CLASS_NAMES))
    for what, labels in (("references", references), ("predictions", predictions)):
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise WbcError(
                f"{what} of type {labels.dtype} and shape {labels.shape}: give a flat list of class indices, {allowed}"
            )
        outside = (labels < 0) | (labels >= len(CLASS_NAMES))
        if outside.any():
            position = int(outside.argmax())
            raise WbcError(f"{what}[{position}] is {labels[position]}: a class index is one of {allowed}")
    return references, predictions


def check_scores(scores: ArrayLike, count: int) -> np.ndarray:
    """Scores as float64 (count, 5).

    Raises:
        WbcError: They have another shape, or are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    allowed = (count, len(CLASS_NAMES))
    if scores.shape != allowed:
        raise WbcError(f"scores of shape {scores.shape}: {allowed} is needed, a row per cell and a column per class")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        row = scores[broken[0]].tolist()
        raise WbcError(f"scores[{broken[0]}] is {row}: every score has to be a finite number")
    return scores


class LeucocyteMetrics(evaluate.Metric):
    """`compute_metrics` as `evaluate.Metric`: `LeucocyteMetrics().compute(predictions=…, references=…, scores=…)`.

    `scores` are given to `compute` for all cells at once: `add_batch` does not gather them.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=compute_metrics.__doc__ or "",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")},
            ),
        )

    def add_batch(self, *, predictions: Sequence[int], references: Sequence[int]) -> None:
        """Gather class indices for `compute`. `WbcError` if one is not a class index."""
        # Checked before evaluate writes them to its file, so that a mistake leaves the gathered ones as they were.
        check_labels(references, predictions)
        super().add_batch(predictions=predictions, references=references)

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], scores: Sequence[Sequence[float]] | None = None
    ) -> dict:
        return compute_metrics(references, predictions, scores)
