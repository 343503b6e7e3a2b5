"""Heat maps: which parts of an image a ResNet's class depends on.

The method is layer conductance of the first stage (Dhamdhere et al. 2019, arXiv:1805.12233) along the straight path
from an empty image, of nothing but the image's own light background, to the image. Negative values are left out.

Compared on painted cells, blurring what this method marks changed the answer most, and it missed the cell least. Class
activation, Grad-CAM and LayerCAM have only 3 x 3 values at the last stage for an image of 96 px, and at earlier stages
mark more of what lies between the cells.
"""

import cv2
import numpy as np
from PIL import Image

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.inference.predictor import Predictor

_STEPS = 8
# Quantile of each channel that stands for the light between the cells.
_BACKGROUND = 0.8
# Standard deviation of the blur, in positions of the first stage, which are 4 px of the network's input apart.
_BLUR = 1.0
_STRIDE = 4
# From this size on the processor warps the whole picture into a square instead of cropping it.
_WARPED = 384
_COLOURS = "inferno"
_OPACITY = 0.65


def heat_map(predictor: Predictor, image: Image.Image, label: str | None = None) -> np.ndarray:
    """Compute a heat map of a class.

    Args:
        predictor: With a model of the ResNet family.
        image: RGB, any size.
        label: One of the predictor's; by default the likeliest.

    Returns:
        float32 (height, width) of the image, 0 to 1: 1 at the maximum, 0 where nothing supports the class and in the
        border that the processor crops. All 0 where nothing in the image supports the class.

    Raises:
        WbcError: The model is not a ResNet, its processor not the usual one, or it has no such class.
    """
    if label is not None and label not in predictor.labels:
        raise WbcError(f"{label}: is not a class of {predictor.name}, which has {', '.join(predictor.labels)}.")
    index = None if label is None else predictor.labels.index(label)
    conductance = np.maximum(_layer_conductance(predictor, image, index), 0)
    heat = _resample_to_image(conductance, image.size, predictor)
    return heat / max(heat.max(), np.finfo(np.float32).tiny)


def overlay(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Blend a heat map over an image: the higher the value, the brighter and the less transparent.

    Args:
        image: RGB.
        heat: float (height, width) of the image, 0 to 1.
    """
    with needs_extra("figures"):
        import matplotlib

    colours = matplotlib.colormaps[_COLOURS](heat)[..., :3] * 255
    opacity = _OPACITY * heat[..., None]
    return Image.fromarray(np.round((1 - opacity) * np.asarray(image) + opacity * colours).astype(np.uint8))


def _layer_conductance(predictor: Predictor, image: Image.Image, index: int | None) -> np.ndarray:
    """Contribution of each position of the first stage to the logit of a class, the likeliest by default.

    Returns:
        float32 (rows, columns), smoothed.
    """
    import torch

    network = predictor.resnet
    pixels = predictor.pixels([image])
    baseline = pixels.flatten(2).quantile(_BACKGROUND, dim=2)[..., None, None]
    steps = torch.linspace(0, 1, _STEPS + 1, device=pixels.device)[:, None, None, None]
    with torch.enable_grad():
        path = torch.lerp(baseline, pixels, steps).requires_grad_()
        outputs = network.resnet(path, output_hidden_states=True)
        logits = network.classifier(outputs.pooler_output)
        index = int(logits[-1].argmax()) if index is None else index
        stage = outputs.hidden_states[1]
        (gradient,) = torch.autograd.grad(logits[:, index].sum(), stage)
    conductance = stage.detach().diff(dim=0) * (gradient[1:] + gradient[:-1]) / 2
    return cv2.GaussianBlur(
        conductance.sum((0, 1)).float().cpu().numpy(), (0, 0), _BLUR, borderType=cv2.BORDER_REPLICATE
    )


def _resample_to_image(values: np.ndarray, size: tuple[int, int], predictor: Predictor) -> np.ndarray:
    """Map values of the network's input, (rows, columns), to the image of this width and height."""
    left, top, wide, high, side = _crop_box(size, predictor)
    x = (np.arange(size[0], dtype=np.float32) + 0.5 - left) * side / wide - 0.5
    y = (np.arange(size[1], dtype=np.float32) + 0.5 - top) * side / high - 0.5
    # The convolutions' zero padding puts the middle of place i over pixel 4 i, not over the middle of four.
    columns, rows = np.meshgrid(x / _STRIDE, y / _STRIDE)
    heat = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    outside_x, outside_y = ((places < -0.5) | (places >= side - 0.5) for places in (x, y))
    heat[outside_y] = 0
    heat[:, outside_x] = 0
    return heat


def _crop_box(size: tuple[int, int], predictor: Predictor) -> tuple[float, float, float, float, int]:
    """The processor's crop of an image: left, top, width and height in image pixels, and its side after resizing."""
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    processor = predictor.processor
    if not isinstance(processor, ConvNextImageProcessorPil):
        raise WbcError(
            f"{predictor.name}: has a {type(processor).__name__}; heat maps need a ResNet's ConvNextImageProcessor."
        )
    side = processor.size["shortest_edge"]
    if side >= _WARPED:
        return 0, 0, *size, side
    # As the processor rounds: the longer side down, and half of what is left over too.
    shrunk = [int(int(side / processor.crop_pct) * length / min(size)) for length in size]
    (left, wide), (top, high) = (
        ((now - side) // 2 * length / now, side * length / now) for now, length in zip(shrunk, size, strict=True)
    )
    return left, top, wide, high, side
