"""The colours of a laboratory, and how a network is given those that it learned from.

Stain and camera turn one palette into another, and an affine map between the two undoes most of that: the one that
makes mean and covariance equal and moves colours least is by Pitié & Kokaram 2007, doi 10.1049/cp:20070055. A
network's first convolution takes it in, so that no picture has to be changed and the model stays an ordinary one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import frame, locate_nuclei

_SPAN = 0.55  # of the nucleus, in sides of the view that is measured: as much cell and as much background everywhere
_SIDE = 64
_LEAST = 1e-9  # of a variance, against pictures of one colour


@dataclass(frozen=True)
class Colours:
    """Of the pixels in pictures of cells, framed on their nuclei.

    Attributes:
        mean: float64 (3,), of red, green and blue, 0 to 1.
        covariance: float64 (3, 3).
    """

    mean: np.ndarray
    covariance: np.ndarray


def measure_colours(squares: torch.Tensor, labels: Sequence[int] | None = None) -> Colours:
    """The colours of cells.

    Args:
        squares: uint8 (n, 3, edge, edge), RGB, one cell each.
        labels: Class indices, n of them, -1 for cells that do not count. With them each class counts alike, as in a
            laboratory that has as many of each; without, each cell.
    """
    images = squares.float() / 255
    centre, extent = locate_nuclei(images)
    views = frame(images, _SIDE, centre, (extent / _SPAN).clamp(0.2, 1.1))
    pixels = views.flatten(2).transpose(1, 2).numpy().astype(np.float64)
    share = np.ones(len(pixels)) if labels is None else _weights(np.asarray(labels))
    share = share / share.sum() / pixels.shape[1]
    mean = np.einsum("n,npi->i", share, pixels)
    apart = pixels - mean
    return Colours(mean, np.einsum("n,npi,npj->ij", share, apart, apart))


def _weights(labels: np.ndarray) -> np.ndarray:
    """Of cells, such that each class counts alike; 0 where the label is -1."""
    known = labels >= 0
    weights = np.zeros(len(labels))
    weights[known] = 1 / np.bincount(labels[known])[labels[known]]
    return weights


def colour_maps(seen: Colours, wanted: Colours) -> list[tuple[np.ndarray, np.ndarray]]:
    """Affine maps that give one laboratory's pictures the colours of another: matrix (3, 3) and offset (3,) of each.

    One that makes all of mean and covariance equal, one of each channel by itself, one of all channels alike, and last
    the mean of the first two. The first takes a difference in what was photographed for one in colour, the others
    leave differences between stains: on the whole neither is best.
    """
    full = _transport(seen.covariance, wanted.covariance)
    each = np.diag(np.sqrt(np.diag(wanted.covariance) / np.diag(seen.covariance)))
    alike = np.eye(3) * np.sqrt(np.trace(wanted.covariance) / np.trace(seen.covariance))
    return [(matrix, wanted.mean - matrix @ seen.mean) for matrix in (full, each, alike, (full + each) / 2)]


def _transport(seen: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    spread, back = _power(seen, 0.5), _power(seen, -0.5)
    return back @ _power(spread @ wanted @ spread, 0.5) @ back


@torch.no_grad()
def fold_colours(
    network: ResNetForImageClassification, processor: BaseImageProcessor, matrix: np.ndarray, offset: np.ndarray
) -> None:
    """Have a network see its pictures through an affine map of their colours, in place.

    The matrix goes into the weights of the first convolution, the offset into the mean of the normalisation after it.
    """
    embedder = network.resnet.embedder.embedder
    mean, deviation = np.array(processor.image_mean), np.array(processor.image_std)
    weight = embedder.convolution.weight
    # From what the processor gives back to colours, through the map, and on to what the processor would give.
    inner = torch.from_numpy(matrix * deviation / deviation[:, None]).to(weight)
    constant = torch.from_numpy((matrix @ mean + offset - mean) / deviation).to(weight)
    embedder.normalization.running_mean -= torch.einsum("ochw,c->o", weight, constant)
    weight.copy_(torch.einsum("ochw,cd->odhw", weight, inner))


def _power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    """Of a symmetric matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * values.clip(_LEAST) ** exponent) @ vectors.T
