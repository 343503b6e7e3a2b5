"""Few-shot domain adaptation: learning from a few labelled cells, evaluated by cross-validation."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold
from transformers import ResNetForImageClassification

from wbc_hf.adaptation.adaptation_cell import MIN_UNLABELLED
from wbc_hf.adaptation.cells import count_classes
from wbc_hf.adaptation.fine_tuning import fine_tune
from wbc_hf.adaptation.last_layer import move_last_layer
from wbc_hf.adaptation.progress import subprogress
from wbc_hf.adaptation.results import SCORES, Scores
from wbc_hf.adaptation.task import Task
from wbc_hf.adaptation.unsupervised import ACCEPTED_SHARE, unsupervised_review_threshold
from wbc_hf.adaptation.weight_difference import round_to_difference
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import evaluate
from wbc_hf.inference import Predictor
from wbc_hf.modeling import (
    TARGET_ELSEWHERE,
    Calibration,
    calibrated_threshold,
    fit_temperature,
    fold_temperature,
)

_FEW_CELLS = 5
# With fewer labels all weights learn too much from each, and the last layer alone learns more of the laboratory.
_FINE_TUNED = 20
_FEW_LABELS = (
    f"Fewer than {_FINE_TUNED} labels: the last layer alone was adapted, and the surest {ACCEPTED_SHARE:.0%} of the "
    "cells are confident."
)
_FEW_ALONE = (
    "Few labels alone made the model worse in two of three laboratories where that was measured: give other cells of "
    "the laboratory beside them, without labels, or photographs."
)
_MAX_FOLDS = 3
# Of the temperature's logarithm: 40 cells alone would say anything from 0.6 to 1.7.
_TEMPERATURE_SPREAD = 0.1
_MANY = 50  # cells without labels that show how probabilities are spread


def adapt_few_shot(task: Task) -> tuple[Calibration, dict]:
    """Adapt the task's network in place. Returns its calibration and fields of `Adaptation`."""
    labels, network = task.labels, task.network
    folds = cross_validation_folds(labels, [cell.group for cell in task.cells], task.seed)
    held = np.concatenate([held for _, held in folds])
    targets = labels[held]
    task.progress("Predicting the cells", 0)
    before, _ = task.logits_and_features(held)
    after = _cross_validate(task, folds)
    _learn(task, network, np.arange(len(labels)), "Adapting to all cells", len(folds), len(folds))

    # Errors in a class that a fold could not learn say nothing about the network that learns all classes.
    unseen = any(not set(labels[fold]) <= set(labels[rest]) for rest, fold in folds)
    temperature = 1.0 if unseen else fit_temperature(after, targets, spread=_TEMPERATURE_SPREAD)
    fold_temperature(network, temperature)
    task.progress("Fitting the out-of-distribution score", 0.95)
    logits, features = task.logits_and_features()
    if _last_layer_alone(labels):
        threshold, reached = unsupervised_review_threshold(softmax(logits, axis=1)), False
    else:
        # Counting errors among few labels, the threshold would hang on single cells. What was learned is too sure.
        others = logits[labels < 0] if (labels < 0).sum() >= _MANY else after / temperature
        threshold, reached = calibrated_threshold(softmax(others, axis=1).max(1), TARGET_ELSEWHERE)
    calibration = task.calibration(
        features,
        logits.argmax(1),
        temperature=temperature,
        threshold=threshold,
        target_reached=reached,
        fitted_on=len(held),
    )
    groups = [task.cells[index].group for index in held]
    scores_before, scores_after = (_score(targets, logits, groups, task.seed) for logits in (before, after))
    return calibration, {
        "labelled": count_classes(labels),
        "held_back": len(held),
        "folds": len(folds),
        "temperature": temperature,
        "scores_before": scores_before,
        "scores_after": scores_after,
        "remarks": _remarks(labels, held),
        "warning": _warning(scores_before, scores_after),
    }


