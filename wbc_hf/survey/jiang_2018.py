"""Jiang et al. 2018: WBCNet, a residual network with batch normalisation and a leaky activation.

M. Jiang, L. Cheng, F. Qin, L. Du, M. Zhang: White blood cells classification with deep convolutional neural networks,
International Journal of Pattern Recognition and Artificial Intelligence 32(9):1857006, doi:10.1142/S0218001418570069.

**Published.** Bone-marrow cells of many kinds: accuracy 77.65 % on the training set (top five 98.65 %), 83 % on the
test set. It does not say whether near-duplicates were kept on one side.

**Known.** 33 layers that join batch normalisation, residual convolution blocks and "an improved activation function",
trained from scratch. This is what the abstract says; the text was unavailable.

**Chosen.** The layers: two convolutions of 3 x 3, fifteen residual blocks of two such convolutions in four stages (3,
4, 5, 3) of 64, 128, 256 and 512 channels, each but the first halving the picture, mean over the picture, one layer for
the classes. The activation is leaky, with slope 0.1. Picture size (96 px), a quarter of the channels, and the training
are those of all networks of this survey.
"""

from functools import partial

from torch import nn

from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.networks import OneNetwork, Recipe, Residual, convolution, pass_on
from wbc_hf.survey.system import Published

_STEM = 64
# Channels, blocks.
_STAGES = ((64, 3), (128, 4), (256, 5), (512, 3))
_LEAKY = partial(nn.LeakyReLU, 0.1, inplace=True)


class Jiang2018(OneNetwork):
    """WBCNet."""

    name = "jiang-2018"
    title = "After Jiang et al. 2018, WBCNet"
    published = Published(
        "Jiang, Cheng, Qin, Du, Zhang 2018, IJPRAI 32(9):1857006, doi:10.1142/S0218001418570069",
        accuracy=0.83,
        cells="bone marrow, many kinds of cell",
    )
    default_recipe = Recipe()

    @staticmethod
    def build(recipe: Recipe) -> nn.Module:
        return wbcnet(recipe.width)


def wbcnet(width: float) -> nn.Sequential:
    """Build the 33 layers, with `width` times the channels: float (n, 3, side, side) → logits (n, classes)."""
    channels = round(_STEM * width)
    layers: list[nn.Module] = [
        convolution(3, channels, stride=2, activation=_LEAKY),
        convolution(channels, channels, activation=_LEAKY),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    for stage, (wide, blocks) in enumerate(_STAGES):
        for block in range(blocks):
            outputs = round(wide * width)
            residual = Residual(channels, outputs, stride=2 if stage and not block else 1, activation=_LEAKY)
            pass_on(residual.body)
            layers.append(residual)
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASS_NAMES)))
