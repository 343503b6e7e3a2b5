"""From rows of a data set to what the trainer's batches hold."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import default_data_collator
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import read_image
from wbc_hf.modeling import Preparation


@dataclass(frozen=True)
class TrainingTransform:
    """Rows of a data set → small uint8 tensors with a margin for rotation, which the trainer augments in batches.

    Attributes:
        edge: Side of the square, in pixels: what the processor resizes to before it crops.
    """

    edge: int

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "pixels": [self._pixels(read_image(image)) for image in rows["image"]],
            "labels": rows["label"],
            "index": row_numbers(rows["source"]),
        }

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        box = (left, top, left + side, top + side)
        # `reducing_gap` shrinks in two steps: nearly the same picture in a fraction of the time.
        image = image.resize((self.edge, self.edge), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class EvaluationTransform:
    """Rows of a data set → what the saved processor cuts out of them, uint8; `Normalise` does the rest.

    Args:
        processor: A ResNet's.
    """

    def __init__(self, processor: BaseImageProcessor):
        self._preparation = Preparation(processor)

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        crops = [self._preparation.crop(read_image(image)) for image in rows["image"]]
        return {"crops": [torch.from_numpy(crop).permute(2, 0, 1) for crop in crops], "labels": rows["label"]}


class Normalise:
    """The arithmetic of the saved processor, on the device: less its mean, divided by its deviation.

    Args:
        processor: Whose mean and deviation, one for each channel.
        device: Where the images will be.
    """

    def __init__(self, processor: BaseImageProcessor, device: torch.device):
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(processor.image_mean, device=device).view(shape)
        self._deviation = torch.tensor(processor.image_std, device=device).view(shape)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8, or float32 of 0 to 1, (n, 3, height, width) → float32 as the network expects it."""
        if images.dtype is torch.uint8:
            images = images.float() / 255
        return (images - self._mean) / self._deviation


def margin_edge(processor: BaseImageProcessor) -> int:
    """Side of a training image, in pixels: what the processor resizes to before it crops."""
    return int(processor.size["shortest_edge"] / processor.crop_pct)


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
