"""Evaluate a model on labelled images: what a training run and `wbc-hf evaluate` have in common."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL.Image import Image
from tqdm.auto import tqdm

from wbc_hf.data import read_image
from wbc_hf.evaluation import (
    EvaluatedSet,
    Evaluation,
    EvaluationRecord,
    columns_of_classes,
    compare_predictions,
    evaluate,
    write_report,
)
from wbc_hf.inference.predictor import Predictor, batches

_KNOWN = ("label", "source", "group", "laboratory")  # columns of a row that are kept
_THUMBNAIL = (160, 160)


def evaluate_predictor(
    predictor: Predictor,
    rows: Iterable[Mapping],
    folder: Path | None = None,
    *,
    leaked: np.ndarray | None = None,
    unseen: Mapping[str, dict] | None = None,
    log_history: Sequence[dict] = (),
    data: EvaluatedSet | None = None,
    other: Predictor | None = None,
) -> Evaluation:
    """Classify labelled images, evaluate the predictions, and write a report of them.

    Args:
        predictor: Of a model whose classes are leucocytes.
        rows: A split of `load_leucocytes`, also a streamed one; it is read once.
        folder: Where the report goes; by default none is written.
        leaked, unseen, log_history: As for `evaluate` and `write_report`.
        data: Which images these are, for the report.
        other: Another model, whose predictions for the same images are compared: `comparison` of the metrics.

    Raises:
        WbcError: There are no rows, or a model has other classes.
    """
    columns = columns_of_classes(predictor.labels)
    others_columns = None if other is None else columns_of_classes(other.labels)
    known: list[dict] = []
    statuses: list[str] = []
    probabilities: list[np.ndarray] = []
    others_given: list[np.ndarray] = []
    mistakes: dict[int, Image] = {}
    started, others_seconds = time.perf_counter(), 0.0
    for batch in tqdm(batches(rows), desc="Evaluating", unit="batch", delay=2, leave=False):
        images = [read_image(row["image"]) for row in batch]
        answers, batch_statuses = predictor.classify(images)
        answers = answers @ columns
        if other is not None:
            since = time.perf_counter()
            others_given.append((other.probabilities(images) @ others_columns).argmax(1))
            others_seconds += time.perf_counter() - since
        for row, image, answer in zip(batch, images, answers, strict=True):
            if answer.argmax() != row["label"]:
                image.thumbnail(_THUMBNAIL)
                mistakes[len(known)] = image
            known.append({name: row[name] for name in _KNOWN})
        probabilities.append(answers)
        statuses += batch_statuses
    seconds = time.perf_counter() - started - others_seconds
    labels, names, groups, laboratories = ([row[name] for row in known] for name in _KNOWN)
    evaluation = evaluate(
        labels,
        np.concatenate(probabilities or [np.zeros((0, columns.shape[1]))]),
        groups=groups,
        statuses=None if predictor.calibration is None else statuses,
        laboratories=laboratories,
        calibration=predictor.calibration,
        leaked=leaked,
        unseen=unseen,
    )
    if other is not None:
        compared = compare_predictions(evaluation.labels, evaluation.given, np.concatenate(others_given), groups)
        comparison = {"model": other.identity.name, "version": other.identity.version} | compared
        evaluation = dataclasses.replace(evaluation, metrics=evaluation.metrics | {"comparison": comparison})
    if folder is not None:
        write_report(
            folder,
            evaluation,
            names=names,
            image_at=mistakes.__getitem__,
            log_history=log_history,
            record=_record(predictor, data, len(labels), seconds),
        )
    return evaluation


def _record(predictor: Predictor, data: EvaluatedSet | None, count: int, seconds: float) -> EvaluationRecord:
    return EvaluationRecord(
        model=predictor.identity.name,
        version=predictor.identity.version,
        software=predictor.identity.software,
        backend=predictor.backend.name,
        data=data,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        total_time_in_seconds=round(seconds, 3),
        samples_per_second=round(count / seconds, 3),
        latency_in_seconds=round(seconds / count, 6),
    )
