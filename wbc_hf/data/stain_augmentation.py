"""Augment training images as other laboratories vary: framing, stain, lamp, camera, focus and compression.

A model that learns what all images of its own laboratory share fails in others (domain shift). This augmentation
removes it: the size of cells in the picture, the background, the balance of stains. Of several laboratories, stains
and backgrounds are exchanged as well. As with `Augmentation`, the changes of an image depend on its own seed alone.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct

from wbc_hf.data.augmentation import STAINS, blur, sensor_noise, turn_and_stretch
from wbc_hf.data.laboratory_styles import LaboratoryStyles, density_over_background, widen_masks
from wbc_hf.data.nucleus_views import frame, locate_nuclei

_FRAMED = 0.5  # share of images framed on their nucleus; the others keep their framing, with some zoom
_COLOURLESS = 0.03  # share of images
_FADED = 0.4  # share of images: pale stain, glare, a camera of little contrast
_COMPRESSED = 0.4  # share of images
_RESTAINED = 0.5  # share of images, of several laboratories
_PASTED = 0.75  # share of images, of several laboratories
_BLOCK = 8
# Discrete cosine transform of a block, and JPEG's luminance quantisation table at quality 50: ITU-T T.81, Annex K.1.
_COSINES = torch.from_numpy(dct(np.eye(_BLOCK), axis=0, norm="ortho")).float()
# fmt: off
_STEPS = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
]) / 255
# fmt: on


class _Draws:
    """Random numbers of a batch, a row of its own for each image."""

    _COUNT = 80

    def __init__(self, seeds: np.ndarray, device: torch.device):
        streams = [np.random.default_rng(row) for row in seeds]
        self._table = torch.from_numpy(np.stack([rng.random(self._COUNT) for rng in streams])).float().to(device)
        self._used = 0
        self.noise_seeds = [int(rng.integers(2**62)) for rng in streams]

    def between(self, low: float, high: float, count: int = 1) -> torch.Tensor:
        """Uniform, (n, count)."""
        start, self._used = self._used, self._used + count
        return low + (high - low) * self._table[:, start : self._used]


@dataclass(frozen=True)
class OtherLaboratories:
    """Random augmentation across laboratories.

    Attributes:
        size: Side of the square that comes out, in pixels.
        strength: Scales the changes of stain and light; 1 is the default.
        styles: Stains and backgrounds to exchange, of the laboratories that the images come from.
    """

    size: int
    strength: float = 1.0
    styles: LaboratoryStyles | None = field(default=None, repr=False, compare=False)

    # Side of the images that go in, in sides of what comes out: framing on a nucleus shows part of them only.
    enlarged: ClassVar[float] = 1.6

    def __call__(
        self, images: torch.Tensor, seeds: np.ndarray, laboratories: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Augment a batch.

        Args:
            images: uint8 (n, 3, height, width), RGB, of one cell each; with styles (n, 4, height, width), RGB and the
                mask of the cell, 0 or 255.
            seeds: (n, k) integers of 0 and above, one row an image.
            laboratories: With styles, the laboratory of each image, int64 (n,), indices into their names.

        Returns:
            float32 (n, 3, size, size) on the same device, values 0 to 1.
        """
        draws = _Draws(seeds, images.device)
        framed = self._frame(images.float() / 255, draws)
        density, background = density_over_background(framed[:, :3])
        if self.styles is not None and laboratories is not None:
            density = self._exchange(density, framed[:, 3:], laboratories, self.styles, draws)
        result = self._stain(density, background, draws)
        result = self._focus(self._saturate(result, draws), draws)
        result = sensor_noise(result, 0.03 * draws.between(0, 1) ** 2, draws.noise_seeds)
        return self._compress(result, draws).clamp_(0, 1)

    def _frame(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Any angle, reflection, a slight stretch; the nucleus spans 42 to 80 % of the side, or the framing stays."""
        angle = draws.between(-math.pi, math.pi)
        mirror = torch.where(draws.between(0, 1) < 0.5, -1.0, 1.0)
        stretch = torch.exp2(draws.between(-0.15, 0.15))
        turn = turn_and_stretch(angle[:, 0], mirror[:, 0], stretch[:, 0])
        nucleus, extent = locate_nuclei(images[:, :3])
        view = (extent / draws.between(0.42, 0.8)[:, 0]).clamp(0.25, 1.0)
        centre = nucleus + view.unsqueeze(1) * draws.between(-0.25, 0.25, 2)
        framed = draws.between(0, 1) < _FRAMED
        own_view = torch.exp(draws.between(math.log(0.72), math.log(1.05))[:, 0])
        centre = torch.where(framed, centre, draws.between(-0.1, 0.1, 2))
        return frame(images, self.size, centre, torch.where(framed[:, 0], view, own_view), turn)

    def _exchange(
        self,
        density: torch.Tensor,
        masks: torch.Tensor,
        laboratories: torch.Tensor,
        styles: LaboratoryStyles,
        draws: _Draws,
    ) -> torch.Tensor:
        """The stain of another laboratory, on the way or all of it, and a background of that laboratory."""
        device, count = density.device, len(density)
        target = (draws.between(0, len(styles.targets))[:, 0].long()).clamp_max(len(styles.targets) - 1)
        maps = styles.maps.to(device)[laboratories, target]
        amount = torch.where(draws.between(0, 1) < _RESTAINED, draws.between(0, 1), 0.0).unsqueeze(2)
        density = torch.lerp(torch.eye(3, device=device).expand(count, 3, 3), maps, amount) @ density
        number = (draws.between(0, 1)[:, 0] * styles.backgrounds.shape[1]).long()
        angle, zoom = draws.between(-math.pi, math.pi)[:, 0], draws.between(0.6, 1.0)[:, 0]
        mirror = torch.where(draws.between(0, 1)[:, 0] < 0.5, -1.0, 1.0)
        centre = draws.between(-0.2, 0.2, 2)
        pasted = (draws.between(0, 1)[:, 0] < _PASTED) & (masks.amax((1, 2, 3)) > 0)
        if not pasted.any():
            return density
        pictures = styles.backgrounds[target[pasted].cpu(), number[pasted].cpu()].to(device).float() / 255
        turn = turn_and_stretch(angle[pasted], mirror[pasted], torch.ones_like(zoom[pasted]))
        around, _ = density_over_background(frame(pictures, self.size, centre[pasted], zoom[pasted], turn))
        cell = widen_masks(masks[pasted]).flatten(2)
        result = density.clone()
        result[pasted] = torch.lerp(around, density[pasted], cell)
        return result

    def _stain(self, density: torch.Tensor, background: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Amounts and hues of the stains, contrast, and another background: images from optical densities.

        `density` is what lies over the background, (n, 3, size * size); `background` is its own, (n, 3).
        """
        strength, count = 0.5 * self.strength, len(density)
        stains = STAINS.to(density.device)
        faded = torch.where(draws.between(0, 1) < _FADED, draws.between(-1.2, 0), 0.0)
        amounts = torch.exp(draws.between(-0.35, 0.35, 3) * strength + draws.between(-0.35, 0.35) * strength + faded)
        mixing = torch.linalg.inv(stains) @ torch.diag_embed(amounts) @ stains  # (n, 3, 3), densities as rows
        mixing = mixing + 0.12 * strength * draws.between(-1, 1, 9).view(count, 3, 3)
        contrast = torch.exp(draws.between(-0.25, 0.25) * strength).unsqueeze(2)
        density = (mixing.transpose(1, 2) @ density).clamp(0, 5) ** contrast
        density = density + self._background(background, draws).unsqueeze(2)
        density = density + self._gradient(draws).flatten(1).unsqueeze(1)
        return torch.exp(-density.clamp_min(0)).view(count, 3, self.size, self.size)

    def _background(self, own: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Optical density of the background, (n, 3): greyish, yellow, dim in any colour, as it was, or overexposed."""
        greyish = draws.between(0, 0.25) + draws.between(0, 0.15, 3)
        yellow = torch.cat([draws.between(0, 0.1), draws.between(0, 0.2), draws.between(0.2, 0.8)], 1)
        dim = draws.between(0.1, 1.1) + draws.between(-0.3, 0.3, 3)
        own = own + draws.between(-0.08, 0.08, 3)
        kind = draws.between(0, 1)
        own = torch.where(kind < 0.9, own, torch.full_like(own, -0.03))  # else overexposed
        own = torch.where(kind < 0.7, dim, own)
        return torch.where(kind < 0.3, greyish, torch.where(kind < 0.5, yellow, own))

    def _gradient(self, draws: _Draws) -> torch.Tensor:
        """Uneven light of a lamp off the axis: density that rises across the picture, (n, size, size)."""
        angle, slope = draws.between(-math.pi, math.pi), draws.between(0, 0.06 * self.strength)
        side = torch.linspace(-1, 1, self.size, device=angle.device)
        rise = torch.cos(angle) * slope, torch.sin(angle) * slope
        return rise[0].unsqueeze(2) * side.view(1, 1, -1) + rise[1].unsqueeze(2) * side.view(1, -1, 1)

    def _saturate(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Colour saturation; a few pictures become grey."""
        saturation = draws.between(0.6, 1.3)
        saturation = torch.where(draws.between(0, 1) < _COLOURLESS, 0.0, saturation).view(-1, 1, 1, 1)
        return torch.lerp(images.mean(1, keepdim=True), images, saturation)

    def _focus(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Most pictures are blurred, by up to 2.5 % of the side; some are sharpened; some stay."""
        kind = draws.between(0, 1)[:, 0]
        sigma = self.size / 100 * draws.between(0.2, 2.5)[:, 0]
        amount = draws.between(0, 1.5).view(-1, 1, 1, 1)
        result = images.clone()
        if (out := kind > 0.3).any():
            result[out] = blur(images[out], sigma[out])
        if (sharpened := (kind > 0.15) & (kind <= 0.3)).any():
            chosen = images[sharpened]
            softer = blur(chosen, torch.full((len(chosen),), self.size / 100, device=images.device))
            result[sharpened] = chosen + amount[sharpened] * (chosen - softer)
        return result

    def _compress(self, images: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Losses of JPEG compression of quality 25 to 95, in each channel as in brightness."""
        coarseness = draws.between(0.1, 2.0)
        chosen = draws.between(0, 1)[:, 0] < _COMPRESSED
        if not chosen.any():
            return images
        spare = -self.size % _BLOCK
        padded = F.pad(images[chosen], (0, spare, 0, spare), mode="replicate")
        count, channels, height, width = padded.shape
        blocks = padded.view(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
        cosines = _COSINES.to(images.device)
        steps = _STEPS.to(images.device) * coarseness[chosen].view(-1, 1, 1, 1, 1, 1)
        stored = torch.round(cosines @ blocks @ cosines.T / steps) * steps
        restored = (cosines.T @ stored @ cosines).transpose(3, 4).reshape(padded.shape)
        images[chosen] = restored[:, :, : self.size, : self.size]
        return images
