import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig

from tests.loopback_hub import connect
from wbc_hf.errors import HubUnreachableError, WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import (
    FREEZE_DEPTHS,
    build_from_pretrained,
    build_from_scratch,
    fetch_pretrained,
    freeze,
    keep_frozen_in_eval,
    load_classifier,
    load_processor,
)

BLOCKS = ["resnet.embedder.", *(f"resnet.encoder.stages.{stage}." for stage in range(4))]


def save_checkpoint(folder: Path, names: list[str]) -> ResNetForImageClassification:
    """A small ResNet with these classes and the processor of microsoft/resnet-50."""
    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8, 8, 16],
        depths=[1, 1, 1, 1],
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    model = ResNetForImageClassification(config)
    model.save_pretrained(folder)
    build_from_scratch(1 / 16, image_size=64)[1].save_pretrained(folder)
    return model


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_width_scales_the_channels():
    quarter, _ = build_from_scratch(0.25)
    tiny, _ = build_from_scratch(1 / 16)
    assert parameters(quarter) < 1_600_000
    assert parameters(tiny) < 120_000
    assert list(quarter.config.depths) == list(tiny.config.depths) == [3, 4, 6, 3]
    assert tiny(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 5)


def test_width_one_is_resnet_50():
    with torch.device("meta"):
        whole, processor = build_from_scratch(1.0)
    assert parameters(whole) == 23_508_032 + 5 * 2049  # torchvision's ResNet-50 without its head, and ours
    assert processor.size == {"shortest_edge": 224}
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("width", [0, 0.01, 3, float("nan")])
def test_impossible_widths(width: float):
    with pytest.raises(WbcError, match=r"--width .*: between 0.0625 and 2 is allowed"):
        build_from_scratch(width)


@pytest.mark.parametrize("size", [0, 31, 384])
def test_impossible_sizes(size: int):
    with pytest.raises(WbcError, match=rf"--image_size {size}: between 32 and 383 pixels"):
        build_from_scratch(1 / 16, image_size=size)


def test_the_processor_comes_back_as_it_was_saved(tmp_path: Path):
    _, processor = build_from_scratch(1 / 16, image_size=48)
    processor.save_pretrained(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (70, 55, 3), dtype=np.uint8)
    image = Image.fromarray(noise)

    before = processor(image, return_tensors="pt").pixel_values
    after = load_processor(tmp_path)(image, return_tensors="pt").pixel_values

    assert before.shape == (1, 3, 48, 48)
    assert torch.equal(before, after)


@pytest.mark.parametrize("names", [["cat", "dog"], ["a", "b", "c", "d", "e"], [*CLASS_NAMES[1:], CLASS_NAMES[0]]])
def test_foreign_classes_get_a_new_head(tmp_path: Path, names: list[str]):
    old = save_checkpoint(tmp_path, names)
    model, processor = build_from_pretrained(fetch_pretrained(tmp_path))

    assert model.config.id2label == dict(enumerate(CLASS_NAMES))
    assert model.config.label2id == {name: index for index, name in enumerate(CLASS_NAMES)}
    weight = model.classifier[-1].weight
    assert weight.shape == (5, 16)
    assert len(names) != 5 or not torch.equal(weight, old.classifier[-1].weight)
    assert 0.05 < weight.std() < 0.5  # drawn anew, neither zero nor wild
    assert torch.equal(
        model.resnet.embedder.embedder.convolution.weight, old.resnet.embedder.embedder.convolution.weight
    )
    assert processor.size == {"shortest_edge": 64}


@pytest.mark.parametrize("names", [list(CLASS_NAMES), ["BASOPHIL", "eos", "Lymphocytes", "mono", "Neutrophils"]])
def test_our_classes_keep_their_head(tmp_path: Path, names: list[str]):
    old = save_checkpoint(tmp_path, names)
    model, processor = build_from_pretrained(tmp_path, image_size=96)
    assert torch.equal(model.classifier[-1].weight, old.classifier[-1].weight)
    assert model.config.id2label == dict(enumerate(CLASS_NAMES))
    assert processor.size == {"shortest_edge": 96}


def test_another_architecture_is_refused(tmp_path: Path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(WbcError, match=r"is a 'vit' model; one of the ResNet family .*microsoft/resnet-50"):
        fetch_pretrained(tmp_path)


def test_folders_without_a_usable_model_are_named(tmp_path: Path):
    with pytest.raises(WbcError, match=rf"{tmp_path}: has no config.json"):
        fetch_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WbcError, match=rf"{tmp_path}/config\.json: has no model_type"):
        fetch_pretrained(tmp_path)

    save_checkpoint(tmp_path, ["a", "b"])
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for load in (build_from_pretrained, load_classifier):
        with pytest.raises(WbcError, match=rf"{tmp_path}/model\.safetensors: cannot be loaded as safetensors"):
            load(tmp_path)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle, which is never read")
    with pytest.raises(WbcError, match=r"has no model\.safetensors\. Weights in other formats are never loaded"):
        load_classifier(tmp_path)


def test_a_checkpoint_without_its_processor_is_named(tmp_path: Path):
    save_checkpoint(tmp_path, ["a", "b"])
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(WbcError, match="preprocessor_config"):
        build_from_pretrained(tmp_path)


def test_a_processor_of_another_kind_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path, ["a", "b"])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(WbcError, match=r"has a ViTImageProcessor.*needs a ResNet's ConvNextImageProcessor"):
        build_from_pretrained(tmp_path)


@pytest.mark.parametrize("depth", FREEZE_DEPTHS)
def test_freezing_stops_the_parameters_up_to_a_depth(depth: str):
    model, _ = build_from_scratch(1 / 16, image_size=32)
    freeze(model, depth)
    frozen = tuple(BLOCKS[: FREEZE_DEPTHS.index(depth)])
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name

    model.train()
    keep_frozen_in_eval(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.training != f"{name}.".startswith(frozen), name


def test_an_unknown_depth_is_refused():
    model, _ = build_from_scratch(1 / 16, image_size=32)
    with pytest.raises(WbcError, match="--freeze stage9: is not one of none, embedder, stage1"):
        freeze(model, "stage9")


def test_a_silent_hub_is_named_without_its_clients_many_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    connect("http://127.0.0.1:9", monkeypatch, tmp_path)
    started = time.monotonic()
    with pytest.raises(HubUnreachableError, match=r"127\.0\.0\.1:9.*pass a local folder"):
        fetch_pretrained("microsoft/resnet-50")
    assert time.monotonic() - started < 20