def cross_validation_folds(
    labels: np.ndarray, groups: Sequence[str], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split labelled cells into cross-validation folds, stratified by class and never through a group.

    There are three folds, or as many as the rarest class has groups, but at least two. A class whose cells are all of
    one group is not held back, since the others would hold none of it, unless too little else is left to hold back.

    Args:
        labels: int (n,), class indices, -1 where unknown: such a cell is in no fold, and is left out with its group.
        groups: Group of each cell.
        seed: Random seed.

    Returns:
        For each fold the indices of the cells to learn from, and of those held back.

    Raises:
        WbcError: All labelled cells are of one group.
    """
    _, group = np.unique(groups, return_inverse=True)
    labelled = np.flatnonzero(labels >= 0)
    if len(np.unique(group[labelled])) < 2:
        raise WbcError(
            f"{len(labelled)} labelled cells: are all near-duplicates of one cell, or of one photograph, so that none "
            "can be held back to evaluate with. Add cells of another photograph."
        )
    groups_of = [np.unique(group[labels == label]) for label in np.unique(labels[labelled])]
    needed = [of_class[0] for of_class in groups_of if len(of_class) == 1]
    pool = labelled[~np.isin(group[labelled], needed)]
    if max(_groups_per_class(labels[pool], group[pool]), default=0) < 2:
        pool = labelled
    rarest = min(_groups_per_class(labels[pool], group[pool]))
    splitter = StratifiedGroupKFold(min(_MAX_FOLDS, max(2, rarest)), shuffle=True, random_state=seed)
    folds = [pool[fold] for _, fold in splitter.split(pool, labels[pool], group[pool])]
    return [(np.flatnonzero(~np.isin(group, group[fold])), fold) for fold in folds]


def _groups_per_class(labels: np.ndarray, group: np.ndarray) -> list[int]:
    return [len(np.unique(group[labels == label])) for label in np.unique(labels)]


def _cross_validate(task: Task, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Logits of the held-back cells of each fold by a network that was adapted without them, (held, classes)."""
    logits = []
    for step, (rest, fold) in enumerate(folds):
        network = copy.deepcopy(task.network)
        what = f"Adapting without the cells held back, {step + 1} of {len(folds)}"
        _learn(task, network, rest, what, step, len(folds))
        predictor = Predictor(network, task.predictor.processor, task.predictor.name)
        logits.append(task.logits_and_features(fold, predictor)[0])
    return np.concatenate(logits)


def _learn(
    task: Task, network: ResNetForImageClassification, chosen: np.ndarray, what: str, step: int, folds: int
) -> None:
    """Learn from the cells without one of the folds, or, as the last of the steps, from all."""
    steps = folds + 1
    report = subprogress(task.progress, 0.05 + 0.9 * step / steps, 0.05 + 0.9 * (step + 1) / steps)
    base = copy.deepcopy(network.state_dict())
    shown = np.isin(task.cell_of, chosen)
    squares, cell_of, processor = task.squares[torch.from_numpy(shown)], task.cell_of[shown], task.predictor.processor

    def progress(_: str, share: float) -> None:
        report(what, share)

    if _last_layer_alone(task.labels):
        of_chosen, labels = np.searchsorted(chosen, cell_of), task.labels[chosen]
        move_last_layer(network, squares, of_chosen, labels, processor, seed=task.seed, progress=progress)
    else:
        labelled = int((task.labels[chosen] >= 0).sum())
        labels = task.labels[cell_of]
        fine_tune(network, squares, labels, processor, cells=labelled, seed=task.seed, progress=progress)
    # Also those of the folds: the figures are of what a laboratory keeps.
    round_to_difference(network, base)


def _last_layer_alone(labels: np.ndarray) -> bool:
    """Whether labels of all cells, also in the folds, are too few for all weights."""
    return int((labels >= 0).sum()) < _FINE_TUNED


def _score(labels: np.ndarray, logits: np.ndarray, groups: Sequence[str], seed: int) -> Scores:
    metrics = evaluate(labels, softmax(logits, axis=1), groups=groups, seed=seed).metrics
    return Scores(
        **{name: metrics[name] for name in SCORES},
        intervals={name: metrics["intervals"][name] for name in SCORES},
        recall={name: of_class["recall"] for name, of_class in metrics["per_class"].items()},
    )


def _warning(before: Scores, after: Scores) -> str | None:
    if after.accuracy <= before.accuracy:
        return (
            f"Adaptation did not help: {after.accuracy:.1%} of the held-back cells are answered right, "
            f"{before.accuracy:.1%} before. Keep the model as it was, or label more cells."
        )
    if after.balanced_accuracy < before.balanced_accuracy:
        return (
            "Adaptation helped common classes and harmed rare ones: balanced accuracy is "
            f"{after.balanced_accuracy:.1%}, {before.balanced_accuracy:.1%} before. Label more rare ones."
        )
    return None


def _remarks(labels: np.ndarray, held: np.ndarray) -> tuple[str, ...]:
    given, evaluated = count_classes(labels), count_classes(labels[held])
    few = [f"{name} ({count})" for name, count in given.items() if 0 < count < _FEW_CELLS]
    missing = [name for name, count in given.items() if count == 0]
    not_evaluated = [name for name, count in given.items() if count and not evaluated[name]]
    few_labels: tuple[str, ...] = (_FEW_LABELS,) if _last_layer_alone(labels) else ()
    if few_labels and (labels < 0).sum() < MIN_UNLABELLED:
        few_labels += (_FEW_ALONE,)
    return few_labels + tuple(
        f"{text}: {', '.join(names)}."
        for text, names in (
            (f"Fewer than {_FEW_CELLS} cells, too few to learn or evaluate a class", few),
            ("No cells were given, so that nothing is known of these classes here", missing),
            ("All cells are near-duplicates or of one photograph, and were never held back", not_evaluated),
        )
        if names
    )
