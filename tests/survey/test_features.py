"""What is measured of cells: finite, named, and right for discs whose measures are known."""

import numpy as np
import pytest
from PIL import Image

from wbc_hf.data import CellMasks, paint_cells
from wbc_hf.survey.features import FEATURES, columns, measure_cell, measure_cells

SIDE = 128


def disc(x: float, y: float, radius: float) -> np.ndarray:
    ruler = np.arange(SIDE)
    return (ruler - x) ** 2 + (ruler[:, None] - y) ** 2 <= radius**2


def measured(nucleus: np.ndarray, cell: np.ndarray, pixels: np.ndarray | None = None) -> dict[str, float]:
    if pixels is None:
        pixels = np.full((SIDE, SIDE, 3), (90, 50, 140), np.uint8)
    return dict(zip(FEATURES, measure_cell(CellMasks(pixels, nucleus, cell, True)), strict=True))


def test_names_are_told_apart_and_found():
    assert len(set(FEATURES)) == len(FEATURES)
    assert [FEATURES[column] for column in columns(["cell_area", "nucleus_lobes"])] == ["cell_area", "nucleus_lobes"]


def test_a_round_nucleus_in_a_round_cell():
    cell = measured(disc(64, 64, 20), disc(64, 64, 30))
    assert cell["nucleus_area"] == pytest.approx(np.pi * (20 / SIDE) ** 2, rel=0.03)
    assert cell["nucleus_perimeter"] == pytest.approx(2 * np.pi * 20 / SIDE, rel=0.05)
    assert cell["nucleus_to_cell"] == pytest.approx(4 / 9, rel=0.03)
    assert cell["nucleus_off_centre"] == pytest.approx(0, abs=0.02)
    assert cell["nucleus_lobes"] == cell["nucleus_parts"] == 1
    for name in ("circularity", "aspect", "solidity", "fill"):
        assert cell[f"nucleus_{name}"] == pytest.approx(1, abs=0.06), name


def test_two_lobes_differ_from_one():
    joined = measured(disc(52, 64, 13) | disc(76, 64, 13) | disc(64, 64, 5), disc(64, 64, 34))
    parted = measured(disc(48, 64, 12) | disc(80, 64, 12), disc(64, 64, 34))
    assert (joined["nucleus_parts"], joined["nucleus_lobes"]) == (1, 2)
    assert (parted["nucleus_parts"], parted["nucleus_lobes"]) == (2, 2)
    assert parted["nucleus_solidity"] < joined["nucleus_solidity"] < 0.96
    assert joined["nucleus_eccentricity"] > 0.7


def test_place_and_turning_leave_shape_alone():
    shape = disc(44, 60, 14) | disc(66, 52, 10)
    cell = disc(54, 57, 30)
    first, second = measured(shape, cell), measured(np.rot90(shape), np.rot90(cell))
    for name in ("area", "circularity", "eccentricity", "solidity", "hu_1", "hu_2", "fill"):
        assert first[f"nucleus_{name}"] == pytest.approx(second[f"nucleus_{name}"], rel=1e-3), name


def test_colours_and_grain_are_those_of_each_region():
    generator = np.random.default_rng(0)
    nucleus, cell = disc(64, 64, 20), disc(64, 64, 34)
    pixels = np.full((SIDE, SIDE, 3), (240, 220, 230), np.uint8)
    pixels[cell] = generator.integers(120, 220, (cell.sum(), 1))
    pixels[nucleus] = (60, 30, 120)
    values = measured(nucleus, cell, pixels)
    assert values["nucleus_mean_red"] == pytest.approx(60 / 255)
    assert values["nucleus_mean_blue"] == pytest.approx(120 / 255)
    assert values["nucleus_std_green"] == pytest.approx(0)
    assert values["nucleus_contrast_1"] == 0 < 10 < values["cytoplasm_contrast_1"]
    assert values["nucleus_energy_1"] == pytest.approx(1) and values["cytoplasm_energy_1"] < 0.2
    assert sum(values[f"cytoplasm_pattern_{number}"] for number in range(10)) == pytest.approx(1)


def test_all_is_finite_whatever_the_picture_shows():
    plain, noise = Image.new("RGB", (1, 1)), np.random.default_rng(0).integers(0, 256, (50, 20, 3), np.uint8)
    pictures = [plain, Image.fromarray(noise), *map(Image.fromarray, paint_cells(range(5), size=16))]
    rows = measure_cells(pictures)
    assert rows.shape == (7, len(FEATURES)) and rows.dtype == np.float64
    assert np.isfinite(rows).all()
    assert not rows[0].any()


@pytest.mark.parametrize("cytoplasm", [0, 1])
def test_the_smallest_masks_are_finite_too(cytoplasm: int):
    nucleus = np.zeros((SIDE, SIDE), bool)
    nucleus[0, 0] = True
    cell = nucleus.copy()
    cell[0, 1] = cytoplasm
    assert np.isfinite(list(measured(nucleus, cell).values())).all()
