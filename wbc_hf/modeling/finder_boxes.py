"""What the finder's network puts out, as boxes; and the configuration that says how its outputs are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from wbc_hf.hub import CONFIG_FILE

# Height and width of the input must be multiples of the deepest stride.
MULTIPLE = 32
# Channels of the output: heat (logit), offset of the centre in x and y (strides), width and height (log of strides).
OUTPUTS = 5


@dataclass(frozen=True)
class FinderConfig:
    """Shape of the network and how it is used.

    Attributes:
        mean: Subtracted from red, green and blue, 0 to 255.
        stem: Channels at stride 2.
        widths: Channels at strides 4, 8 and 16.
        depths: Number of blocks at these strides.
        deepest: Channels at stride 32.
        neck: Channels of the feature pyramid.
        strides: Of the outputs, in pixels of the input.
        sizes: For each stride the smallest and largest cells that it finds, in pixels of the input.
        thresholds: For each stride the least heat of a cell, 0 to 1.
    """

    mean: tuple[float, ...] = (123.0, 117.0, 104.0)
    stem: int = 64
    widths: tuple[int, ...] = (128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 3)
    deepest: int = 128
    neck: int = 40
    strides: tuple[int, ...] = (4, 8, 16)
    sizes: tuple[tuple[float, float], ...] = ((8, 40), (28, 88), (60, 220))
    thresholds: tuple[float, ...] = (0.55, 0.5, 0.4)

    @classmethod
    def load(cls, folder: Path) -> "FinderConfig":
        """Read the `config.json` that `FinderNetwork.save` wrote."""
        return TypeAdapter(cls).validate_json((folder / CONFIG_FILE).read_bytes())


def decode(
    outputs: Sequence[np.ndarray], strides: Sequence[int], thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the peaks in the heat maps of one image.

    Args:
        outputs: For each stride float (`OUTPUTS`, rows, columns).
        strides: In pixels.
        thresholds: For each stride the least heat, 0 to 1.

    Returns:
        float (n, 4), x0, y0, x1, y1 in pixels of the input, not clipped, and float (n,), their heat; the highest first
        and no two of the same cell.
    """
    boxes, scores = [], []
    for output, stride, threshold in zip(outputs, strides, thresholds, strict=True):
        heat = output[0]
        padded = np.pad(heat, 1, constant_values=-np.inf)
        peak = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max((2, 3))
        rows, columns = np.nonzero((heat >= np.log(threshold / (1 - threshold))) & (heat == peak))
        _, dx, dy, width, height = output[:, rows, columns].astype(np.float64)
        x, y = (columns + 0.5 + dx) * stride, (rows + 0.5 + dy) * stride
        half_width, half_height = np.exp(np.clip([width, height], -3, 5)) * stride / 2
        boxes.append(np.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1))
        scores.append(1 / (1 + np.exp(-heat[rows, columns].astype(np.float64))))
    return suppress(np.concatenate(boxes), np.concatenate(scores))


def suppress(
    boxes: np.ndarray, scores: np.ndarray, overlap: float = 0.4, within: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes that overlap one of higher heat, or lie mostly within it or round it: they show the same cell."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in range(len(boxes)):
        if kept:
            low, high = np.maximum(boxes[kept, :2], boxes[index, :2]), np.minimum(boxes[kept, 2:], boxes[index, 2:])
            common = np.maximum(high - low, 0).prod(1)
            union = area[kept] + area[index] - common
            if ((common > overlap * union) | (common > within * np.minimum(area[kept], area[index]))).any():
                continue
        kept.append(index)
    return boxes[kept], scores[kept]
