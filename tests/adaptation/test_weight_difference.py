"""Weights as a difference: rounded once, stored small, restored bit by bit; broken files are named."""

import copy
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.adapted_models import AdaptedModel, change_weights
from tests.conftest import TinyRun
from wbc_hf.adaptation.weight_difference import load_difference, round_to_difference, save_difference
from wbc_hf.errors import WbcError
from wbc_hf.modeling import build_from_scratch, load_classifier

METADATA = {"format": "wbc_hf weight difference 1"}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tiny_run: TinyRun) -> Tensors:
    return load_classifier(tiny_run.folder).state_dict()


@pytest.fixture
def network(tiny_run: TinyRun) -> nn.Module:
    return load_classifier(tiny_run.folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "difference.safetensors"


def copied(network: nn.Module) -> Tensors:
    return copy.deepcopy(network.state_dict())


def assert_same_bits(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.contiguous().numpy().tobytes() == other[name].contiguous().numpy().tobytes(), name


# From changes that fp32 hardly tells beside the weights to some that are much larger than these.
@pytest.mark.parametrize("share", [0.0, 1e-8, 1e-7, 1e-6, 1e-4, 0.05, 1.0, 100.0])
def test_what_was_rounded_is_restored_bit_by_bit(
    base: Tensors, network: nn.Module, file: Path, seed: int, share: float
):
    change_weights(network, seed, share)
    round_to_difference(network, base)
    rounded = copied(network)
    round_to_difference(network, base)
    assert_same_bits(copied(network), rounded)
    save_difference(base, rounded, file)
    restored = load_difference(base, file)
    assert_same_bits(restored, rounded)
    save_difference(base, restored, file)
    assert_same_bits(load_difference(base, file), rounded)


def test_rounding_changes_little_and_the_classifier_not_at_all(base: Tensors, network: nn.Module, seed: int):
    change_weights(network, seed)
    exact = copied(network)
    round_to_difference(network, base)
    for name, rounded in network.state_dict().items():
        if rounded.ndim != 4:
            assert torch.equal(rounded, exact[name])
            continue
        change = exact[name] - base[name]
        # Half a step, which is a seventh of the channel's largest change.
        limit = change.flatten(1).abs().amax(1) / 7 / 2 * 1.01 + 1e-7
        assert ((rounded - exact[name]).flatten(1).abs().amax(1) <= limit).all()


def test_the_classifier_may_change_after_rounding(base: Tensors, network: nn.Module, file: Path, seed: int):
    change_weights(network, seed)
    round_to_difference(network, base)
    network.classifier[-1].weight.data.div_(1.3)
    save_difference(base, copied(network), file)
    assert_same_bits(load_difference(base, file), copied(network))


def test_memory_format_and_negative_zeros_make_no_difference(tmp_path: Path, seed: int):
    network, _ = build_from_scratch(0.0625, image_size=32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[..., :1] = -0.0
    base = copied(network)
    network.to(memory_format=torch.channels_last)
    change_weights(network, seed)
    round_to_difference(network, base)
    save_difference(base, network.state_dict(), tmp_path / "changed")
    assert_same_bits(load_difference(base, tmp_path / "changed"), copied(network))
    save_difference(base, base, tmp_path / "same")
    assert_same_bits(load_difference(base, tmp_path / "same"), base)


def test_weights_that_were_not_rounded_are_refused(base: Tensors, network: nn.Module, file: Path, seed: int):
    change_weights(network, seed)
    with pytest.raises(WbcError, match="was not rounded to what can be kept of it"):
        save_difference(base, copied(network), file)
    round_to_difference(network, base)
    network.classifier[-1].bias.data[0] = float("nan")
    with pytest.raises(WbcError, match="weights that are no numbers"):
        save_difference(base, copied(network), file)
    with pytest.raises(WbcError, match="has other layers than its base"):
        save_difference(build_from_scratch(0.125, image_size=32)[0].state_dict(), base, file)
    assert not file.exists()


# ---- hostile files


def flip(tensors: Tensors) -> None:
    """One byte of the compressed values in the middle."""
    tensors["multiples"][len(tensors["multiples"]) // 2] ^= 0xFF


def bomb(tensors: Tensors) -> None:
    """A few hundred kilobytes that would take hundreds of megabytes."""
    content = zlib.compress(bytes(300_000_000), 9)
    tensors["multiples"] = torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def pack(codes: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(zlib.compress(codes), np.uint8).copy())


def over_seven(tensors: Tensors) -> None:
    size = len(zlib.decompress(tensors["multiples"].numpy().tobytes()))
    tensors["multiples"] = pack(b"\xff" * size)


def trailing(tensors: Tensors) -> None:
    tensors["multiples"] = pack(zlib.decompress(tensors["multiples"].numpy().tobytes()) + b"\x77")


def cut(tensors: Tensors) -> None:
    tensors["multiples"] = tensors["multiples"][:-20].clone()


def set_value(name: str, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[0] = value

    return change


def replace(name: str, tensor: torch.Tensor | None) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor

    return change


BIAS = "exact.classifier.1.bias"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip, "multiples"),
        (cut, "multiples"),
        (trailing, "has another number of multiples"),
        (over_seven, "has multiples over 7"),
        (replace("multiples", torch.zeros(0, dtype=torch.uint8)), "another number of multiples"),
        (replace("multiples", torch.zeros(10)), "has no multiples in bytes"),
        (replace("multiples", None), "has no multiples in bytes"),
        (set_value("steps", float("nan")), "steps that are negative or no numbers"),
        (set_value("steps", float("inf")), "steps that are negative or no numbers"),
        (set_value("steps", -1.0), "steps that are negative or no numbers"),
        (replace("steps", torch.ones(3, dtype=torch.float16)), r"has no steps of \("),
        (replace("steps", None), r"has no steps of \("),
        (set_value(BIAS, float("nan")), f"holds {BIAS} with values that are no numbers"),
        (replace(BIAS, torch.zeros(4)), rf"has no {BIAS} of \(5,\)"),
        (replace(BIAS, torch.zeros(5, dtype=torch.float16)), rf"has no {BIAS} of \(5,\)"),
        (replace("exact.elsewhere", torch.zeros(5)), r"holds exact\.elsewhere, which the model has not"),
        (replace("classifier.1.bias", torch.zeros(5)), "which the model has not"),
    ],
)
def test_a_broken_file_is_named(
    base: Tensors, first: AdaptedModel, file: Path, change: Callable[[Tensors], None], reason: str
):
    save_difference(base, load_classifier(first.folder).state_dict(), file)
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata=METADATA)
    with pytest.raises(WbcError, match=reason) as raised:
        load_difference(base, file)
    assert str(raised.value).startswith(f"{file}: ")


def test_no_more_is_decompressed_than_the_model_has(base: Tensors, first: AdaptedModel, file: Path):
    save_difference(base, load_classifier(first.folder).state_dict(), file)
    tensors = load_file(file)
    bomb(tensors)
    save_file(tensors, file, metadata=METADATA)
    with pytest.raises(WbcError, match="another number of multiples"):
        load_difference(base, file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 a pickle in a zip", "cannot be read"),
        (b"\xff" * 8 + b"{}", "cannot be read"),
        (b"{" * 40_000_000, "is larger than the model"),
    ],
)
def test_a_foreign_file_is_named(base: Tensors, file: Path, content: bytes, reason: str):
    file.write_bytes(content)
    with pytest.raises(WbcError, match=f"difference.safetensors: {reason}"):
        load_difference(base, file)


def test_a_truncated_missing_or_other_file_is_named(base: Tensors, first: AdaptedModel, file: Path):
    with pytest.raises(WbcError, match=r"difference.safetensors: cannot be read"):
        load_difference(base, file)
    save_difference(base, load_classifier(first.folder).state_dict(), file)
    content = file.read_bytes()
    for size in (4, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(WbcError, match=r"difference.safetensors: cannot be read"):
            load_difference(base, file)
    with pytest.raises(WbcError, match=r"model.safetensors: is no weight difference that"):
        load_difference(base, first.folder / "model.safetensors")
    file.write_bytes(content)
    with pytest.raises(WbcError, match=r"has no steps of .*another model"):
        load_difference(build_from_scratch(0.125, image_size=32)[0].state_dict(), file)
