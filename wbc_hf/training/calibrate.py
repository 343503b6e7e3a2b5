"""Calibrate a trained model: softmax temperature, review threshold, out-of-distribution score."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset, IterableDatasetDict, concatenate_datasets
from PIL import Image
from scipy.special import softmax
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, OtherClasses, load_leucocytes, orientations, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import evaluate
from wbc_hf.inference import Predictor
from wbc_hf.modeling import (
    Calibration,
    LeftOut,
    fit_temperature,
    fold_temperature,
    recalibrate,
)
from wbc_hf.smear import find_cells

logger = logging.getLogger(__name__)

# Shares of images of other classes that shall be unfamiliar, and of validation images that may be at most for it.
OTHERS_FOUND, FAMILIAR_LOST = 0.95, 0.05
# More references only make the published folder larger.
MAX_REFERENCES = 6000
# Images of each laboratory that tell how it frames cells, and the ratio up to which two frame them alike.
_SPAN_IMAGES, _SAME_SPAN = 150, 1.2


def calibrate(
    folder: Path,
    leucocytes: Leucocytes | IterableDatasetDict,
    title: str,
    seed: int,
) -> Calibration:
    """Fit temperature, review threshold and out-of-distribution score, and save them with the model.

    The temperature goes into the classifier's weights in `folder`, everything else into `wbc.json` and
    `wbc.safetensors` beside them. Call it once for weights as they were trained.

    Args:
        folder: Of a model that has not been calibrated.
        leucocytes: Temperature and thresholds are fitted on validation, the out-of-distribution score on training.
            Where it has images of other classes, the threshold of that score is lowered until `OTHERS_FOUND` of them
            are unfamiliar, or `FAMILIAR_LOST` of the validation images.
        title: Of the training set, for those who load the model.
        seed: Random seed of the choice of training images.
    """
    predictor = Predictor.from_pretrained(folder, fresh=True)
    validation = _predict(predictor, leucocytes["validation"], "Calibrating")
    logits, features, labels = validation.logits, validation.features, validation.labels
    temperature = fit_temperature(logits, labels)
    sample = _sample(leucocytes["train"], MAX_REFERENCES, seed)
    training = _predict(predictor, sample, "Fitting the out-of-distribution score")
    calibration = Calibration.fit(
        temperature=temperature,
        probabilities=softmax(logits / temperature, axis=1),
        labels=labels,
        features=features,
        training_features=training.features,
        trained_on=title,
        laboratories=validation.laboratories,
        training_laboratories=training.laboratories,
        spans=measure_spans(_sample(leucocytes["train"], _SPAN_IMAGES * len(set(validation.laboratories)), seed)),
    )
    if isinstance(leucocytes, Leucocytes) and leucocytes.others:
        others = predictor.logits_and_features(_images(leucocytes.others, "Calibrating on other classes"))[1]
        calibration = keep_out_others(calibration, features, others)
    fold_temperature(predictor.model, temperature)  # type: ignore[arg-type]
    predictor.model.save_pretrained(folder)
    calibration.save(folder)
    return calibration


def keep_out_others(calibration: Calibration, validation: np.ndarray, others: np.ndarray) -> Calibration:
    """Lower the out-of-distribution threshold so that cells of none of the classes are unfamiliar.

    Args:
        calibration: Fitted on the same validation images.
        validation, others: Features of these images, (n, d), and of cells of other classes, (m, d).

    Returns:
        The calibration with a threshold at which `OTHERS_FOUND` of the others are unfamiliar; not so low that more
        than `FAMILIAR_LOST` of the validation images are, and not higher than it was.
    """
    score = calibration.out_of_distribution_score
    wanted = float(np.quantile(score(others), 1 - OTHERS_FOUND))
    lowest = float(np.quantile(score(validation), 1 - FAMILIAR_LOST))
    before = calibration.out_of_distribution_threshold
    lowered = replace(calibration, out_of_distribution_threshold=min(before, max(wanted, lowest)))
    found, lost = ((lowered.distances(features) > 1).mean() for features in (others, validation))
    logger.info(
        "%.0f %% of %d images of other classes are unfamiliar to the model, and %.1f %% of those that it shall know.",
        100 * found,
        len(others),
        100 * lost,
    )
    return lowered


def calibrate_on_left_out(
    folder: Path, left_out: Sequence[tuple[Path, str | Path]], other_classes: OtherClasses = "refuse"
) -> dict[str, dict]:
    """Fit a calibrated model's temperature and thresholds anew, on laboratories that models like it have not seen.

    Args:
        folder: Of a model of several laboratories, which is changed.
        left_out: For each laboratory the folder of a model that was trained alike without it, and its images, as
            `load_leucocytes` takes them; all of them are predicted.
        other_classes: As for `load_leucocytes`.

    Returns:
        What to expect of a laboratory that the model has not seen: for each that was left out, by its name, the
        metrics of `evaluate` for the model without it. Its temperature and thresholds are those that are fitted here,
        so that the figures of the accepted predictions are a little too good.

    Raises:
        WbcError: A model has no calibration.
    """
    predictor, before = _calibrated(folder)
    predicted = [_predict_left_out(model, spec, other_classes) for model, spec in left_out]
    factor, calibration = recalibrate(before, predicted)
    fold_temperature(predictor.model, factor)  # type: ignore[arg-type]
    predictor.model.save_pretrained(folder)
    calibration.save(folder)
    farthest = calibration.out_of_distribution_threshold / before.out_of_distribution_threshold
    return {each.laboratory: _evaluate_left_out(each, factor, farthest, calibration) for each in predicted}


def _evaluate_left_out(left_out: LeftOut, factor: float, farthest: float, calibration: Calibration) -> dict:
    """Metrics of what is said of such cells in fields: those in doubt are predicted again, in all orientations."""
    at_once, averaged = (softmax(each / factor, axis=1) for each in (left_out.logits, left_out.tta_logits))
    again = at_once.max(1) < (calibration.tta_below or calibration.review_threshold)
    probabilities = np.where(again[:, None], averaged, at_once)
    is_cell = [True] * len(again)
    statuses = [
        np.array(calibration.statuses(probabilities.max(1), left_out.distances / farthest, is_cell, tta=tta))
        for tta in (False, True)
    ]
    statuses_of_fields = np.where(again, statuses[1], statuses[0]).tolist()
    return evaluate(
        left_out.labels, probabilities, groups=left_out.groups or None, statuses=statuses_of_fields
    ).metrics


def _predict_left_out(model: Path, spec: str | Path, other_classes: OtherClasses) -> LeftOut:
    predictor, calibration = _calibrated(model)
    rows = concatenate_datasets(list(load_leucocytes(spec, other_classes=other_classes).values()))
    predicted = _predict(predictor, rows, f"Predicting {spec}")
    images = _images(rows, f"Predicting {spec} in all orientations")
    views, _ = predictor.logits_and_features(view for image in images for view in orientations(image))
    return LeftOut(
        predicted.laboratories[0],
        predicted.logits,
        views.reshape(len(rows), -1, views.shape[1]).mean(1),
        predicted.labels,
        calibration.distances(predicted.features),
        predicted.groups,
    )


def _calibrated(folder: Path) -> tuple[Predictor, Calibration]:
    predictor = Predictor.from_pretrained(folder, fresh=True)
    if predictor.calibration is None:
        raise WbcError(f"{folder}: has no calibration (wbc.json). A model that train.py wrote is needed.")
    return predictor, predictor.calibration


@dataclass(frozen=True)
class _Predicted:
    """Logits (n, classes) and features (n, d) of images, their labels (n,), laboratories and groups."""

    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    laboratories: list[str]
    groups: list[str]


def _predict(predictor: Predictor, rows: Iterable[dict], what: str) -> _Predicted:
    labels: list[int] = []
    laboratories: list[str] = []
    groups: list[str] = []

    def images() -> Iterator[Image.Image]:
        for row in tqdm(rows, desc=what, unit="image", delay=2, leave=False):
            labels.append(row["label"])
            laboratories.append(row["laboratory"])
            groups.append(row["group"])
            yield read_image(row["image"])

    logits, features = predictor.logits_and_features(images())
    return _Predicted(logits, features, np.array(labels), laboratories, groups)


def _images(rows: Iterable[dict], what: str) -> Iterator[Image.Image]:
    for row in tqdm(rows, desc=what, unit="image", delay=2, leave=False):
        yield read_image(row["image"])


def measure_spans(rows: Iterable[dict]) -> list[float]:
    """Measure how laboratories frame their pictures of single cells: side in widths of the cell in the middle.

    Returns:
        The median of each laboratory, ascending; of those that differ by less than a fifth the first.
    """
    by_laboratory: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        image = read_image(row["image"])
        x, y = image.width / 2, image.height / 2
        by_laboratory[row["laboratory"]] += [
            min(image.size) / max(x1 - x0, y1 - y0)
            for x0, y0, x1, y1 in (cell.box for cell in find_cells(image))
            if x0 < x < x1 and y0 < y < y1
        ]
    spans: list[float] = []
    for span in sorted(float(np.median(of_one)) for of_one in by_laboratory.values() if of_one):
        if not spans or span > _SAME_SPAN * spans[-1]:
            spans.append(round(span, 2))
    return spans


def _sample(rows: Iterable[dict], count: int, seed: int) -> Iterable[dict]:
    if not isinstance(rows, Dataset):
        return islice(rows, count)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.select(np.sort(chosen))
