"""Memory format of a network's images and weights while it is trained."""

import torch
from torch import nn

_NARROW = 16  # channels
_COLOURS = 3


def training_memory_format(network: nn.Module) -> torch.memory_format:
    """Choose channels-last, which convolutions compute fastest, unless some layer is too narrow for it.

    oneDNN's backward pass over channels-last images with 2 or 4 channels writes beyond its memory (torch 2.13, a
    processor with AVX-512); the process crashes then or any time later. Networks as narrow serve tests alone.
    """
    narrow = any(
        layer.in_channels < _NARROW and layer.in_channels != _COLOURS
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    )
    return torch.contiguous_format if narrow else torch.channels_last
