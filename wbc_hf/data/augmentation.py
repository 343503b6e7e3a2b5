"""Vary training images as microscopes, stains and smears do: any angle, zoom, stain, white balance, focus, noise.

Works on whole batches of tensors, on the device where the model is. What happens to an image hangs on its own seed
alone: the same run cut into other batches, spread over processes or taken up again sees the same pictures.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# Optical density of haematoxylin-like (nucleus), eosin-like and remaining stain in R, G, B: Ruifrok & Johnston 2001,
# https://pubmed.ncbi.nlm.nih.gov/11531144. May-Gruenwald-Giemsa is near enough for a random change along these axes.
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
DARKEST = 1 / 255
_BLUR_TAPS = 7


@dataclass(frozen=True)
class Augmentation:
    """Random changes of one strength; 0 is the centre crop and nothing else, 1 is the default for one laboratory.

    Attributes:
        size: Side of the square that comes out, in pixels.
        strength: Scales every range but rotation and reflection, which any microscope gives: those are whole at any
            strength above 0.
    """

    size: int
    strength: float = 1.0

    def __call__(self, images: torch.Tensor, seeds: np.ndarray) -> torch.Tensor:
        """Augment a batch.

        Args:
            images: uint8 (n, 3, height, width), RGB, at least `size` high and wide: some margin around what a model
                will see.
            seeds: (n, k) integers of 0 and above, one row an image.

        Returns:
            float32 (n, 3, size, size) on the same device, values 0 to 1.
        """
        if self.strength == 0:
            return self._centre_crop(images).float() / 255
        drawn = [np.random.default_rng(row) for row in seeds]
        uniform = torch.from_numpy(np.stack([rng.uniform(-1, 1, 16) for rng in drawn])).float().to(images.device)
        result = self._move(images.float() / 255, uniform[:, :6])
        result = self._stain(result, uniform[:, 6:13])
        result = self._blur(result, uniform[:, 13])
        return self._noise(result, uniform[:, 14], [int(rng.integers(2**62)) for rng in drawn]).clamp_(0, 1)

    def _centre_crop(self, images: torch.Tensor) -> torch.Tensor:
        top, left = ((side - self.size) // 2 for side in images.shape[2:])
        return images[:, :, top : top + self.size, left : left + self.size]

    def _move(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Rotation by any angle, reflection, zoom, a slight shard and shift, in one resampling."""
        angle = math.pi * u[:, 0]
        zoom = torch.exp2(0.35 * self.strength * u[:, 1])
        shard = torch.exp2(0.10 * self.strength * u[:, 2])
        mirror = torch.where(u[:, 3] < 0, -1.0, 1.0)
        # Without zoom the crop shows what the centre crop of the same margin shows in evaluation.
        scale = torch.tensor([self.size / images.shape[3], self.size / images.shape[2]], device=images.device)
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = torch.stack(
            [
                torch.stack([mirror * cos * zoom * shard, -sin * zoom / shard], 1),
                torch.stack([mirror * sin * zoom * shard, cos * zoom / shard], 1),
            ],
            1,
        )
        shift = 0.08 * self.strength * u[:, 4:6].unsqueeze(2)
        theta = torch.cat([rows * scale.view(1, 2, 1), shift], 2)
        grid = F.affine_grid(theta, (len(images), 3, self.size, self.size), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _stain(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Amount of each stain and light of each channel, both in optical density, where they multiply and add."""
        stains = STAINS.to(images.device)
        amounts = torch.exp(0.25 * self.strength * u[:, 0:3])
        mixing = torch.linalg.inv(stains) @ torch.diag_embed(amounts) @ stains  # (n, 3, 3), densities as rows
        light = 0.10 * self.strength * u[:, 3:6] + 0.10 * self.strength * u[:, 6:7]
        density = -torch.log(images.clamp_min(DARKEST)).flatten(2)
        density = torch.baddbmm(light.unsqueeze(2), mixing.transpose(1, 2), density)
        return torch.exp(-density.clamp_min_(0)).view_as(images)

    def _blur(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Half of the images lose focus: a Gaussian of up to 1.2 px."""
        chosen = u > 0
        if chosen.any():
            images[chosen] = blur(images[chosen], 1.2 * self.strength * u[chosen].clamp_min(1e-3), _BLUR_TAPS)
        return images

    def _noise(self, images: torch.Tensor, u: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """Sensor noise with a deviation of up to 0.02."""
        return sensor_noise(images, 0.02 * self.strength * u.abs(), seeds)


def blur(images: torch.Tensor, sigma: torch.Tensor, taps: int = 11) -> torch.Tensor:
    """A Gaussian for each image.

    Args:
        images: float32 (n, channels, height, width).
        sigma: (n,), above 0, in pixels.
        taps: Odd number of pixels that it takes in.
    """
    edge = taps // 2
    offsets = torch.arange(taps, device=images.device) - edge
    kernel = torch.exp(-(offsets**2) / (2 * sigma.unsqueeze(1) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    # One image with a channel for each channel of each image, so that each gets its own kernel.
    flat = F.pad(images.reshape(1, -1, *images.shape[2:]), (edge, edge, edge, edge), mode="reflect")
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, taps), groups=flat.shape[1])
    flat = F.conv2d(flat, kernel.view(-1, 1, taps, 1), groups=flat.shape[1])
    return flat.view_as(images)


def sensor_noise(images: torch.Tensor, deviation: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Images with Gaussian noise: of `deviation`, n numbers, from each image's own seed."""
    generator = torch.Generator(images.device)
    noise = torch.empty_like(images)
    for image, seed in zip(noise, seeds, strict=True):
        image.normal_(generator=generator.manual_seed(seed))
    return noise.mul_(deviation.view(-1, 1, 1, 1)).add_(images)
