"""Evaluate a model on labelled images: what a training run and `wbc-hf evaluate` have in common."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL.Image import Image
from tqdm.auto import tqdm

from wbc_hf.data import read_image
from wbc_hf.evaluation import Evaluation, columns_of_classes, evaluate, write_report
from wbc_hf.inference.predictor import Predictor, batches

_THUMBNAIL = (160, 160)


def evaluate_predictor(
    predictor: Predictor,
    rows: Iterable[Mapping],
    folder: Path | None = None,
    *,
    leaked: np.ndarray | None = None,
    unseen: Mapping[str, dict] | None = None,
    log_history: Sequence[dict] = (),
) -> Evaluation:
    """Classify labelled images, evaluate the predictions, and write a report of them.

    Args:
        predictor: Of a model whose classes are leucocytes.
        rows: A split of `load_leucocytes`, also a streamed one; it is read once.
        folder: Where the report goes; by default none is written.
        leaked, unseen, log_history: As for `evaluate` and `write_report`.

    Raises:
        WbcError: There are no rows, or the model has other classes.
    """
    columns = columns_of_classes(predictor.labels)
    labels: list[int] = []
    names: list[str] = []
    groups: list[str] = []
    statuses: list[str] = []
    laboratories: list[str] = []
    probabilities: list[np.ndarray] = []
    mistakes: dict[int, Image] = {}
    for batch in tqdm(batches(rows), desc="Evaluating", unit="batch", delay=2, leave=False):
        images = [read_image(row["image"]) for row in batch]
        answers, batch_statuses = predictor.classify(images)
        answers = answers @ columns
        for row, image, answer in zip(batch, images, answers, strict=True):
            if answer.argmax() != row["label"]:
                image.thumbnail(_THUMBNAIL)
                mistakes[len(labels)] = image
            labels.append(row["label"])
            names.append(row["source"])
            groups.append(row["group"])
            laboratories.append(row["laboratory"])
        probabilities.append(answers)
        statuses += batch_statuses
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
    if folder is not None:
        write_report(folder, evaluation, names=names, image_at=mistakes.__getitem__, log_history=log_history)
    return evaluation
