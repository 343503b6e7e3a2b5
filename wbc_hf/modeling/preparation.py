"""An image processor in two halves: what each picture needs, and the arithmetic that a model's graph can do.

A crop of bytes is a quarter of the floats that the processor would make of it: cheaper to make, to keep while its
batch fills up, and to bring to a GPU.
"""

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

# Any size will do to see what a processor makes of a picture.
_TRIAL = (64, 64)


class Preparation:
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
