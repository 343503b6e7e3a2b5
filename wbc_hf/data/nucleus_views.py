"""Locate the nucleus in pictures of one cell, and crop views framed on it: batches in PyTorch."""

import math

import torch
import torch.nn.functional as F

# Optical density is that of no less light than this.
DARKEST = 1 / 255
_COARSE = 40  # side of the reduced picture in which nuclei are located, in pixels
_NEAR = 0.75  # of the half side: dark pixels further out belong to a neighbour
# Density of green light, which chromatin takes up most: from the level of most pixels up to that of the darkest.
_USUAL, _DARK, _BETWEEN = 0.4, 0.985, 0.6


def locate_nuclei(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Locate the nucleus near the middle of each picture: a quick estimate for batches.

    The extent is the diameter of a disc with the variance of the dark pixels: of a lobed nucleus nearly what all its
    lobes span together. For a segmentation of single pictures see `nuclei`.

    Args:
        images: float32 (n, 3, height, width), RGB, values 0 to 1.

    Returns:
        Centres (n, 2), x and y from -1 (left, top) to 1; and extents (n,), in sides of the picture.
    """
    density = -torch.log(images[:, 1:2].clamp_min(DARKEST))
    density = F.avg_pool2d(density, max(1, min(images.shape[2:]) // _COARSE))[:, 0]
    height, width = density.shape[1:]
    usual, dark = torch.quantile(density.flatten(1), torch.tensor([_USUAL, _DARK], device=images.device), dim=1)
    threshold = usual + _BETWEEN * (dark - usual)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    inside = ((density > threshold.view(-1, 1, 1)) & (x**2 + y**2 < _NEAR**2)).float()
    pixels = inside.sum((1, 2)).clamp_min(1)
    centre = torch.stack([(inside * axis).sum((1, 2)) / pixels for axis in (x, y)], 1)
    distance = (x - centre[:, 0].view(-1, 1, 1)) ** 2 + (y - centre[:, 1].view(-1, 1, 1)) ** 2
    # Pixels of a disc lie at 1 / sqrt(2) of its radius in the quadratic mean; the picture is 2 wide here.
    return centre, math.sqrt(2) * ((inside * distance).sum((1, 2)) / pixels).sqrt()


def frame(
    images: torch.Tensor, size: int, centre: torch.Tensor, view: torch.Tensor, turn: torch.Tensor | None = None
) -> torch.Tensor:
    """Crop square views of pictures in one resampling; what lies outside is mirrored.

    Args:
        images: float32 (n, channels, height, width).
        size: Side of a view, in pixels.
        centre: (n, 2), x and y from -1 to 1.
        view: (n,), side of the view in sides of the picture.
        turn: (n, 2, 2), linear map of the view's axes into the picture; by default the identity.

    Returns:
        float32 (n, channels, size, size).
    """
    if turn is None:
        turn = torch.eye(2, device=images.device).expand(len(images), 2, 2)
    theta = torch.cat([turn * view.view(-1, 1, 1), centre.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
