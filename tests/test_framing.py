"""Where a nucleus is found, and what a view shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from wbc_hf.data import crop_cell, frame, locate_nuclei

SIDE = 96


def disc(x: float, y: float, diameter: float, side: int = SIDE) -> torch.Tensor:
    """A dark disc on a light ground; centre from -1 to 1, diameter in sides of the picture."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    inside = (axis.view(1, -1) - x) ** 2 + (axis.view(-1, 1) - y) ** 2 < diameter**2
    return torch.where(inside, 0.2, 0.9).expand(1, 3, side, side).clone()


@pytest.mark.parametrize(("x", "y", "diameter"), [(0, 0, 0.3), (0.2, -0.1, 0.4), (-0.15, 0.25, 0.25), (0, 0, 0.6)])
def test_a_disc_is_found(x: float, y: float, diameter: float):
    centre, extent = locate_nuclei(disc(x, y, diameter))
    assert centre[0].tolist() == pytest.approx([x, y], abs=0.05)
    assert extent.item() == pytest.approx(diameter, rel=0.12)


def test_a_neighbour_at_the_border_is_not_it():
    image = disc(0, 0, 0.3)
    image[:, :, :8] = 0.2
    centre, extent = locate_nuclei(image)
    assert centre[0].tolist() == pytest.approx([0, 0], abs=0.05)
    assert extent.item() == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_a_picture_of_one_shade_gives_numbers(shade: float):
    centre, extent = locate_nuclei(torch.full((2, 3, SIDE, SIDE), shade))
    assert centre.isfinite().all()
    assert extent.isfinite().all()


def test_a_framed_nucleus_spans_what_was_asked_for():
    image = disc(0.2, -0.2, 0.3)
    centre, extent = locate_nuclei(image)
    centre, extent = locate_nuclei(frame(image, SIDE, centre, extent / 0.55))
    assert centre[0].tolist() == pytest.approx([0, 0], abs=0.05)
    assert extent.item() == pytest.approx(0.55, rel=0.12)


def test_a_view_of_everything_is_the_picture():
    image = torch.rand((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    assert frame(image, SIDE, torch.zeros(1, 2), torch.ones(1)).numpy() == pytest.approx(image.numpy(), abs=1e-5)


# ---- crops of a field


def test_crops_are_square_with_the_cell_in_the_middle():
    field = Image.new("RGB", (200, 100), "white")
    field.paste((90, 20, 120), (80, 30, 120, 60))
    crop = np.asarray(crop_cell(field, (80, 30, 120, 60)))
    assert crop.shape == (60, 60, 3)
    dark = np.argwhere(crop[..., 1] < 100)
    assert dark.min(axis=0).tolist() == [15, 10]
    assert dark.max(axis=0).tolist() == [44, 49]


def test_crops_move_inwards_at_the_border():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    crop = np.asarray(crop_cell(Image.fromarray(pixels), (0, 0, 40, 20)))
    assert (crop == pixels[:60, :60]).all()
    crop = np.asarray(crop_cell(Image.fromarray(pixels), (180, 60, 200, 100)))
    assert (crop == pixels[40:, 140:]).all()


def test_crops_of_a_small_field_are_square_too():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 90, 3), dtype=np.uint8)
    crop = np.asarray(crop_cell(Image.fromarray(pixels), (20, 0, 60, 30)))
    assert crop.shape == (60, 60, 3)
    assert (crop[15:45] == pixels[:, 10:70]).all()
    assert (crop[:15] == crop[15]).all()
