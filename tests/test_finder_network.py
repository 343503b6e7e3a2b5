"""The finder's network: from heat maps to boxes, and its files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from wbc_hf.modeling import MULTIPLE, FinderConfig, FinderNetwork, decode, suppress

SMALL = FinderConfig(stem=4, widths=(8, 8, 8), depths=(1, 1, 1), deepest=8, neck=8)


def heat_map(rows: int, columns: int, cells: dict[tuple[int, int], tuple[float, ...]]) -> np.ndarray:
    """An output with one cell at each (row, column): logit, offsets, and log of width and height in strides."""
    output = np.zeros((5, rows, columns), np.float32)
    output[0] = -9
    for place, values in cells.items():
        output[(slice(None), *place)] = values
    return output


def test_a_peak_becomes_a_box_in_pixels():
    output = heat_map(10, 12, {(3, 5): (2.0, 0.25, -0.5, np.log(4), np.log(2))})
    boxes, scores = decode([output], [8], [0.4])
    x, y = (5.5 + 0.25) * 8, (3.5 - 0.5) * 8
    assert boxes == pytest.approx(np.array([[x - 16, y - 8, x + 16, y + 8]]))
    assert scores == pytest.approx([1 / (1 + np.exp(-2))])


def test_only_peaks_above_the_threshold_count_also_on_the_border():
    size = (0, 0, np.log(1.5), np.log(1.5))
    output = heat_map(9, 9, {(0, 0): (1, *size), (0, 1): (0.5, *size), (8, 8): (-1, *size), (4, 4): (3, *size)})
    boxes, scores = decode([output], [4], [0.5])
    assert boxes.mean(1).tolist() == [18, 2]
    assert scores[0] > scores[1] > 0.5


def test_a_cell_seen_at_two_strides_is_one():
    fine = heat_map(16, 16, {(7, 7): (2, 0.5, 0.5, np.log(8), np.log(8))})
    coarse = heat_map(8, 8, {(3, 3): (1, 0.5, 0.5, np.log(4.2), np.log(4))})
    boxes, scores = decode([fine, coarse], [4, 8], [0.4, 0.4])
    assert len(boxes) == 1
    assert scores[0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_touching_cells_stay_two_and_a_lobe_within_a_cell_goes():
    cell, beside, lobe = [0, 0, 50, 50], [45, 0, 95, 50], [10, 10, 35, 35]
    boxes, scores = suppress(np.array([lobe, cell, beside], float), np.array([0.5, 0.9, 0.8]))
    assert boxes.tolist() == [cell, beside]
    assert scores.tolist() == [0.9, 0.8]


def test_each_stride_has_its_threshold():
    output = heat_map(8, 8, {(3, 3): (0, 0.5, 0.5, np.log(2), np.log(2))})
    assert [len(decode([output, output[:, ::2, ::2]], [4, 8], pair)[0]) for pair in ([0.4, 0.9], [0.6, 0.9])] == [1, 0]


def test_nothing_above_the_threshold_gives_no_boxes():
    boxes, scores = decode([heat_map(4, 4, {})], [8], [0.4])
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    "config", [SMALL, dataclasses.replace(SMALL, strides=(4,), sizes=((8, 220),), thresholds=(0.5,))]
)
def test_outputs_have_the_size_of_the_strides(config: FinderConfig):
    pixels = torch.zeros((2, 3, 2 * MULTIPLE, 3 * MULTIPLE), dtype=torch.uint8)
    outputs = FinderNetwork(config).eval()(pixels)
    shapes = [(2, 5, 2 * MULTIPLE // stride, 3 * MULTIPLE // stride) for stride in config.strides]
    assert [tuple(output.shape) for output in outputs] == shapes


def test_before_training_cells_are_rare():
    outputs = FinderNetwork(SMALL).eval()(torch.zeros((1, 3, 64, 64), dtype=torch.uint8))
    assert outputs[0][:, 0].sigmoid().max() < 0.1


def test_saving_and_loading_gives_the_same_network(tmp_path: Path):
    config = dataclasses.replace(SMALL, thresholds=(0.3, 0.4, 0.5))
    network = FinderNetwork(config).eval()
    network.save(tmp_path / "finder")
    again = FinderNetwork.load(tmp_path / "finder")
    assert again.config == config
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    for one, other in zip(network(pixels), again(pixels), strict=True):
        # Weights are stored in half precision.
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.02)
