"""Nuclei and cells in pictures of one cell: painted ones, and discs whose size is known."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wbc_hf.data import paint_cells, paint_field
from wbc_hf.data.cell_masks import SIDE, CellMasks, segment_cell
from wbc_hf.labels import CLASS_NAMES

BACKGROUND, RED_CELL, CYTOPLASM, NUCLEUS = (240, 225, 215), (225, 170, 165), (215, 190, 212), (90, 50, 140)


def draw(*discs: tuple[float, float, float, tuple[int, int, int]], size: int = SIDE) -> Image.Image:
    """Discs (x, y, radius, colour), one upon the other, four times as large and reduced: with soft edges."""
    image = Image.new("RGB", (4 * size, 4 * size), BACKGROUND)
    for x, y, radius, colour in discs:
        box = [4 * (x - radius), 4 * (y - radius), 4 * (x + radius), 4 * (y + radius)]
        ImageDraw.Draw(image).ellipse(box, fill=colour)
    return image.resize((size, size), Image.Resampling.BOX)


def disc(x: float, y: float, radius: float, size: int = SIDE) -> np.ndarray:
    ruler = np.arange(size) + 0.5
    return (ruler - x) ** 2 + (ruler[:, None] - y) ** 2 < radius**2


def agreement(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return (found & truth).sum() / (found | truth).sum()


RED_CELLS = ((15, 20, 13, RED_CELL), (110, 100, 13, RED_CELL), (20, 100, 13, RED_CELL))


def test_nucleus_and_cell_of_discs_are_found():
    masks = segment_cell(draw(*RED_CELLS, (64, 64, 32, CYTOPLASM), (60, 62, 20, NUCLEUS)))
    assert masks.outlined
    assert agreement(masks.nucleus, disc(60, 62, 20)) > 0.9
    assert agreement(masks.cell, disc(64, 64, 32)) > 0.9
    assert (masks.cytoplasm == (masks.cell & ~masks.nucleus)).all()


def test_a_red_cell_that_touches_is_left_out():
    masks = segment_cell(draw((64 + 43, 64, 14, RED_CELL), (64, 64, 30, CYTOPLASM), (64, 64, 19, NUCLEUS)))
    assert agreement(masks.cell, disc(64, 64, 30)) > 0.85


def test_a_nucleus_may_have_lobes_that_do_not_touch():
    lobes = (48, 56, 13), (80, 72, 13)
    masks = segment_cell(draw((64, 64, 36, CYTOPLASM), *((*lobe, NUCLEUS) for lobe in lobes)))
    assert agreement(masks.nucleus, disc(*lobes[0]) | disc(*lobes[1])) > 0.85
    assert agreement(masks.cell, disc(64, 64, 36)) > 0.9


def test_the_nucleus_of_a_neighbour_is_left_out():
    masks = segment_cell(
        draw((64, 64, 26, CYTOPLASM), (64, 64, 18, NUCLEUS), (106, 40, 24, CYTOPLASM), (106, 40, 20, NUCLEUS))
    )
    assert agreement(masks.nucleus, disc(64, 64, 18)) > 0.85


def test_without_cytoplasm_the_cell_is_hardly_larger_than_its_nucleus():
    masks = segment_cell(draw(*RED_CELLS, (64, 64, 22, NUCLEUS)))
    assert masks.nucleus.sum() < masks.cell.sum() < 1.6 * masks.nucleus.sum()


def test_where_no_edge_is_seen_the_cell_is_a_circle_round_the_nucleus():
    masks = segment_cell(draw((64, 64, 62, CYTOPLASM), (64, 64, 18, NUCLEUS)))
    assert not masks.outlined
    assert agreement(masks.cell, disc(64, 64, 1.18 * 18)) > 0.85


@pytest.mark.parametrize("colour", [BACKGROUND, (0, 0, 0), (255, 255, 255), (120, 60, 160)])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 7), (64, 64)])
def test_a_plain_picture_has_no_nucleus(colour: tuple[int, int, int], size: tuple[int, int]):
    masks = segment_cell(Image.new("RGB", size, colour))
    assert not masks.nucleus.any() and not masks.cell.any() and not masks.outlined
    assert masks.pixels.shape == (*masks.nucleus.shape, 3) and max(masks.nucleus.shape) == SIDE


@pytest.mark.parametrize("size", [(40, 40), (360, 360), (200, 120)])
def test_any_size_is_segmented_on_a_copy_of_one_size(size: tuple[int, int]):
    drawn = draw(*RED_CELLS, (64, 64, 32, CYTOPLASM), (64, 64, 20, NUCLEUS)).resize(size)
    masks = segment_cell(drawn)
    assert max(masks.pixels.shape) == SIDE
    width, height = masks.nucleus.shape[1], masks.nucleus.shape[0]
    expected = np.pi * 20**2 * (width / SIDE) * (height / SIDE)
    assert masks.nucleus.sum() == pytest.approx(expected, rel=0.15)


def test_noise_is_survived():
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    masks = segment_cell(Image.fromarray(noise))
    assert isinstance(masks, CellMasks)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_painted_cells_fill_their_boxes(name: str):
    """Fields tell where their leucocytes are: the boxes of the cells found in crops agree with them."""
    overlaps = []
    for seed in range(8):
        field = paint_field([CLASS_NAMES.index(name)], width=240, height=240, seed=seed)
        (x0, y0, x1, y1) = field.boxes[0]
        reach = int(0.8 * max(x1 - x0, y1 - y0))
        middle = (x0 + x1) // 2, (y0 + y1) // 2
        corner = middle[0] - reach, middle[1] - reach
        picture = Image.fromarray(field.image).crop((*corner, middle[0] + reach, middle[1] + reach))
        scale = 2 * reach / SIDE
        y, x = np.nonzero(segment_cell(picture).cell)
        found = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) * scale + np.tile(corner, 2)
        low, high = np.maximum(found[:2], (x0, y0)), np.minimum(found[2:], (x1, y1))
        shared = np.maximum(high - low, 0).prod()
        overlaps.append(shared / ((found[2:] - found[:2]).prod() + (x1 - x0) * (y1 - y0) - shared))
    assert np.median(overlaps) > 0.75


def test_nuclei_of_painted_cells_are_smaller_than_their_cells():
    labels = np.repeat(np.arange(len(CLASS_NAMES)), 6)
    shares = []
    for pixels in paint_cells(labels, size=100, seed=3):
        masks = segment_cell(Image.fromarray(pixels))
        assert (masks.cell | ~masks.nucleus).all()
        shares.append(masks.nucleus.sum() / masks.cell.sum())
    shares = np.reshape(shares, (len(CLASS_NAMES), -1)).mean(axis=1)
    assert shares[CLASS_NAMES.index("lymphocyte")] > shares[CLASS_NAMES.index("neutrophil")] + 0.1
