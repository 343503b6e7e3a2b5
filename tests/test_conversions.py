"""Converted models are kept and found again, and what cannot be converted is answered for by torch."""

import os
import shutil
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from openvino.frontend import OpConversionFailure

from tests.adapted_models import write_tiny_model
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor, conversions
from wbc_hf.inference.conversions import MAX_CACHED, converted, converted_network
from wbc_hf.modeling import Preprocessing, digest_weights, load_classifier, load_processor


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model. Not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def conversion(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the tiny model is converted already. Not to be changed."""
    cache = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WBC_HF_CACHE", str(cache))
        convert(model)
    return cache / "openvino"


@pytest.fixture
def filled(conversion: Path, cache: Path) -> Path:
    """The cache, and in it a conversion of the tiny model."""
    return Path(shutil.copytree(conversion, cache))


def convert(folder: Path, mean: float | None = None) -> Path | openvino.Model:
    processor = load_processor(folder)
    if mean is not None:
        processor.image_mean = [mean] * 3
    return converted(folder, digest_weights(folder), Preprocessing(processor))


def changed(folder: Path, to: Path) -> Path:
    """A copy of a model with another head."""
    shutil.copytree(folder, to)
    network = load_classifier(folder)
    with torch.no_grad():
        network.classifier[-1].weight.mul_(2)
    network.save_pretrained(to)
    return to


def test_converted_once(model: Path, cache: Path, tmp_path: Path):
    file = convert(model)
    written = file.stat().st_mtime_ns
    assert convert(model) == file
    assert file.stat().st_mtime_ns == written
    assert convert(changed(model, tmp_path / "other")) != file
    assert convert(model, mean=0.1) != file
    assert not list(cache.glob(".*"))


@pytest.mark.slow
def test_a_network_in_memory_is_converted_once(model: Path, cache: Path):
    network, preprocessing = load_classifier(model), Preprocessing(load_processor(model))
    weights = digest_weights(network)
    file = converted_network(network, weights, preprocessing, "tiny")
    written = file.stat().st_mtime_ns
    assert converted_network(network, weights, preprocessing, "tiny") == file
    assert file.stat().st_mtime_ns == written
    with torch.no_grad():
        network.classifier[-1].weight.mul_(2)
    assert converted_network(network, digest_weights(network), preprocessing, "tiny") != file


@pytest.mark.parametrize("program", ["openvino", "torch", "transformers"])
def test_another_version_converts_anew(model: Path, monkeypatch: pytest.MonkeyPatch, program: str):
    preparation = Preprocessing(load_processor(model))
    before = conversions._key("0", b"{}", preparation)
    assert conversions._key("0", b"{}", preparation) == before
    monkeypatch.setattr(conversions, "version", lambda name: "99.0" if name == program else metadata.version(name))
    assert conversions._key("0", b"{}", preparation) != before


@pytest.mark.parametrize(
    ("hours", "left"),
    [
        ([2, 3, 4, 5, 6], [True, True, False, False, False]),
        # Another process may have found one of the last hour and be about to load it.
        ([0.2, 0.4, 0.6, 0.8, 2], [True, True, True, True, False]),
    ],
)
def test_what_was_used_last_is_kept(model: Path, filled: Path, tmp_path: Path, hours: list[float], left: list[bool]):
    (first,) = filled.iterdir()
    others = [Path(shutil.copytree(first, filled / str(number))) for number in range(len(hours))]
    for path, ago in zip((*others, first), (*hours, 7), strict=True):
        os.utime(path, times=(time.time() - 3600 * ago,) * 2)
    convert(model)
    assert all(path.exists() for path in others)
    last = convert(changed(model, tmp_path / "other")).parent
    assert [path.exists() for path in others] == left
    assert first.exists() and last.exists()
    assert 2 + sum(left) >= MAX_CACHED


def test_where_nothing_can_be_kept_it_answers_all_the_same(
    model: Path, filled: Path, caplog: pytest.LogCaptureFixture
):
    crops = np.zeros((1, *Preprocessing(load_processor(model)).shape), dtype=np.uint8)
    kept = Predictor.from_pretrained(model, "openvino").backend.run(crops)[0]
    shutil.rmtree(filled)
    filled.write_text("a file where the folder should be")
    assert isinstance(convert(model), openvino.Model)
    assert "cannot be cached there" in caplog.text
    np.testing.assert_allclose(Predictor.from_pretrained(model, "openvino").backend.run(crops)[0], kept)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.xml").write_text("<net"),
        lambda path: (path / "model.xml").unlink(),
        lambda path: os.truncate(path / "model.bin", 100),
        lambda path: (path / "model.bin").unlink(),
        # As long as it was: OpenVINO reads it, and answers otherwise.
        lambda path: (path / "model.bin").write_bytes(bytes((path / "model.bin").stat().st_size)),
        lambda path: (path / "sha256").unlink(),
        lambda path: (path / "sha256").write_bytes(b"\xff"),
    ],
    ids=["no XML", "no graph", "cut short", "no weights", "zeroed", "no checksum", "no text"],
)
def test_a_damaged_conversion_is_made_anew(
    model: Path, filled: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
):
    crops = np.full((1, *Preprocessing(load_processor(model)).shape), 99, dtype=np.uint8)
    whole = Predictor.from_pretrained(model, "openvino").backend.run(crops)[0]
    (path,) = filled.iterdir()
    damage(path)
    mended = Predictor.from_pretrained(model, "openvino")
    np.testing.assert_array_equal(mended.backend.run(crops)[0], whole)
    assert f"{path}: is damaged, so the model is converted anew." in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(Predictor.from_pretrained(model, "openvino").backend.run(crops)[0], whole)
    assert "is damaged" not in caplog.text


def test_nothing_is_kept_of_a_folder_that_is_being_written(model: Path, cache: Path):
    assert Predictor.from_pretrained(model, "openvino", fresh=True).backend.name.startswith("OpenVINO")
    assert not cache.exists()


@pytest.mark.parametrize("failure", [RuntimeError, OpConversionFailure])
def test_what_cannot_be_converted_is_run_by_torch(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: type[Exception]
):
    def fail(*_: object) -> None:
        raise failure("no such\noperation")

    monkeypatch.setattr("wbc_hf.modeling.to_openvino", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Predictor.from_pretrained(model).backend.name.startswith("torch")
    (record,) = [record for record in caplog.records if record.name.startswith("wbc_hf")]
    message = f"{model}: cannot be converted for OpenVINO (no such operation). The backend torch can run it."
    assert record.getMessage() == f"{message} Using torch, which is slower."
    with pytest.raises(WbcError) as caught:
        Predictor.from_pretrained(model, "openvino")
    assert str(caught.value) == message
