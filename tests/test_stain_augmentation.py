"""Augmentation as between laboratories: what it changes, and that an image's fate hangs on its own seed alone."""

import numpy as np
import pytest
import torch

from wbc_hf.data import OtherLaboratories, locate_nuclei, paint_cells

SIZE, EDGE = 48, 77


def cells(count: int = 10) -> torch.Tensor:
    painted = paint_cells(np.arange(count) % 5, size=EDGE, seed=0)
    return torch.from_numpy(painted).permute(0, 3, 1, 2).contiguous()


def seeds(count: int, start: int = 0) -> np.ndarray:
    return np.stack([np.full(count, 7), np.arange(start, start + count)], axis=1)


@pytest.mark.parametrize("size", [32, 48, 50])
@pytest.mark.parametrize("count", [1, 10])
def test_shape_type_and_range(size: int, count: int):
    result = OtherLaboratories(size)(cells(count), seeds(count))
    assert result.shape == (count, 3, size, size)
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("shade", [0, 255])
def test_black_and_white_stay_finite(shade: int):
    images = torch.full((16, 3, EDGE, EDGE), shade, dtype=torch.uint8)
    assert OtherLaboratories(SIZE)(images, seeds(16)).isfinite().all()


def test_the_input_is_left_as_it_was():
    images = cells()
    before = images.clone()
    OtherLaboratories(SIZE)(images, seeds(10))
    assert torch.equal(images, before)


def test_an_image_hangs_on_its_own_seed_and_not_on_its_batch():
    augmentation, images = OtherLaboratories(SIZE), cells()
    whole = augmentation(images, seeds(10))
    parts = torch.cat([augmentation(images[:3], seeds(3)), augmentation(images[3:], seeds(7, start=3))])
    assert whole.numpy() == pytest.approx(parts.numpy(), abs=1e-5)
    assert not torch.equal(whole, augmentation(images, seeds(10, start=50)))


def test_half_of_the_images_are_framed_on_their_nucleus():
    """A small cell fills the view in some of its views, and stays small in others."""
    lymphocyte = torch.from_numpy(paint_cells([2], size=EDGE, seed=1)).permute(0, 3, 1, 2)
    before = locate_nuclei(lymphocyte.float() / 255)[1].item()
    views = OtherLaboratories(SIZE)(lymphocyte.repeat(60, 1, 1, 1), seeds(60))
    spans = locate_nuclei(views)[1]
    assert 0.1 < (spans > 1.5 * before).float().mean() < 0.75


def test_backgrounds_differ_as_those_of_laboratories_do():
    views = OtherLaboratories(SIZE)(cells(1).repeat(60, 1, 1, 1), seeds(60))
    lightest = views.flatten(2).quantile(0.9, dim=2)
    assert lightest.std(0).min() > 0.03
    yellow = (lightest[:, 0] - lightest[:, 2]) > 0.2
    assert 0.05 < yellow.float().mean() < 0.5


def test_strength_scales_the_stain():
    image = cells(1).repeat(20, 1, 1, 1)
    none, some, much = (OtherLaboratories(SIZE, strength)(image, seeds(20)) for strength in (0.01, 1.0, 3.0))
    assert 0 < (some - none).abs().mean() < (much - none).abs().mean()
