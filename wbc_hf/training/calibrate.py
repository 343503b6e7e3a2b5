"""Calibrate a trained model: softmax temperature, review threshold, out-of-distribution score."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset, IterableDatasetDict, concatenate_datasets
from PIL import Image
from scipy.special import softmax
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, load_leucocytes, read_image
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.modeling import (
    Calibration,
    LeftOut,
    fit_temperature,
    fold_temperature,
    recalibrate,
)

# More references only make the published folder larger.
MAX_REFERENCES = 6000


def calibrate(folder: Path, leucocytes: Leucocytes | IterableDatasetDict, title: str, seed: int) -> Calibration:
    """Fit temperature, review threshold and out-of-distribution score, and save them with the model.

    The temperature goes into the classifier's weights in `folder`, everything else into `wbc.json` and
    `wbc.safetensors` beside them. Call it once for weights as they were trained.

    Args:
        folder: Of a model that has not been calibrated.
        leucocytes: Temperature and thresholds are fitted on validation, the out-of-distribution score on training.
        title: Of the training set, for those who load the model.
        seed: Random seed of the choice of training images.
    """
    predictor = Predictor.from_pretrained(folder, fresh=True)
    logits, features, labels = _logits_and_features(predictor, leucocytes["validation"], "Calibrating")
    temperature = fit_temperature(logits, labels)
    _, training_features, _ = _logits_and_features(
        predictor, _sample(leucocytes["train"], MAX_REFERENCES, seed), "Fitting the out-of-distribution score"
    )
    calibration = Calibration.fit(
        temperature=temperature,
        probabilities=softmax(logits / temperature, axis=1),
        labels=labels,
        features=features,
        training_features=training_features,
        trained_on=title,
    )
    fold_temperature(predictor.model, temperature)  # type: ignore[arg-type]
    predictor.model.save_pretrained(folder)
    calibration.save(folder)
    return calibration


def calibrate_on_left_out(folder: Path, left_out: Sequence[tuple[Path, str | Path]]) -> Calibration:
    """Fit a calibrated model's temperature and thresholds anew, on laboratories that models like it have not seen.

    Args:
        folder: Of a model of several laboratories, which is changed.
        left_out: For each laboratory the folder of a model that was trained alike without it, and its images, as
            `load_leucocytes` takes them; all of them are predicted.

    Raises:
        WbcError: A model has no calibration.
    """
    predictor, calibration = _calibrated(folder)
    factor, calibration = recalibrate(calibration, [_predict_left_out(model, spec) for model, spec in left_out])
    fold_temperature(predictor.model, factor)  # type: ignore[arg-type]
    predictor.model.save_pretrained(folder)
    calibration.save(folder)
    return calibration


def _predict_left_out(model: Path, spec: str | Path) -> LeftOut:
    predictor, calibration = _calibrated(model)
    rows = concatenate_datasets(list(load_leucocytes(spec).values()))
    logits, features, labels = _logits_and_features(predictor, rows, f"Predicting {spec}")
    distances = calibration.out_of_distribution_score(features) / calibration.out_of_distribution_threshold
    return LeftOut(rows["laboratory"][0], logits, labels, distances)


def _calibrated(folder: Path) -> tuple[Predictor, Calibration]:
    predictor = Predictor.from_pretrained(folder, fresh=True)
    if predictor.calibration is None:
        raise WbcError(f"{folder}: has no calibration (wbc.json). A model that train.py wrote is needed.")
    return predictor, predictor.calibration


def _logits_and_features(
    predictor: Predictor, rows: Iterable[dict], title: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels: list[int] = []

    def images() -> Iterator[Image.Image]:
        for row in tqdm(rows, desc=title, unit="image", delay=2, leave=False):
            labels.append(row["label"])
            yield read_image(row["image"])

    logits, features = predictor.logits_and_features(images())
    return logits, features, np.array(labels)


def _sample(rows: Iterable[dict], count: int, seed: int) -> Iterable[dict]:
    if not isinstance(rows, Dataset):
        return islice(rows, count)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.select(np.sort(chosen))
