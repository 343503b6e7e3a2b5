"""Transforms of data set rows into the trainer's batches."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import default_data_collator
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, OtherLaboratories, read_image
from wbc_hf.modeling import Preprocessing, centre_square, cropped_edge, resized_edge


@dataclass(frozen=True)
class TrainingTransform:
    """Turn images into small uint8 squares with a margin for rotation, which the trainer augments in batches.

    Attributes:
        edge: Side of the square, in pixels, from `training_edge`.
    """

    edge: int

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "pixels": [_tensor(centre_square(read_image(image), self.edge)) for image in rows["image"]],
            "labels": rows["label"],
            "index": row_numbers(rows["source"]),
        }


class EvaluationTransform:
    """Turn images into the crops of the saved processor, uint8; `Normalise` does the rest."""

    def __init__(self, processor: BaseImageProcessor):
        self._preprocessing = Preprocessing(processor)

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        crops = [self._preprocessing.crop(read_image(image)) for image in rows["image"]]
        return {"crops": [_tensor(crop) for crop in crops], "labels": rows["label"]}


def build_augmentation(
    processor: BaseImageProcessor, laboratories: str, strength: float
) -> Augmentation | OtherLaboratories:
    """Build the augmentation: variation as within "one" laboratory, or as between "many"."""
    kind = Augmentation if laboratories == "one" else OtherLaboratories
    return kind(cropped_edge(processor), strength)


def training_edge(processor: BaseImageProcessor, laboratories: str) -> int:
    """Side of the images that `build_augmentation`'s result takes, in pixels."""
    if laboratories == "one":
        return resized_edge(processor)
    return round(OtherLaboratories.enlarged * cropped_edge(processor))


def view_seeds(seed: int, step: int, numbers: np.ndarray) -> np.ndarray:
    """Random seeds of an augmentation, (n, 3), from the image and its training step, or view, alone.

    They do not depend on how a step is divided into batches or among processes.
    """
    return np.stack([np.full(len(numbers), seed), np.full(len(numbers), step), numbers], axis=1)


def row_numbers(sources: Sequence[str]) -> list[int]:
    """Number images by their files' names, whatever their order."""
    return [zlib.crc32(source.encode()) for source in sources]


def collate(rows: dict[str, torch.Tensor] | list[dict]) -> dict[str, torch.Tensor]:
    """Collate rows into a batch; a cache gives whole batches."""
    return rows if isinstance(rows, dict) else default_data_collator(rows)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """(height, width, 3) → (3, height, width)."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
