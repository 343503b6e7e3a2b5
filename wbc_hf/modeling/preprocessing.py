"""A saved image processor in two halves: cropping each image on the processor, normalisation on the model's device.

Crops of bytes take a quarter of the memory of the processor's floats: cheaper to make, to batch and to copy to a GPU.
For a ResNet none of this needs transformers or PyTorch, which take seconds to import.
"""

from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from PIL import Image

from wbc_hf.modeling.model_schemas import ResNetProcessorFields

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

Processor: TypeAlias = "BaseImageProcessor | ResNetProcessorFields"

# The shape of a crop does not depend on the size of the image.
_ANY_SIZE = (64, 64)
# A ResNet's processor warps images of this side and above, and crops smaller ones.
_WARPED_FROM = 384


class Preprocessing:
    """Crops of images as the network needs them.

    Args:
        processor: As saved with the model, or what its file says of a ResNet's.

    Attributes:
        mean, std: float32 (3,) in the values of a crop, 0 to 255: (crop - mean) / std is what the processor returns.
            None for processors of other models than ResNets, whose crops are normalised floats already.
    """

    def __init__(self, processor: Processor):
        self._given = processor
        self.mean: np.ndarray | None = None
        self.std: np.ndarray | None = None
        if _is_of_resnet(processor):
            self.mean, self.std = mean_and_std(processor)

    @cached_property
    def processor(self) -> "BaseImageProcessor":
        """As saved with the model."""
        if not isinstance(self._given, ResNetProcessorFields):
            return self._given
        from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

        return ConvNextImageProcessorPil(**self._given.model_dump())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a crop."""
        return self.crop(Image.new("RGB", _ANY_SIZE)).shape

    def crop(self, image: Image.Image) -> np.ndarray:
        """Crop an RGB image: uint8 (height, width, 3), or float32 (3, height, width) where `mean` is None."""
        if self.mean is None:
            return self.processor([image], return_tensors="np").pixel_values[0]
        return _crop(image, self._given)


def _is_of_resnet(processor: Processor) -> bool:
    if isinstance(processor, ResNetProcessorFields):
        return True
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    return isinstance(processor, ConvNextImageProcessorPil)


def _crop(image: Image.Image, processor: Processor) -> np.ndarray:
    """The same pixels as by the processor's `resize`, without its checks and its way over arrays and back.

    These took a third of the time of cropping one cell.
    """
    edge, resample = cropped_edge(processor), _of_resnet(processor).resample
    if edge >= _WARPED_FROM:
        return np.array(image.resize((edge, edge), resample))
    shortest = resized_edge(processor)
    # In this order, as there: the quotient alone rounds otherwise.
    longest = int(shortest * max(image.size) / min(image.size))
    size = (shortest, longest) if image.width <= image.height else (longest, shortest)
    left, top = ((length - edge) // 2 for length in size)
    return np.array(image.resize(size, resample).crop((left, top, left + edge, top + edge)))


def mean_and_std(processor: Processor) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel, in values of 0 to 255: float32 (3,) each."""
    given = _of_resnet(processor)
    one = 1 / given.rescale_factor if given.do_rescale else 1.0
    mean, std = (given.image_mean, given.image_std) if given.do_normalize else (np.zeros(3), np.ones(3))
    return (one * np.broadcast_to(mean, 3)).astype(np.float32), (one * np.broadcast_to(std, 3)).astype(np.float32)


def cropped_edge(processor: Processor) -> int:
    """Side of the square that a ResNet's processor crops, in pixels."""
    return _of_resnet(processor).size["shortest_edge"]


def resized_edge(processor: Processor) -> int:
    """Side of a training image in pixels: what a ResNet's processor resizes to before it crops."""
    return int(cropped_edge(processor) / _of_resnet(processor).crop_pct)


def _of_resnet(processor: Processor) -> "ConvNextImageProcessorPil":
    """For the type checker: a ResNet's processor and the fields of its file have the same attributes."""
    return cast("ConvNextImageProcessorPil", processor)


def centre_square(image: Image.Image, edge: int) -> np.ndarray:
    """Crop and resize the central square of an RGB image: uint8 (edge, edge, 3)."""
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    # `reducing_gap` shrinks in two steps: nearly the same picture in a fraction of the time.
    return np.array(image.resize((edge, edge), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))
