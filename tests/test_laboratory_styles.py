"""Stains and backgrounds: what is measured of laboratories, and what takes a cell out of its picture."""

import numpy as np
import pytest
import torch

from wbc_hf.data import measure_styles
from wbc_hf.data.laboratory_styles import LaboratoryStyles, density_over_background, widen_masks

EDGE = 64
# Background, and the two parts of a cell, of either laboratory.
PINK = ((235, 215, 210), (190, 150, 200), (90, 50, 140))
BLUE = ((180, 200, 230), (140, 150, 215), (60, 70, 190))


def pictures(colours: tuple, count: int, seed: int, side: int = 0) -> torch.Tensor:
    """Cells of 24 px in the middle, half cytoplasm and half nucleus, with their masks: uint8 (count, 4, 64, 64).

    A square of the cell's colour in a corner, `side` px wide, is no part of it.
    """
    rng = np.random.default_rng(seed)
    result = np.zeros((count, EDGE, EDGE, 4), np.uint8)
    result[..., :3] = colours[0]
    result[:, 20:44, 20:44, :3] = colours[1]
    result[:, 20:44, 20:32, :3] = colours[2]
    result[:, :side, :side, :3] = colours[2]
    result[..., :3] += rng.integers(0, 12, (count, EDGE, EDGE, 3), dtype=np.uint8)
    result[:, 20:44, 20:44, 3] = 255
    return torch.from_numpy(result).permute(0, 3, 1, 2).contiguous()


def measured(pink: int = 4, blue: int = 2, **changes: object) -> tuple[torch.Tensor, LaboratoryStyles]:
    images = torch.cat([pictures(PINK, pink, 0), pictures(BLUE, blue, 1, side=12)])
    arguments = {
        "labels": np.zeros(pink + blue, int),
        "numbers": np.repeat([0, 1], [pink, blue]),
        "laboratories": ("pink", "blue"),
        "targets": (0, 1),
    }
    return images, measure_styles(images, **(arguments | changes))


def cell_densities(images: torch.Tensor) -> torch.Tensor:
    """Densities over the background of all pixels of cells, (3, pixels)."""
    density, _ = density_over_background(images[:, :3].float() / 255)
    return density.transpose(0, 1).flatten(1)[:, (images[:, 3] > 0).flatten()]


def test_maps_turn_one_stain_into_the_other():
    images, styles = measured()
    pink, blue = cell_densities(images[:4]), cell_densities(images[4:])
    for source, target, matrix in ((pink, blue, styles.maps[0, 1]), (blue, pink, styles.maps[1, 0])):
        before = (source.mean(1) - target.mean(1)).norm()
        assert (matrix @ source).mean(1).numpy() == pytest.approx(target.mean(1).numpy(), abs=0.25 * float(before))
        moments = matrix @ (source @ source.T / source.shape[1]) @ matrix.T
        assert moments.numpy() == pytest.approx((target @ target.T / target.shape[1]).numpy(), abs=1e-2)


def test_the_stain_of_a_laboratory_stays_with_itself():
    _, styles = measured()
    for number in (0, 1):
        assert styles.maps[number, number].numpy() == pytest.approx(np.eye(3), abs=1e-3)


def test_each_class_counts_alike():
    """A class of ten images weighs as much as one of two."""

    def styles(count: int) -> LaboratoryStyles:
        first = pictures(PINK, 1, 0).repeat(count, 1, 1, 1)
        images = torch.cat([first, pictures(BLUE, 2, 1), pictures(BLUE, 1, 2)])
        labels, numbers = np.repeat([0, 1, 0], [count, 2, 1]), np.repeat([0, 1], [count + 2, 1])
        return measure_styles(images, labels, numbers, ("mixed", "blue"), (1,))

    torch.testing.assert_close(styles(2).maps, styles(10).maps, atol=1e-3, rtol=1e-3)


def test_backgrounds_hold_no_cell_but_what_lies_round_it():
    images, styles = measured()
    assert styles.backgrounds.shape == (2, 4, 3, EDGE, EDGE)
    assert styles.backgrounds.dtype == torch.uint8
    for number, colours in ((0, PINK), (1, BLUE)):
        middle = styles.backgrounds[number][:, :, 20:44, 20:44].float().mean((0, 2, 3))
        assert middle.numpy() == pytest.approx(np.array(colours[0]) + 5.5, abs=4)
    # Two pictures of "blue", in turn; the square in their corner is still there.
    assert torch.equal(styles.backgrounds[1, :2], styles.backgrounds[1, 2:])
    assert torch.equal(styles.backgrounds[1, :2, :, :12, :12], images[4:, :3, :12, :12])


def test_only_targets_give_backgrounds():
    _, styles = measured(targets=(1,))
    assert styles.maps.shape == (2, 1, 3, 3)
    assert styles.backgrounds.shape == (1, 2, 3, EDGE, EDGE)


def test_widened_masks_have_soft_edges():
    mask = torch.zeros(1, 1, EDGE, EDGE)
    mask[..., 20:44, 20:44] = 1
    wide = widen_masks(mask)
    assert wide.shape == mask.shape
    assert (wide[..., 20:44, 20:44] == 1).all()
    assert 0 < wide[0, 0, 32, 17] < 1
    assert wide[..., :10, :].max() == 0
