"""Stains and backgrounds of the laboratories of a training set, to exchange them while training.

Where a laboratory photographed each type on smears of its own, the background tells the type, and a network that
reads it there fails elsewhere. A cell that is pasted on any laboratory's background, in any laboratory's stain, is
told by itself alone. The stain is exchanged by the linear map of optical densities that moves them least (Pitié &
Kokaram 2007, doi 10.1049/cp:20070055), wholly or in part, as in stain mix-up (Chang et al. 2021, MICCAI).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from wbc_hf.data.nucleus_views import DARKEST

# Quantile of density that is taken for background, the lightest large part of a picture.
BACKGROUND = 0.1
_INPAINT_RADIUS = 3
_MIN_VARIANCE = 1e-9  # for images of one colour
# Round a cell this much of the picture's side goes with it, so that nothing of the cell stays behind.
_RIM = 0.03


@dataclass(frozen=True)
class LaboratoryStyles:
    """Stains and backgrounds of laboratories.

    Attributes:
        laboratories: Names of the k laboratories, in the order of their numbers.
        targets: Numbers of those whose stain and backgrounds are passed on, m of them.
        maps: float32 (k, m, 3, 3): matrices from the densities of cells of one laboratory, as columns over the
            background's, to those of a target.
        backgrounds: uint8 (m, b, 3, edge, edge), RGB: pictures of each target without the cell in the middle.
    """

    laboratories: tuple[str, ...]
    targets: tuple[int, ...]
    maps: torch.Tensor
    backgrounds: torch.Tensor


def measure_styles(
    images: torch.Tensor,
    labels: np.ndarray,
    numbers: np.ndarray,
    laboratories: Sequence[str],
    targets: Sequence[int],
) -> LaboratoryStyles:
    """Measure each laboratory's stain, each class counting alike, and take the cells out of the targets' pictures.

    Args:
        images: uint8 (n, 4, edge, edge): RGB, and the mask of the cell in the middle, 0 or 255.
        labels: Class indices, (n,).
        numbers: Laboratory of each image, (n,), indices into `laboratories`.
        laboratories: Names; each has an image.
        targets: Numbers of the laboratories whose stain and backgrounds are passed on.
    """
    moments = np.stack([_moments(images[_where(numbers, k)], labels[numbers == k]) for k in range(len(laboratories))])
    maps = [[optimal_transport(source, moments[target]) for target in targets] for source in moments]
    pictures = [
        [remove_cell(np.ascontiguousarray(image[:3].transpose(1, 2, 0)), image[3]) for image in own.numpy()]
        for own in (images[_where(numbers, target)] for target in targets)
    ]
    most = max(map(len, pictures))
    backgrounds = [[own[index % len(own)] for index in range(most)] for own in pictures]
    return LaboratoryStyles(
        tuple(laboratories),
        tuple(targets),
        torch.from_numpy(np.array(maps, np.float32)),
        torch.from_numpy(np.array(backgrounds)).permute(0, 1, 4, 2, 3).contiguous(),
    )


def density_over_background(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Optical density in relation to the background, natural logarithms.

    Args:
        images: float32 (n, 3, height, width), RGB, values 0 to 1.

    Returns:
        Densities over the background (n, 3, height * width), and of the background (n, 3).
    """
    density = -torch.log(images.clamp_min(DARKEST)).flatten(2)
    # Some of the pixels tell the quantile as well as all.
    background = torch.quantile(density[:, :, ::7], BACKGROUND, dim=2)
    return density - background.unsqueeze(2), background


def remove_cell(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw what surrounds a cell into its place.

    Args:
        pixels: uint8 (height, width, 3), RGB.
        mask: Of the cell, uint8 (height, width), 0 or 255.
    """
    reach = max(1, round(2 * _RIM * mask.shape[0]))
    hole = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return cv2.inpaint(pixels, hole, _INPAINT_RADIUS, cv2.INPAINT_TELEA)


def widen_masks(masks: torch.Tensor) -> torch.Tensor:
    """Widen masks of cells a little, with soft edges: float32 (n, 1, height, width), 0 to 1, in and out."""
    reach = max(1, round(_RIM * masks.shape[-1]))
    wider = F.max_pool2d(masks, 2 * reach + 1, stride=1, padding=reach)
    return F.avg_pool2d(F.pad(wider, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


def optimal_transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Matrix that turns one covariance into another and moves colours least, float64 (3, 3)."""
    root, inverse_root = _matrix_power(source, 0.5), _matrix_power(source, -0.5)
    return inverse_root @ _matrix_power(root @ target @ root, 0.5) @ inverse_root


def _matrix_power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * values.clip(_MIN_VARIANCE) ** exponent) @ vectors.T


def _where(numbers: np.ndarray, number: int) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(numbers == number))


def _moments(images: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """Second moments of the densities within cells, (3, 3), each class counting alike."""
    densities, _ = density_over_background(images[:, :3].float() / 255)
    inside = (images[:, 3:] > 0).flatten(2).float()
    each = torch.einsum("nip,njp->nij", densities * inside, densities) / inside.sum(2, keepdim=True).clamp_min(1)
    by_class = [each[torch.from_numpy(labels == label)].mean(0) for label in np.unique(labels)]
    return torch.stack(by_class).mean(0).double().numpy()
