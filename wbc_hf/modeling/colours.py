"""Colour statistics of a laboratory's cells, and maps between those of two laboratories.

Another stain and camera change colours by nearly an affine map. Of the maps that make mean and covariance equal, the
one by Pitié & Kokaram 2007, doi 10.1049/cp:20070055, moves colours least. It is folded into a network's first
convolution, so that images stay as they are and the model an ordinary one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from wbc_hf.data import frame, locate_nuclei, optimal_transport

# Width of the nucleus in sides of the measured view, so that cell and background have the same shares everywhere.
_NUCLEUS_SPAN = 0.55
_VIEW_PIXELS = 64


@dataclass(frozen=True)
class Colours:
    """Mean and covariance of the pixels of cells, framed on their nuclei.

    Attributes:
        mean: float64 (3,), of red, green and blue, 0 to 1.
        covariance: float64 (3, 3).
    """

    mean: np.ndarray
    covariance: np.ndarray


def measure_colours(squares: torch.Tensor, labels: Sequence[int] | np.ndarray | None = None) -> Colours:
    """Measure the colour statistics of cells.

    Args:
        squares: uint8 (n, 3, edge, edge), RGB, one cell each.
        labels: Class indices (n,), -1 to ignore a cell. With them each class has the same weight, without them each
            cell.
    """
    images = squares.float() / 255
    centre, extent = locate_nuclei(images)
    views = frame(images, _VIEW_PIXELS, centre, (extent / _NUCLEUS_SPAN).clamp(0.2, 1.1))
    pixels = views.flatten(2).transpose(1, 2).numpy().astype(np.float64)
    share = np.ones(len(pixels)) if labels is None else _balance_classes(np.asarray(labels))
    share = share / share.sum() / pixels.shape[1]
    mean = np.einsum("n,npi->i", share, pixels)
    centred = pixels - mean
    return Colours(mean, np.einsum("n,npi,npj->ij", share, centred, centred))


def _balance_classes(labels: np.ndarray) -> np.ndarray:
    """Weights of cells that give each class the same weight; 0 where the label is -1."""
    known = labels >= 0
    weights = np.zeros(len(labels))
    weights[known] = 1 / np.bincount(labels[known])[labels[known]]
    return weights


def colour_maps(source: Colours, target: Colours) -> list[tuple[np.ndarray, np.ndarray]]:
    """Affine maps from the colours of one laboratory to those of another: matrix (3, 3) and offset (3,) of each.

    In order: equal mean and covariance; equal mean and variance of each channel; equal mean and total variance; and
    the average of the first two. The first also maps away differences in what was photographed, the others leave
    differences between stains, so none is best throughout.
    """
    full = optimal_transport(source.covariance, target.covariance)
    each = np.diag(np.sqrt(np.diag(target.covariance) / np.diag(source.covariance)))
    alike = np.eye(3) * np.sqrt(np.trace(target.covariance) / np.trace(source.covariance))
    return [(matrix, target.mean - matrix @ source.mean) for matrix in (full, each, alike, (full + each) / 2)]


@torch.no_grad()
def fold_colours(
    network: ResNetForImageClassification, processor: BaseImageProcessor, matrix: np.ndarray, offset: np.ndarray
) -> None:
    """Fold an affine colour map into a network's first layers, in place.

    The matrix goes into the weights of the first convolution, the offset into the mean of the batch normalisation
    after it.
    """
    processor = cast(ConvNextImageProcessorPil, processor)
    embedder = network.resnet.embedder.embedder
    mean, std = np.array(processor.image_mean), np.array(processor.image_std)
    weight = embedder.convolution.weight
    # From normalised pixels back to colours, through the map, and on to normalised pixels.
    inner = torch.from_numpy(matrix * std / std[:, None]).to(weight)
    constant = torch.from_numpy((matrix @ mean + offset - mean) / std).to(weight)
    running_mean = cast(torch.Tensor, embedder.normalization.running_mean)
    running_mean -= torch.einsum("ochw,c->o", weight, constant)
    weight.copy_(torch.einsum("ochw,cd->odhw", weight, inner))
