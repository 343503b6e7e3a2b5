"""A saved image processor in two halves: cropping each image on the processor, normalisation on the model's device.

Crops of bytes take a quarter of the memory of the processor's floats: cheaper to make, to batch and to copy to a GPU.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

# The shape of a crop does not depend on the size of the image.
_ANY_SIZE = (64, 64)
# A ResNet's processor warps images of this side and above, and crops smaller ones.
_WARPED_FROM = 384


class Preprocessing:
    """Crops of images as the network needs them.

    Attributes:
        processor: As saved with the model.
        mean, std: float32 (3,) in the values of a crop, 0 to 255: (crop - mean) / std is what the processor returns.
            None for processors of other models than ResNets, whose crops are normalised floats already.
    """

    def __init__(self, processor: BaseImageProcessor):
        self.processor = processor
        self.mean: np.ndarray | None = None
        self.std: np.ndarray | None = None
        if isinstance(processor, ConvNextImageProcessorPil):
            self.mean, self.std = _mean_and_std(processor)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a crop."""
        return self.crop(Image.new("RGB", _ANY_SIZE)).shape

    def crop(self, image: Image.Image) -> np.ndarray:
        """Crop an RGB image: uint8 (height, width, 3), or float32 (3, height, width) where `mean` is None."""
        if self.mean is None:
            return self.processor([image], return_tensors="np").pixel_values[0]
        return _crop(image, cast(ConvNextImageProcessorPil, self.processor))


def _crop(image: Image.Image, processor: ConvNextImageProcessorPil) -> np.ndarray:
    """The same pixels as by the processor's `resize`, without its checks and its way over arrays and back.

    These took a third of the time of cropping one cell.
    """
    edge = cropped_edge(processor)
    if edge >= _WARPED_FROM:
        return np.array(image.resize((edge, edge), processor.resample))
    shortest = resized_edge(processor)
    # In this order, as there: the quotient alone rounds otherwise.
    longest = int(shortest * max(image.size) / min(image.size))
    size = (shortest, longest) if image.width <= image.height else (longest, shortest)
    left, top = ((length - edge) // 2 for length in size)
    return np.array(image.resize(size, processor.resample).crop((left, top, left + edge, top + edge)))


class Normalise(torch.nn.Module):
    """Subtract a ResNet processor's mean and divide by its standard deviation, the same in training and inference.

    Args:
        processor: As saved with the model.
        device: Where the images will be.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, processor: BaseImageProcessor, device: torch.device | None = None):
        super().__init__()
        for name, values in zip(("mean", "std"), _mean_and_std(processor), strict=True):
            self.register_buffer(name, torch.from_numpy(values)[:, None, None].to(device), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images (n, 3, height, width), uint8 or float32 of 0 to 1. Returns float32."""
        pixels = images * 255 if images.is_floating_point() else images.float()
        return (pixels - self.mean) / self.std


def _mean_and_std(processor: BaseImageProcessor) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel, in values of 0 to 255: float32 (3,) each."""
    processor = cast(ConvNextImageProcessorPil, processor)
    one = 1 / processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (np.zeros(3), np.ones(3))
    return (one * np.broadcast_to(mean, 3)).astype(np.float32), (one * np.broadcast_to(std, 3)).astype(np.float32)


def cropped_edge(processor: BaseImageProcessor) -> int:
    """Side of the square that a ResNet's processor crops, in pixels."""
    return cast(ConvNextImageProcessorPil, processor).size["shortest_edge"]


def resized_edge(processor: BaseImageProcessor) -> int:
    """Side of a training image in pixels: what a ResNet's processor resizes to before it crops."""
    return int(cropped_edge(processor) / cast(ConvNextImageProcessorPil, processor).crop_pct)


def centre_square(image: Image.Image, edge: int) -> np.ndarray:
    """Crop and resize the central square of an RGB image: uint8 (edge, edge, 3)."""
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    # `reducing_gap` shrinks in two steps: nearly the same picture in a fraction of the time.
    return np.array(image.resize((edge, edge), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))


def centre_squares(images: Iterable[Image.Image], processor: BaseImageProcessor) -> torch.Tensor:
    """Central squares of RGB images, one at least, as training takes them: uint8 (n, 3, edge, edge)."""
    edge = resized_edge(processor)
    squares = np.stack([centre_square(image, edge) for image in images])
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()
