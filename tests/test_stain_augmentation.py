"""Augmentation as between laboratories: what it changes, and that an image's fate hangs on its own seed alone."""

import dataclasses

import numpy as np
import pytest
import torch

from wbc_hf.data import LaboratoryStyles, OtherLaboratories, locate_nuclei, paint_cells

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


def test_some_pictures_are_dim_and_some_cells_pale():
    """As those of a cheap camera, of a lamp turned down, of a weak stain."""
    views = OtherLaboratories(SIZE)(cells(1).repeat(80, 1, 1, 1), seeds(80)).mean(1).flatten(1)
    light, contrast = views.quantile(0.9, dim=1), views.quantile(0.9, dim=1) - views.quantile(0.02, dim=1)
    assert 0.03 < (light < 0.55).float().mean() < 0.4
    assert (light > 0.8).float().mean() > 0.2
    assert (contrast < 0.3).float().mean() > 0.05
    assert (contrast > 0.5).float().mean() > 0.2


def test_strength_scales_the_stain():
    image = cells(1).repeat(20, 1, 1, 1)
    none, some, much = (OtherLaboratories(SIZE, strength)(image, seeds(20)) for strength in (0.01, 1.0, 3.0))
    assert 0 < (some - none).abs().mean() < (much - none).abs().mean()


# ---- several laboratories


def styles(seed: int, maps: torch.Tensor | None = None) -> LaboratoryStyles:
    """Two laboratories with four backgrounds each, of light patches that depend on the seed."""
    patches = torch.randint(120, 256, (2, 4, 3, 11, 11), generator=torch.Generator().manual_seed(seed))
    backgrounds = patches.repeat_interleave(7, 3).repeat_interleave(7, 4).to(torch.uint8)
    return LaboratoryStyles(("a", "b"), (0, 1), torch.eye(3).repeat(2, 2, 1, 1) if maps is None else maps, backgrounds)


def discs(count: int, radius: float) -> torch.Tensor:
    """Dark discs in the middle of white pictures, which are their cells: uint8 (count, 4, edge, edge)."""
    ruler = torch.arange(EDGE) - EDGE / 2 + 0.5
    inside = ruler**2 + ruler.view(-1, 1) ** 2 < radius**2
    pictures = torch.full((count, 4, EDGE, EDGE), 250, dtype=torch.uint8)
    pictures[:, :3, inside] = torch.tensor([90, 40, 130], dtype=torch.uint8).view(3, 1)
    pictures[:, 3] = 255 * inside
    return pictures


def numbers(count: int) -> torch.Tensor:
    return torch.arange(count) % 2


def views(pictures: torch.Tensor, background: int, **changes: object) -> torch.Tensor:
    augmentation = OtherLaboratories(SIZE, styles=dataclasses.replace(styles(background), **changes))
    return augmentation(pictures, seeds(len(pictures)), numbers(len(pictures)))


def test_a_pasted_cell_stays_and_its_background_is_another():
    pictures = discs(40, radius=18)
    one, other = views(pictures, background=1), views(pictures, background=2)
    difference = (one - other).abs().mean(1).flatten(1)
    pasted = difference.mean(1) > 0.01
    assert 0.4 < pasted.float().mean() < 1
    assert torch.equal(one[~pasted], other[~pasted])
    # The disc is the darkest part of the picture.
    darkness = one.mean(1).flatten(1)
    darkest = darkness <= darkness.quantile(0.04, dim=1, keepdim=True)
    within, beyond = (
        (difference * where).sum(1)[pasted] / where.sum(1)[pasted].clamp_min(1) for where in (darkest, ~darkest)
    )
    assert (within < beyond).float().mean() > 0.9


def test_without_a_mask_nothing_is_pasted():
    pictures = discs(20, radius=18)
    pictures[:, 3] = 0
    assert torch.equal(views(pictures, background=1), views(pictures, background=2))


def test_a_stain_is_exchanged_for_some_images_alone():
    """Maps that double all densities make those darker that they are applied to, and no other."""
    maps = torch.eye(3).repeat(2, 2, 1, 1)
    plain, doubled = (views(discs(40, radius=18), background=1, maps=maps * factor) for factor in (1, 2))
    lighter = (doubled.mean((1, 2, 3)) - plain.mean((1, 2, 3))).clamp_min(0)
    assert lighter.max() < 0.02
    assert 0.2 < ((doubled - plain).abs().amax((1, 2, 3)) > 0.02).float().mean() < 0.8


def test_with_styles_an_image_hangs_on_its_own_seed_too():
    augmentation, pictures = OtherLaboratories(SIZE, styles=styles(1)), discs(10, radius=18)
    whole = augmentation(pictures, seeds(10), numbers(10))
    parts = [augmentation(pictures[part], seeds(10)[part], numbers(10)[part]) for part in (slice(3), slice(3, 10))]
    assert whole.shape == (10, 3, SIZE, SIZE)
    assert whole.numpy() == pytest.approx(torch.cat(parts).numpy(), abs=1e-5)
    assert torch.equal(whole, augmentation(pictures, seeds(10), numbers(10)))
