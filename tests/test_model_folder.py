"""What is loaded of a model's folder, and what of it is never followed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from tests.hostile_models import tiny_resnet
from wbc_hf.errors import WbcError
from wbc_hf.hub import find_file, find_weights
from wbc_hf.inference import Predictor
from wbc_hf.modeling import build_processor, digest_weights, load_classifier, load_config, load_processor

CELL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def save_resnet(folder: Path, seed: int = 0) -> Path:
    tiny_resnet(seed).save_pretrained(folder)
    build_processor(32).save_pretrained(folder)
    return folder


def save_vit(folder: Path, **changes: int) -> Path:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**small, image_size=32, num_labels=3)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    edit(folder / "config.json", **changes)
    return folder


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def shard(folder: Path, first: str = "part-a.safetensors", second: str = "part-b.safetensors") -> None:
    """Divide the weights among two files whose names an index alone tells."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {first: names[: len(names) // 2], second: names[len(names) // 2 :]}
    for file, members in parts.items():
        save_file({name: tensors[name].clone() for name in members}, folder / file)
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, members in parts.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


# ---- weights


def test_shards_have_the_digest_and_the_answers_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "cache"))
    answers = {}
    for name, seed in (("a", 0), ("b", 1)):
        whole = save_resnet(tmp_path / name, seed)
        sharded = Path(shutil.copytree(whole, tmp_path / f"{name} in shards"))
        shard(sharded)
        assert digest_weights(sharded) == digest_weights(whole) == digest_weights(load_classifier(sharded))
        # The second model of each kind would find the first one's conversion, were their digests the same.
        of_whole, of_shards = (Predictor.from_pretrained(folder, "openvino") for folder in (whole, sharded))
        assert of_whole.identity.version == of_shards.identity.version
        answers[name] = of_shards.probabilities([CELL])
        np.testing.assert_allclose(answers[name], of_whole.probabilities([CELL]), atol=1e-6)
    assert np.abs(answers["a"] - answers["b"]).max() > 1e-3


def test_weights_of_half_precision_are_computed_in_single(tmp_path: Path):
    folder = save_resnet(tmp_path)
    load_classifier(folder).half().save_pretrained(folder)
    network = load_classifier(folder)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert Predictor.from_pretrained(folder, "torch").probabilities([CELL]).sum() == pytest.approx(1, abs=1e-5)


def test_a_network_stays_as_it_is_when_its_file_is_written_anew(tmp_path: Path):
    network = load_classifier(save_resnet(tmp_path))
    before = network.classifier[-1].weight.clone()
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.write(bytes((tmp_path / "model.safetensors").stat().st_size))
    assert torch.equal(network.classifier[-1].weight, before)


def test_no_counter_of_batches_is_needed(tmp_path: Path):
    folder = save_resnet(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors")
    load_classifier(folder)


def test_the_first_missing_tensors_are_named(tmp_path: Path):
    folder = save_resnet(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "stages.3" not in name}, folder / "model.safetensors"
    )
    with pytest.raises(WbcError, match=r"its weights lack resnet\.encoder\.stages\.3\.\S+, .* and \d+ more tensors"):
        load_classifier(folder)


# ---- what is never followed


def test_code_of_a_folder_is_neither_run_nor_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save_resnet(tmp_path / "model")
    marker = tmp_path / "was run"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    maps = ("AutoConfig", "AutoModelForImageClassification", "AutoImageProcessor")
    for file in ("config.json", "preprocessor_config.json"):
        edit(folder / file, auto_map=dict.fromkeys(maps, "evil.Evil"))

    def ask(*_: object) -> str:
        pytest.fail("somebody at a terminal was asked")

    monkeypatch.setattr("builtins.input", ask)
    Predictor.from_pretrained(folder, "torch").predict([CELL])
    edit(folder / "config.json", model_type="evil")
    edit(folder / "preprocessor_config.json", image_processor_type="EvilImageProcessor")
    for load in (load_config, load_classifier, load_processor):
        with pytest.raises(WbcError, match=str(folder)):
            load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_weights": "other.safetensors"},
        {"configuration_files": ["config.5.0.0.json"]},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"_attn_implementation": "owner/kernel"},
        {"return_dict": False, "output_hidden_states": False},
        {"dtype": "float16"},
    ],
)
def test_a_configuration_names_no_other_files_and_libraries(tmp_path: Path, changes: dict):
    folder, other = save_resnet(tmp_path / "model"), save_resnet(tmp_path / "other", seed=1)
    expected = Predictor.from_pretrained(folder, "torch").probabilities([CELL])
    shutil.copy(other / "model.safetensors", folder / "other.safetensors")
    shutil.copy(other / "config.json", folder / "config.5.0.0.json")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {"size": {"shortest_edge": 100}}}))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(other)}))
    edit(folder / "config.json", **changes)
    np.testing.assert_array_equal(Predictor.from_pretrained(folder, "torch").probabilities([CELL]), expected)


# ---- other architectures


def test_another_classifier_is_loaded(tmp_path: Path):
    predictor = Predictor.from_pretrained(save_vit(tmp_path), "torch")
    assert predictor.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert predictor.probabilities([CELL]).shape == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000: is more than 10000"),
        ({"num_hidden_layers": 9000}, "num_hidden_layers is 9000, and networks of more than 200 layers"),
        ({"hidden_size": 10_000, "intermediate_size": 10_000}, "million parameters; at most 400 million"),
        ({"image_size": 10_000, "patch_size": 1, "hidden_size": 160}, "million parameters; at most 400 million"),
        ({"hidden_act": "evil"}, "cannot be loaded"),
        ({"backbone_config": {"model_type": "resnet"}}, "backbone_config is .*: holds what no plain image classifier"),
    ],
)
def test_another_classifier_of_any_size_is_refused(tmp_path: Path, changes: dict, message: str):
    folder = save_vit(tmp_path, **changes)
    with pytest.raises(WbcError, match=message):
        Predictor.from_pretrained(folder, "torch")


# ---- files


def test_links_of_the_cache_of_the_hub_are_followed(tmp_path: Path):
    repository = tmp_path / "models--me--name"
    model = save_resnet(tmp_path / "model")
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        file.rename(repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", str(number)))
    load_classifier(snapshot)
    (tmp_path / "secret").write_text("a secret")
    (snapshot / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(WbcError, match=r"README\.md: is a link to a file outside of the folder"):
        find_file(snapshot, "README.md")


@pytest.mark.parametrize(
    "link", [lambda folder: folder, lambda folder: folder.with_name("link")], ids=["itself", "by a link"]
)
def test_a_folder_may_be_named_by_a_link(tmp_path: Path, link: Callable[[Path], Path]):
    folder = save_resnet(tmp_path / "model")
    (tmp_path / "link").symlink_to(folder)
    assert find_weights(link(folder)) == [link(folder) / "model.safetensors"]
