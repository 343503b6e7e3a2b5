"""Look at many images through a predictor, a batch at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from PIL import Image

from wbc_hf.inference.predictor import BATCH_SIZE, Predictor


def batches(rows: Iterable, size: int = BATCH_SIZE) -> Iterator[list]:
    """Lists of `size` rows, the last one shorter."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch


def logits_and_features_of(predictor: Predictor, images: Iterable[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features for RGB images, one at least: float32 (n, classes) and (n, d).

    Raises:
        WbcError: The model is no ResNet.
    """
    logits, features = zip(*(predictor.look(batch) for batch in batches(images)), strict=True)
    return np.concatenate(logits), np.concatenate(features)
