"""Whether a picture can be a stained cell, and pictures that are surely none."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wbc_hf.data import may_be_stained_cell, paint_cells

LABELS = np.tile(np.arange(5), 20)


@pytest.fixture(scope="module")
def cells() -> list[Image.Image]:
    return [Image.fromarray(cell) for cell in paint_cells(LABELS, size=96, seed=3)]


def document(generator: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (256, 256), "white")
    for line in range(10, 250, 14):
        text = "".join(chr(letter) for letter in generator.integers(97, 122, 38))
        ImageDraw.Draw(page).text((8, line), text, fill="black")
    return page


def test_painted_cells_may_be_cells(cells: list[Image.Image]):
    assert np.mean([may_be_stained_cell(cell) for cell in cells]) >= 0.99


def test_noise_plain_colours_documents_and_grey_pictures_are_none():
    generator = np.random.default_rng(0)
    others = [Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(50)]
    others += [Image.new("RGB", (96, 96), tuple(generator.integers(0, 256, 3).tolist())) for _ in range(50)]
    others += [document(generator) for _ in range(20)]
    others += [Image.linear_gradient("L").convert("RGB")]
    assert not any(map(may_be_stained_cell, others))


def test_a_cell_in_green_is_none(cells: list[Image.Image]):
    swapped = [Image.fromarray(np.asarray(cell)[:, :, [1, 0, 2]]) for cell in cells]
    assert np.mean([may_be_stained_cell(cell) for cell in swapped]) < 0.5
