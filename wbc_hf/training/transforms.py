"""Transforms of data set rows into the trainer's batches."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import default_data_collator
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import (
    PAINTED_LABORATORY,
    Augmentation,
    LaboratoryStyles,
    Leucocytes,
    OtherLaboratories,
    cell_mask,
    measure_styles,
    read_image,
)
from wbc_hf.modeling import Preprocessing, centre_square, cropped_edge, resized_edge

# Of each class of each laboratory, to measure its stain and to take backgrounds from.
_STYLE_IMAGES = 24


@dataclass(frozen=True)
class TrainingTransform:
    """Turn images into small uint8 squares with a margin for rotation, which the trainer augments in batches.

    Attributes:
        edge: Side of the square, in pixels, from `training_edge`.
        laboratories: Names of laboratories whose stains and backgrounds are exchanged: squares then have the mask of
            their cell as a fourth channel, 0 or 255, and rows the number of their laboratory.
    """

    edge: int
    laboratories: tuple[str, ...] = ()

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        squares = [centre_square(read_image(image), self.edge) for image in rows["image"]]
        result = {"labels": rows["label"], "index": row_numbers(rows["source"])}
        if self.laboratories:
            squares = [np.dstack([square, cell_mask(Image.fromarray(square))]) for square in squares]
            result["laboratory"] = [self.laboratories.index(name) for name in rows["laboratory"]]
        return {"pixels": [_tensor(square) for square in squares]} | result


class EvaluationTransform:
    """Turn images into the crops of the saved processor, uint8; `Normalise` does the rest."""

    def __init__(self, processor: BaseImageProcessor):
        self._preprocessing = Preprocessing(processor)

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        crops = [self._preprocessing.crop(read_image(image)) for image in rows["image"]]
        return {"crops": [_tensor(crop) for crop in crops], "labels": rows["label"]}


def build_augmentation(
    processor: BaseImageProcessor, laboratories: str, strength: float, styles: LaboratoryStyles | None = None
) -> Augmentation | OtherLaboratories:
    """Build the augmentation: variation as within "one" laboratory, or as between "many" with their styles."""
    if laboratories == "one":
        return Augmentation(cropped_edge(processor), strength)
    return OtherLaboratories(cropped_edge(processor), strength, styles)


def find_styles(
    leucocytes: Leucocytes, processor: BaseImageProcessor, laboratories: str, seed: int
) -> LaboratoryStyles | None:
    """Measure stains and backgrounds of training images; None where they are not of "many" laboratories.

    Painted cells have no laboratory whose stain or background anything should have.
    """
    rows = leucocytes["train"]
    names = tuple(dict.fromkeys(rows["laboratory"]))
    targets = [number for number, name in enumerate(names) if name != PAINTED_LABORATORY]
    if laboratories == "one" or len(targets) < 2:
        return None
    labels, numbers = np.array(rows["label"]), np.array([names.index(name) for name in rows["laboratory"]])
    order = np.random.default_rng(seed).permutation(len(rows))
    strata = pd.DataFrame({"laboratory": numbers[order], "label": labels[order]})
    chosen = order[strata.groupby(["laboratory", "label"]).head(_STYLE_IMAGES).index]
    transform = TrainingTransform(training_edge(processor, laboratories), names)
    batch = transform(rows.select(chosen)[:])
    return measure_styles(torch.stack(batch["pixels"]), labels[chosen], numbers[chosen], names, targets)


def augment(
    augmentation: Augmentation | OtherLaboratories, batch: Mapping[str, torch.Tensor], seeds: np.ndarray
) -> torch.Tensor:
    """Augment a batch of `TrainingTransform`: float32 (n, 3, size, size), values 0 to 1."""
    if isinstance(augmentation, OtherLaboratories):
        return augmentation(batch["pixels"], seeds, batch.get("laboratory"))
    return augmentation(batch["pixels"], seeds)


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
