"""Where in a picture a ResNet saw a class.

The class's logit for the picture is compared with that for an empty one, of nothing but the picture's own light
background. On the way from one to the other each place of the first stage has its share in the difference: its layer
conductance (Dhamdhere et al. 2019, arXiv:1805.12233). What speaks against the class is left out.

Of what was compared on painted cells, blurring what this marks changed the answer most, and it missed the cell least.
Class activation, Grad-CAM and LayerCAM have but 3 x 3 values at the last stage for a picture of 96 px, and at earlier
stages light up more of what lies between the cells.
"""

import cv2
import matplotlib
import numpy as np
import torch
from PIL import Image
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from wbc_hf.errors import WbcError
from wbc_hf.inference.predictor import Predictor

_STEPS = 8
# The light between the cells: this quantile of each channel.
_BACKGROUND = 0.8
# Of the blur, in places of the first stage, which are 4 px of the network's picture apart.
_BLUR = 1.0
_STRIDE = 4
# From this size on the processor warps the whole picture into a square instead of cropping it.
_WARPED = 384
_COLOURS = "inferno"
_OPACITY = 0.65


def heat_map(predictor: Predictor, image: Image.Image, label: str | None = None) -> np.ndarray:
    """Where the network saw a class.

    Args:
        predictor: With a model of the ResNet family.
        image: RGB, any size.
        label: One of the predictor's; by default the likeliest.

    Returns:
        float32 (height, width) of the image, 0 to 1: 1 at the strongest place, 0 where nothing speaks for the class
        and in the border that the processor crops. All 0 where nothing in the picture speaks for it.

    Raises:
        WbcError: The model is no ResNet, its processor not the usual one, or it knows no such class.
    """
    if label is not None and label not in predictor.labels:
        raise WbcError(f"{label}: is no class of {predictor.name}, which knows {', '.join(predictor.labels)}.")
    index = None if label is None else predictor.labels.index(label)
    seen = np.maximum(_conductance(predictor, image, index), 0)
    heat = _onto_image(seen, image.size, predictor)
    return heat / max(heat.max(), np.finfo(np.float32).tiny)


def overlay(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """A picture with the map over it: the stronger, the brighter and the less transparent.

    Args:
        image: RGB.
        heat: float (height, width) of the image, 0 to 1.
    """
    colours = matplotlib.colormaps[_COLOURS](heat)[..., :3] * 255
    opacity = _OPACITY * heat[..., None]
    return Image.fromarray(np.uint8(np.round((1 - opacity) * np.asarray(image) + opacity * colours)))


def _conductance(predictor: Predictor, image: Image.Image, index: int | None) -> np.ndarray:
    """The share of each place of the first stage in the logit of a class, the likeliest by default.

    Returns:
        float32 (rows, columns), smoothed.
    """
    network = predictor.resnet
    pixels = predictor.pixels([image])
    empty = pixels.flatten(2).quantile(_BACKGROUND, dim=2)[..., None, None]
    steps = torch.linspace(0, 1, _STEPS + 1, device=pixels.device)[:, None, None, None]
    with torch.enable_grad():
        way = torch.lerp(empty, pixels, steps).requires_grad_()
        seen = network.resnet(way, output_hidden_states=True)
        logits = network.classifier(seen.pooler_output)
        index = int(logits[-1].argmax()) if index is None else index
        stage = seen.hidden_states[1]
        (slope,) = torch.autograd.grad(logits[:, index].sum(), stage)
    share = stage.detach().diff(dim=0) * (slope[1:] + slope[:-1]) / 2
    return cv2.GaussianBlur(share.sum((0, 1)).float().cpu().numpy(), (0, 0), _BLUR, borderType=cv2.BORDER_REPLICATE)


def _onto_image(seen: np.ndarray, size: tuple[int, int], predictor: Predictor) -> np.ndarray:
    """A map of what the network got, (rows, columns), onto the image of this width and height that it was cut from."""
    left, top, wide, high, side = _cut(size, predictor)
    x = (np.arange(size[0], dtype=np.float32) + 0.5 - left) * side / wide - 0.5
    y = (np.arange(size[1], dtype=np.float32) + 0.5 - top) * side / high - 0.5
    # The convolutions' zero padding puts the middle of place i over pixel 4 i, not over the middle of four.
    columns, rows = np.meshgrid(x / _STRIDE, y / _STRIDE)
    heat = cv2.remap(seen, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    outside_x, outside_y = ((values < -0.5) | (values >= side - 0.5) for values in (x, y))
    heat[outside_y] = 0
    heat[:, outside_x] = 0
    return heat


def _cut(size: tuple[int, int], predictor: Predictor) -> tuple[float, float, float, float, int]:
    """What the processor cuts out of an image: left, top, width and height in its pixels, and what they become."""
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
