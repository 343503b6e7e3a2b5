"""Heat maps: they lie on the part of the picture that the network saw, whatever the picture's size."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.inference.heat_maps import heat_map, overlay
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_scratch

LIGHT, PURPLE = (235, 225, 215), (90, 40, 130)


@pytest.fixture(scope="module")
def predictor(seed: int) -> Predictor:
    """A ResNet of 64 px that tells dark from light: the first class for dark, the last for light.

    Its convolutions are means with random weights: all features rise with darkness, and are 0 where it is light.
    """
    torch.manual_seed(seed)
    network, processor = build_from_scratch(0.0625, image_size=64)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("convolution.weight"):
                parameter.abs_().div_(parameter.sum((1, 2, 3), keepdim=True))
            elif name.endswith("normalization.weight"):
                parameter.fill_(1)  # before any training, blocks only pass on what they get
        network.resnet.embedder.embedder.convolution.weight.neg_()
    predictor = Predictor(network, processor, "darkness")
    pictures = [picture(spot, (64, 64)) for spot in (None, (8, 8, 56, 56))]
    with torch.inference_mode():
        light, dark = network.resnet(predictor.pixels(pictures)).pooler_output.flatten(1)
    direction = (dark - light) / (dark - light).norm() ** 2
    with torch.no_grad():
        head = network.classifier[-1]
        head.weight.zero_()
        head.bias.zero_()
        head.weight[0], head.bias[0] = 20 * direction, -20 * direction @ light - 1
        head.weight[-1] = -head.weight[0]
    return predictor


def picture(spot: tuple[int, int, int, int] | None, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, LIGHT)
    if spot is not None:
        ImageDraw.Draw(image).ellipse(spot, fill=PURPLE)
    return image


def middle(heat: np.ndarray) -> np.ndarray:
    """Centre of mass, x and y in pixels."""
    rows, columns = np.indices(heat.shape)
    return np.array([(columns * heat).sum(), (rows * heat).sum()]) / heat.sum()


@pytest.mark.parametrize("size", [(200, 200), (320, 200), (200, 300), (48, 60)])
@pytest.mark.parametrize("place", [(0.35, 0.35), (0.65, 0.4), (0.5, 0.65)])
def test_the_map_moves_with_the_cell(predictor: Predictor, size: tuple[int, int], place: tuple[float, float]):
    short = min(size)
    # Within the square that the processor keeps.
    x, y = (length / 2 + (at - 0.5) * short for length, at in zip(size, place, strict=True))
    radius = short / 8
    heat = heat_map(predictor, picture((x - radius, y - radius, x + radius, y + radius), size), CLASS_NAMES[0])

    assert heat.shape == size[::-1]
    assert heat.dtype == np.float32
    assert (heat.min(), heat.max()) == (0, 1)
    # On at most a quarter of the area.
    rows, columns = np.indices(heat.shape)
    near = (np.abs(columns - x) < 2 * radius) & (np.abs(rows - y) < 2 * radius)
    assert heat[near].sum() > 0.9 * heat.sum()


def test_what_the_processor_crops_has_no_heat(predictor: Predictor):
    """The short side is 200 px of which 7/8 are kept, the long one keeps as many: 175 px in the middle of each."""
    heat = heat_map(predictor, picture((60, 20, 340, 180), (400, 200)), CLASS_NAMES[0])
    rows, columns = (np.flatnonzero(heat.any(axis)) for axis in (1, 0))
    assert columns[0] >= 400 / 2 - 175 / 2 - 3
    assert columns[-1] <= 400 / 2 + 175 / 2 + 3
    assert rows[0] >= 9
    assert rows[-1] <= 190
    assert columns[-1] - columns[0] > 150


def test_the_likeliest_class_is_the_default(predictor: Predictor):
    image = picture((70, 70, 130, 130), (200, 200))
    likeliest = predictor.predict([image])[0].label
    default = heat_map(predictor, image)
    assert (default == heat_map(predictor, image, likeliest)).all()
    others = {CLASS_NAMES[0], CLASS_NAMES[-1]} - {likeliest}
    assert all(np.abs(default - heat_map(predictor, image, label)).max() > 0.5 for label in others)


def test_nothing_speaks_for_a_class_in_an_empty_picture(predictor: Predictor):
    assert not heat_map(predictor, picture(None, (80, 80)), CLASS_NAMES[0]).any()


def test_the_cell_shows_through(predictor: Predictor):
    image = picture((20, 20, 60, 60), (80, 80))
    heat = np.zeros((80, 80), np.float32)
    assert overlay(image, heat) == image
    heat[:40] = 1
    shown = np.asarray(overlay(image, heat)).astype(int)
    assert (shown[40:] == np.asarray(image)[40:]).all()
    # The edge of the cell is seen under the strongest heat.
    assert np.abs(shown[30, 30] - shown[5, 5]).max() > 30
    assert np.abs(shown[5, 5] - LIGHT).max() > 30


def test_a_processor_that_warps(predictor: Predictor):
    """From 384 px on nothing is cropped and the picture is squeezed into a square."""
    _, processor = build_from_scratch(0.0625, image_size=64)
    processor.size = {"shortest_edge": 384}
    warping = Predictor(predictor.model, processor, "warping")
    heat = heat_map(warping, picture((300, 70, 360, 130), (400, 200)), CLASS_NAMES[0])
    assert middle(heat) == pytest.approx((330, 100), abs=25)


def test_a_class_that_the_model_does_not_know(predictor: Predictor):
    with pytest.raises(WbcError, match=r"blast: is not a class of darkness, which has basophil, "):
        heat_map(predictor, picture(None, (64, 64)), "blast")


def test_other_networks_are_named(predictor: Predictor):
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, image_size=64)
    other = Predictor(ViTForImageClassification(config), predictor.processor, "eyes")
    with pytest.raises(WbcError, match=r"eyes: is a 'vit' model"):
        heat_map(other, picture(None, (64, 64)))


def test_shallow_resnets(predictor: Predictor):
    """ResNet-18 is of other blocks."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[2, 2, 2, 2], layer_type="basic")
    shallow = Predictor(ResNetForImageClassification(config), predictor.processor, "shallow")
    assert heat_map(shallow, picture((20, 20, 60, 60), (80, 80))).shape == (80, 80)
