"""From rows of a data set to what the trainer's batches hold."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import default_data_collator
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, OtherLaboratories, read_image
from wbc_hf.modeling import Preprocessing, centre_square, resized_edge


@dataclass(frozen=True)
class TrainingTransform:
    """Rows of a data set → small uint8 tensors with a margin for rotation, which the trainer augments in batches.

    Attributes:
        edge: Side of the square, in pixels, as `training_edge` gives it.
    """

    edge: int

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "pixels": [_tensor(centre_square(read_image(image), self.edge)) for image in rows["image"]],
            "labels": rows["label"],
            "index": row_numbers(rows["source"]),
        }


class EvaluationTransform:
    """Rows of a data set → what the saved processor cuts out of them, uint8; `Normalise` does the rest.

    Args:
        processor: A ResNet's.
    """

    def __init__(self, processor: BaseImageProcessor):
        self._preparation = Preprocessing(processor)

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        crops = [self._preparation.crop(read_image(image)) for image in rows["image"]]
        return {"crops": [_tensor(crop) for crop in crops], "labels": rows["label"]}


def build_augmentation(
    processor: BaseImageProcessor, laboratories: str, strength: float
) -> Augmentation | OtherLaboratories:
    """What training images go through: changes as within "one" laboratory, or as between "many"."""
    kind = Augmentation if laboratories == "one" else OtherLaboratories
    return kind(processor.size["shortest_edge"], strength)


def training_edge(processor: BaseImageProcessor, laboratories: str) -> int:
    """Side of the training images that `build_augmentation`'s result takes, in pixels."""
    if laboratories == "one":
        return resized_edge(processor)
    return round(OtherLaboratories.enlarged * processor.size["shortest_edge"])


def view_seeds(seed: int, step: int, numbers: np.ndarray) -> np.ndarray:
    """Seeds of an augmentation, (n, 3), which hold which image in which step, or view, this is, and nothing else.

    How a step was cut up into batches, or who computes it, plays no part.
    """
    return np.stack([np.full(len(numbers), seed), np.full(len(numbers), step), numbers], axis=1)


def row_numbers(sources: Sequence[str]) -> list[int]:
    """The files' names as numbers: which images these are, whatever the order."""
    return [zlib.crc32(source.encode()) for source in sources]


def collate(rows: dict[str, torch.Tensor] | list[dict]) -> dict[str, torch.Tensor]:
    """A batch out of rows; a cache gives whole batches."""
    return rows if isinstance(rows, dict) else default_data_collator(rows)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """(height, width, 3) → (3, height, width)."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
