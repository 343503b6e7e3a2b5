import pytest
import torch

from wbc_hf.modeling import FinderConfig, FinderNetwork, build_from_scratch, training_memory_format


@pytest.mark.parametrize(
    ("width", "memory_format"),
    [(0.0625, torch.contiguous_format), (0.25, torch.channels_last)],
    ids=["narrow", "wide"],
)
def test_narrow_networks_are_not_trained_channels_last(width: float, memory_format: torch.memory_format):
    network, _ = build_from_scratch(width, image_size=32)
    assert training_memory_format(network) is memory_format


def test_the_finder_is_trained_channels_last():
    assert training_memory_format(FinderNetwork(FinderConfig())) is torch.channels_last
