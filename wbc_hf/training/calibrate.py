"""After training: make the saved model's probabilities honest, and let it say when to look."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset, IterableDatasetDict
from PIL import Image
from scipy.special import softmax
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, read_image, synthetic_outliers
from wbc_hf.inference import Predictor
from wbc_hf.modeling import (
    Calibration,
    Colours,
    fit_calibration,
    fit_temperature,
    fold_temperature,
    measure_colours,
    squares_of,
)

# Enough for the densities that familiarity is measured by; more only makes the published folder larger.
MAX_REFERENCES = 6000
MAX_OUTLIERS = 400
MAX_COLOURS = 500
_STRANGE_SIDE = 256


def calibrate(folder: Path, leucocytes: Leucocytes | IterableDatasetDict, title: str, seed: int) -> Calibration:
    """Fit temperature, thresholds and familiarity on validation, and save them with the model.

    The temperature goes into the classifier's weights in `folder`, everything else into `wbc.json` and
    `wbc.safetensors` beside them. To be called once for weights as they were trained.

    Args:
        folder: Of a model that has not been calibrated.
        leucocytes: Validation is fitted on; training images are what is familiar.
        title: Of the training set, for those who load the model.
        seed: Of the choice of training images and of strange pictures.
    """
    predictor = Predictor.from_pretrained(folder, fresh=True)
    logits, features, labels = _look_at(predictor, leucocytes["validation"], "Calibrating")
    temperature = fit_temperature(logits, labels)
    cells = [_small(row["image"]) for row in _sample(leucocytes["validation"], MAX_OUTLIERS, seed)]
    _, strange = predictor.logits_and_features(synthetic_outliers(cells, seed))
    _, training_features, training_labels = _look_at(
        predictor, _sample(leucocytes["train"], MAX_REFERENCES, seed), "Learning what is familiar"
    )
    trust = fit_calibration(
        temperature=temperature,
        probabilities=softmax(logits / temperature, axis=1),
        labels=labels,
        features=features,
        strange_features=strange,
        training_features=training_features,
        training_labels=training_labels,
        trained_on=title,
        colours=_colours(predictor, leucocytes["train"], seed),
    )
    fold_temperature(predictor.model, temperature)
    predictor.model.save_pretrained(folder)
    trust.save(folder)
    return trust


def _look_at(predictor: Predictor, rows: Iterable[dict], title: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels: list[int] = []

    def images() -> Iterator[Image.Image]:
        for row in tqdm(rows, desc=title, unit="image", delay=2, leave=False):
            labels.append(row["label"])
            yield read_image(row["image"])

    logits, features = predictor.logits_and_features(images())
    return logits, features, np.array(labels)


def _colours(predictor: Predictor, rows: Iterable[dict], seed: int) -> Colours:
    """Of training images, each class counting alike, as in a laboratory that has as many of each."""
    chosen = list(_sample(rows, MAX_COLOURS, seed))
    squares = squares_of((read_image(row["image"]) for row in chosen), predictor.processor)
    return measure_colours(squares, [row["label"] for row in chosen])


def _sample(rows: Iterable[dict], count: int, seed: int) -> Iterable[dict]:
    if not isinstance(rows, Dataset):
        return islice(rows, count)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.select(np.sort(chosen))


def _small(image: Image.Image) -> Image.Image:
    image = read_image(image)
    image.thumbnail((_STRANGE_SIDE, _STRANGE_SIDE))
    return image
