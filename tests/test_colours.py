"""The colours of a laboratory, and that a network can be given those that it learned from."""

import numpy as np
import pytest
import torch

from wbc_hf.data import paint_cells
from wbc_hf.modeling import Normalise, build_from_scratch, measure_colours
from wbc_hf.modeling.colours import colour_maps, fold_colours

EDGE = 64
MATRIX = np.array([[0.6, 0.1, 0.0], [0.1, 0.5, 0.1], [0.0, 0.05, 0.7]])
OFFSET = np.array([0.2, 0.15, 0.1])


def cells() -> torch.Tensor:
    return torch.from_numpy(paint_cells(np.arange(20) % 5, size=EDGE, seed=0)).permute(0, 3, 1, 2)


def recoloured(squares: torch.Tensor) -> torch.Tensor:
    colours = torch.einsum("ij,njhw->nihw", torch.from_numpy(MATRIX).float(), squares.float() / 255)
    return ((colours + torch.from_numpy(OFFSET).float().view(1, 3, 1, 1)) * 255).round().clamp(0, 255).to(torch.uint8)


def test_every_map_moves_the_mean_and_the_first_the_covariance_too():
    seen, wanted = measure_colours(recoloured(cells())), measure_colours(cells())
    maps = colour_maps(seen, wanted)
    for matrix, offset in maps:
        assert matrix @ seen.mean + offset == pytest.approx(wanted.mean)
    full = maps[0][0]
    assert full @ seen.covariance @ full.T == pytest.approx(wanted.covariance, abs=1e-4)
    each = maps[1][0]
    assert np.diag(each @ seen.covariance @ each.T) == pytest.approx(np.diag(wanted.covariance))


def test_the_same_colours_need_no_map():
    colours = measure_colours(cells())
    for matrix, offset in colour_maps(colours, colours):
        assert matrix == pytest.approx(np.eye(3), abs=1e-6)
        assert offset == pytest.approx(np.zeros(3), abs=1e-6)


def test_cells_without_a_class_do_not_count_and_each_class_counts_alike():
    squares = torch.cat([cells(), recoloured(cells())])
    assert measure_colours(squares, np.repeat([0, -1], 20)).mean == pytest.approx(measure_colours(cells()).mean)
    one, other = cells()[:2], recoloured(cells())[:2]
    alike = (measure_colours(one).mean + measure_colours(other).mean) / 2
    assert measure_colours(torch.cat([one, other, other]), [0, 0, 3, 3, 3, 3]).mean == pytest.approx(alike)


def test_pictures_of_one_colour_have_colours():
    plain = torch.full((3, 3, EDGE, EDGE), 200, dtype=torch.uint8)
    for matrix, offset in colour_maps(measure_colours(plain), measure_colours(cells())):
        assert np.isfinite(matrix).all()
        assert np.isfinite(offset).all()


def test_a_folded_network_sees_mapped_pictures(seed: int):
    """Inside: at the border, zeros around the picture are another colour with and without the map."""
    torch.manual_seed(seed)
    network, processor = build_from_scratch(0.0625, image_size=EDGE)
    network.eval()
    normalise, plain = Normalise(processor), cells().float() / 255
    mapped = torch.einsum("ij,njhw->nihw", torch.from_numpy(MATRIX).float(), plain)
    mapped = mapped + torch.from_numpy(OFFSET).float().view(1, 3, 1, 1)
    embed = network.resnet.embedder.embedder
    with torch.no_grad():
        wanted = embed(normalise(mapped))[:, :, 3:-3, 3:-3]
        fold_colours(network, processor, MATRIX, OFFSET)
        assert embed(normalise(plain))[:, :, 3:-3, 3:-3].numpy() == pytest.approx(wanted.numpy(), abs=1e-4)
