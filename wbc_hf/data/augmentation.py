"""Augment training images as microscopes, stains and smears vary: rotation, zoom, stain, white balance, focus, noise.

Works on batches of tensors, on the device of the model. The changes of an image depend on its own seed alone: other
batch sizes, several processes and a resumed run see the same images.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from wbc_hf.data.nucleus_views import DARKEST, frame

# Optical density of haematoxylin-like (nucleus), eosin-like and remaining stain in R, G, B: Ruifrok & Johnston 2001,
# https://pubmed.ncbi.nlm.nih.gov/11531144. May-Gruenwald-Giemsa is near enough for a random change along these axes.
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_BLUR_TAPS = 7


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation for one laboratory; of strength 0 it is a centre crop.

    Attributes:
        size: Side of the square that comes out, in pixels.
        strength: Scales every range but rotation and reflection, which are unlimited at any strength above 0.
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
        seeds_of_noise = [int(rng.integers(2**62)) for rng in drawn]
        return sensor_noise(result, 0.02 * self.strength * uniform[:, 14].abs(), seeds_of_noise).clamp_(0, 1)

    def _centre_crop(self, images: torch.Tensor) -> torch.Tensor:
        top, left = ((side - self.size) // 2 for side in images.shape[2:])
        return images[:, :, top : top + self.size, left : left + self.size]

    def _move(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Rotation by any angle, reflection, zoom, a slight stretch and shift, in one resampling."""
        zoom = torch.exp2(0.35 * self.strength * u[:, 1])
        stretch = torch.exp2(0.10 * self.strength * u[:, 2])
        turn = turn_and_stretch(math.pi * u[:, 0], torch.where(u[:, 3] < 0, -1.0, 1.0), stretch)
        # Without zoom the crop shows what the centre crop of the same margin shows in evaluation.
        scale = torch.tensor([self.size / images.shape[3], self.size / images.shape[2]], device=images.device)
        return frame(images, self.size, 0.08 * self.strength * u[:, 4:6], zoom, turn * scale.view(1, 2, 1))

    def _stain(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Amount of each stain and light of each channel, both in optical density."""
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


def turn_and_stretch(angle: torch.Tensor, mirror: torch.Tensor, stretch: torch.Tensor) -> torch.Tensor:
    """Matrices (n, 2, 2) of rotation in radians, reflection (1 or -1) and stretch along one axis, (n,) each."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    columns = torch.stack([mirror * cos * stretch, mirror * sin * stretch, -sin / stretch, cos / stretch], 1)
    return columns.view(-1, 2, 2).transpose(1, 2)


def blur(images: torch.Tensor, sigma: torch.Tensor, taps: int = 11) -> torch.Tensor:
    """Blur each image by a Gaussian of its own.

    Args:
        images: float32 (n, channels, height, width).
        sigma: (n,), above 0, in pixels.
        taps: Side of the kernel in pixels, odd.
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


def sensor_noise(images: torch.Tensor, std: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Add Gaussian noise of the given standard deviations, n numbers, from each image's own seed."""
    generator = torch.Generator(images.device)
    noise = torch.empty_like(images)
    for image, seed in zip(noise, seeds, strict=True):
        image.normal_(generator=generator.manual_seed(seed))
    return noise.mul_(std.view(-1, 1, 1, 1)).add_(images)
