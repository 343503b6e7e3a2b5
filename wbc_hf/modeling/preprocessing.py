"""An image processor in two halves: what each picture needs, and the arithmetic that a model's graph can do.

A crop of bytes is a quarter of the floats that the processor would make of it: cheaper to make, to keep while its
batch fills up, and to bring to a GPU.
"""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

# Any size will do to see what a processor makes of a picture.
_TRIAL = (64, 64)


class Preprocessing:
    """What becomes of a picture before the network.

    Attributes:
        processor: As saved with the model.
        mean, deviation: float32 (3,) in the values of a crop: (crop - mean) / deviation is what the processor gives.
            None for processors that are no ResNet's, whose crops are floats that are ready as they are.
    """

    def __init__(self, processor: BaseImageProcessor):
        self.processor = processor
        self.mean: np.ndarray | None = None
        self.deviation: np.ndarray | None = None
        if isinstance(processor, ConvNextImageProcessorPil):
            one = 1 / processor.rescale_factor if processor.do_rescale else 1.0
            mean, deviation = (
                (processor.image_mean, processor.image_std) if processor.do_normalize else (np.zeros(3), np.ones(3))
            )
            self.mean = (one * np.broadcast_to(mean, 3)).astype(np.float32)
            self.deviation = (one * np.broadcast_to(deviation, 3)).astype(np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a crop."""
        return self.crop(Image.new("RGB", _TRIAL)).shape

    def crop(self, image: Image.Image) -> np.ndarray:
        """What the network gets of an RGB image: uint8 (height, width, 3), or float32 (3, height, width) where the
        processor is no ResNet's.
        """
        if self.mean is None:
            return self.processor([image], return_tensors="np").pixel_values[0]
        (pixels,) = self.processor([image], do_rescale=False, do_normalize=False).pixel_values
        # A copy: a view would keep all of a large image in memory.
        return np.moveaxis(pixels, 0, 2).copy()


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


def square(image: Image.Image, edge: int) -> np.ndarray:
    """The middle square of an RGB image, (edge, edge, 3) of uint8."""
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    # `reducing_gap` shrinks in two steps: nearly the same picture in a fraction of the time.
    return np.array(image.resize((edge, edge), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))


def squares_of(images: Iterable[Image.Image], processor: BaseImageProcessor) -> torch.Tensor:
    """The middle squares of RGB images, as training gets them: uint8 (n, 3, edge, edge), n >= 1."""
    edge = margin_edge(processor)
    return torch.from_numpy(np.stack([square(image, edge) for image in images])).permute(0, 3, 1, 2).contiguous()
