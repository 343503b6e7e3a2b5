"""Augmentation: what it changes, what it leaves, and that an image's fate hangs on its own seed alone."""

import numpy as np
import pytest
import torch

from wbc_hf.data import Augmentation

EDGE, SIZE = 37, 32


def batch(count: int, edge: int = EDGE) -> torch.Tensor:
    """Smooth pictures, for resampling white noise tells nothing."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 6, 6), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(edge, edge), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().to(torch.uint8)


def seeds(count: int, start: int = 0) -> np.ndarray:
    return np.stack([np.full(count, 7), np.arange(start, start + count)], axis=1)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_shape_type_and_range(count: int, strength: float):
    result = Augmentation(SIZE, strength)(batch(count), seeds(count))
    assert result.shape == (count, 3, SIZE, SIZE)
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1
    assert result.isfinite().all()


@pytest.mark.parametrize("shade", [0, 255])
def test_black_and_white_stay_in_range(shade: int):
    images = torch.full((8, 3, EDGE, EDGE), shade, dtype=torch.uint8)
    result = Augmentation(SIZE)(images, seeds(8))
    assert result.isfinite().all()
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("edge", [32, 36, 37])
def test_no_strength_is_the_centre_crop_to_the_last_bit(edge: int):
    images = batch(3, edge)
    margin = (edge - SIZE) // 2
    crop = images[:, :, margin : margin + SIZE, margin : margin + SIZE]
    assert torch.equal(Augmentation(SIZE, 0.0)(images, seeds(3)), crop.float() / 255)


def test_the_input_is_left_as_it_was():
    images = batch(4)
    before = images.clone()
    Augmentation(SIZE)(images, seeds(4))
    assert torch.equal(images, before)


def test_the_same_seed_gives_the_same_image():
    augmentation = Augmentation(SIZE)
    assert torch.equal(augmentation(batch(6), seeds(6)), augmentation(batch(6), seeds(6)))


def test_another_seed_gives_another_image():
    one = batch(1).repeat(40, 1, 1, 1)
    results = Augmentation(SIZE)(one, seeds(40)).flatten(1)
    distances = torch.cdist(results, results) + torch.eye(40) * 1e9
    assert distances.min() > 0.5


def test_every_number_of_a_seed_counts():
    augmentation = Augmentation(SIZE)
    first = augmentation(batch(1), np.array([[1, 2, 3]]))
    for other in ([0, 2, 3], [1, 0, 3], [1, 2, 0]):
        assert not torch.allclose(first, augmentation(batch(1), np.array([other])), atol=1e-2)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_rest_of_the_batch_has_no_say(size: int):
    images, all_seeds = batch(10), seeds(10)
    augmentation = Augmentation(SIZE)
    whole = augmentation(images, all_seeds)
    parts = [augmentation(images[i : i + size], all_seeds[i : i + size]) for i in range(0, 10, size)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(augmentation(images[order], all_seeds[order.numpy()]), whole[order], atol=1e-5)


def test_torch_and_numpy_keep_their_own_random_state():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Augmentation(SIZE)(batch(2), seeds(2))
    assert torch.equal(torch.rand(4), expected)


def bright_spot(edge: int, row: int, column: int) -> torch.Tensor:
    image = torch.full((1, 3, edge, edge), 30, dtype=torch.uint8)
    image[:, :, row - 2 : row + 3, column - 2 : column + 3] = 220
    return image


def spot_positions(row: int, column: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Angle and radius at which a spot comes out, for seeds 0 to `count` - 1."""
    edge, size = 90, 64
    spots = bright_spot(edge, row, column).repeat(count, 1, 1, 1)
    brightest = Augmentation(size, 0.01)(spots, seeds(count))[:, 0].flatten(1).argmax(1)
    rows, columns = (brightest // size - size / 2).float(), (brightest % size - size / 2).float()
    return torch.atan2(rows, columns), torch.hypot(rows, columns)


def test_however_weak_cells_are_turned_all_round_and_mirrored():
    count = 400
    angle, radius = spot_positions(45, 65, count)
    quarter_on, _ = spot_positions(65, 45, count)
    assert radius.mean() == pytest.approx(20, abs=1.5)
    # Seen from the first spot the second is a quarter turn on, or back where the image was mirrored.
    mirrored = torch.sin(quarter_on - angle) < 0
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.1)
    for angles in (angle[mirrored], angle[~mirrored]):
        eighths = torch.histc(angles, 8, -torch.pi, torch.pi)
        assert eighths.min() > len(angles) / 8 * 0.5


def test_strength_grows_the_change():
    """Mean colours are untouched by turning, so they show stain and light alone."""
    images = torch.full((100, 3, EDGE, EDGE), 128, dtype=torch.uint8)
    change = [
        (Augmentation(SIZE, strength)(images, seeds(100)).mean((2, 3)) - 128 / 255).abs().mean()
        for strength in (0.0, 0.25, 0.5, 1.0)
    ]
    assert change == sorted(change)
    assert change[0] < 1e-6
    assert change[-1] > 2 * change[1]


def test_seeds_of_other_signs_are_refused():
    with pytest.raises(ValueError, match="non-negative"):
        Augmentation(SIZE)(batch(1), np.array([[-1]]))
