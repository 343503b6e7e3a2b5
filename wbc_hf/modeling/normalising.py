"""Batches of images in PyTorch, as the network needs them: normalised, and as squares."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.modeling.preprocessing import centre_square, mean_and_std, resized_edge


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
        for name, values in zip(("mean", "std"), mean_and_std(processor), strict=True):
            self.register_buffer(name, torch.from_numpy(values)[:, None, None].to(device), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images (n, 3, height, width), uint8 or float32 of 0 to 1. Returns float32."""
        pixels = images * 255 if images.is_floating_point() else images.float()
        return (pixels - self.mean) / self.std


def centre_squares(images: Iterable[Image.Image], processor: BaseImageProcessor) -> torch.Tensor:
    """Central squares of RGB images, one at least, as training takes them: uint8 (n, 3, edge, edge)."""
    edge = resized_edge(processor)
    squares = np.stack([centre_square(image, edge) for image in images])
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()
