"""Exports answer as the model does, say what they were checked on, and are used only with the weights they are of."""

import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
from typer.testing import CliRunner

from tests.adapted_models import write_tiny_model
from tests.conftest import TinyRun
from wbc_hf import cli
from wbc_hf.data import load_leucocytes, read_image
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor, exporting
from wbc_hf.inference.exporting import describe_export, export_model
from wbc_hf.inference.heat_maps import heat_map
from wbc_hf.modeling import Calibration, Export, OutOfDistributionScore, Preprocessing, load_processor
from wbc_hf.training import calibrate


@pytest.fixture(scope="module")
def small(tiny_run: TinyRun, folder_of_cells: Path, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A network of one block a stage with all that a run writes, and its `run.json`. Not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "model"
    folder.mkdir()
    for name in ("README.md", "metrics.json", "run.json"):
        shutil.copy(tiny_run.folder / name, folder)
    write_tiny_model(folder)
    calibrate(folder, load_leucocytes(folder_of_cells), "painted cells", seed)
    return folder


@pytest.fixture
def model(small: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(small, tmp_path / "model"))


@pytest.fixture(scope="module")
def exported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    """The same with an export to OpenVINO in fp32, and what that returned. Not to be changed."""
    model = Path(shutil.copytree(small, tmp_path_factory.mktemp("exported") / "model"))
    folder, export = export_model(model, "openvino", "fp32")
    assert folder == model / "openvino"
    return model, export


@pytest.fixture
def model_with_export(exported: tuple[Path, Export], tmp_path: Path) -> Path:
    """A copy of that."""
    return Path(shutil.copytree(exported[0], tmp_path / "exported"))


@pytest.fixture
def cells(folder_of_cells: Path) -> list[Image.Image]:
    return [read_image(file) for file in sorted(folder_of_cells.rglob("*.png"))[::4]]


@pytest.fixture
def allow_any_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a few thousand parameters, trained for seconds, may well change its mind."""
    monkeypatch.setattr(exporting, "MAX_FALL", 1.0)


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_openvino_in_fp32_answers_as_torch_does(exported: tuple[Path, Export], cells: list[Image.Image]):
    model, export = exported
    folder = model / "openvino"
    before = Predictor.from_pretrained(model, backend="torch")
    after = Predictor.from_pretrained(model, backend="openvino")
    assert files_in(folder) == {"model.xml", "model.bin", "export.json"}
    assert after.export == export == Export.load(folder)
    assert after.identity == before.identity
    np.testing.assert_allclose(after.probabilities(cells), before.probabilities(cells), atol=1e-5)
    np.testing.assert_allclose(after.logits_and_features(cells)[1], before.logits_and_features(cells)[1], atol=1e-5)
    check = export.check
    assert (check.agreement, check.calibrated_on, check.out_of_distribution_threshold) == (1.0, 0, None)
    assert check.before.macro_f1 == check.after.macro_f1
    assert check.images == json.loads((model / "run.json").read_text())["data"]["splits"]["validation"]["basophil"] * 5
    # What looks into the network loads the weights beside it.
    assert heat_map(after, cells[0]).shape == cells[0].size[::-1]


@pytest.mark.usefixtures("allow_any_fall")
def test_int8_is_quantised_and_both_figures_are_written_down(model: Path, cells: list[Image.Image]):
    before = Predictor.from_pretrained(model, backend="torch")
    folder, export = export_model(model, "openvino", "int8")
    after = Predictor.from_pretrained(model, backend="openvino")
    assert "FakeQuantize" in (folder / "model.xml").read_text()
    found, wanted = after.probabilities(cells), before.probabilities(cells)
    np.testing.assert_allclose(found, wanted, atol=0.1)
    assert np.abs(found - wanted).max() > 1e-6
    assert export.check.calibrated_on == 40
    assert after.backend.name.startswith("OpenVINO int8 and ")
    assert after.calibration.out_of_distribution_threshold == export.check.out_of_distribution_threshold
    written = json.loads((folder / "export.json").read_text())
    assert {"before", "after", "agreement", "images", "dataset", "split_seed"} <= written["check"].keys()
    assert {"torch", "nncf", "openvino", "wbc_hf"} <= written["versions"].keys()
    assert f"{export.check.after.macro_f1:.4f}" in describe_export(folder, export)


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_the_threshold_moves_as_the_scores_do_whatever_is_unfamiliar(model: Path, share: float, seed: int):
    """Also where all validation images are unfamiliar, or none is."""
    random = np.random.default_rng(seed)
    before = random.normal(size=(400, 4)).astype(np.float32)
    after = 1.25 * before + random.normal(scale=0.01, size=before.shape).astype(np.float32)
    score = OutOfDistributionScore(np.zeros(4, np.float32), np.eye(4, dtype=np.float32), np.zeros((1, 4), np.float32))
    scores = score(before)
    threshold = {0: 2 * scores.max(), 0.3: np.quantile(scores, 0.7), 1: scores.min() / 2}[share]
    calibration = replace(
        Calibration.load(model), out_of_distribution_score=score, out_of_distribution_threshold=float(threshold)
    )
    moved = exporting._shift_threshold(calibration, before, after)
    assert moved == pytest.approx(1.25 * threshold, rel=0.01)
    assert (score(after) > moved).mean() == pytest.approx(share, abs=0.02)


@pytest.mark.usefixtures("allow_any_fall")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnx_gives_the_same_answers_in_onnx_runtime(model: Path, cells: list[Image.Image], precision: str):
    folder, _ = export_model(model, "onnx", precision)
    assert files_in(folder) == {"model.onnx", "export.json"}
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    preparation = Preprocessing(load_processor(model))
    crops = np.stack([preparation.crop(image) for image in cells])
    logits, features = Predictor.from_pretrained(model, backend="torch").logits_and_features(cells)
    for count in (len(crops), 1):
        answers = session.run(["logits", "features"], {"crop": crops[:count]})
        assert_near(answers[0], logits[:count], precision)
        assert_near(answers[1], features[:count], precision)
    served = Predictor.from_pretrained(model, backend="openvino")
    assert served.export.format == "onnx"
    assert_near(served.logits_and_features(cells)[0], logits, precision)


def assert_near(found: np.ndarray, wanted: np.ndarray, precision: str) -> None:
    """Equal in fp32. In int8 near in the mean, beside what lies between the least and the greatest."""
    if precision == "fp32":
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 0.1 * np.ptp(wanted)


def test_a_folder_of_its_own_answers_without_weights(model: Path, cells: list[Image.Image], tmp_path: Path):
    (model / "NOTICE").write_text("The licence of weights that others made.")
    folder, _ = export_model(model, "openvino", "fp32", output=tmp_path / "exports" / "small")
    alone = tmp_path / "exports" / "small"
    assert folder == alone / "openvino"
    expected = {"config.json", "preprocessor_config.json", "wbc.json", "wbc.safetensors", "README.md", "metrics.json"}
    expected |= {"NOTICE"}
    assert files_in(alone) == expected | {f"openvino/{name}" for name in ("model.xml", "model.bin", "export.json")}
    assert not list((tmp_path / "exports").glob(".export-*"))
    before, after = Predictor.from_pretrained(model, backend="torch"), Predictor.from_pretrained(alone)
    np.testing.assert_allclose(after.probabilities(cells), before.probabilities(cells), atol=1e-5)
    assert after.identity.version == before.identity.version
    assert after.classify(cells)[1] == before.classify(cells)[1]
    with pytest.raises(WbcError, match=r"small: holds an export without the weights.* heat maps and features"):
        heat_map(after, cells[0])


def test_an_export_of_other_weights_is_not_used(
    model_with_export: Path, cells: list[Image.Image], caplog: pytest.LogCaptureFixture
):
    model = model_with_export
    changed = Predictor.from_pretrained(model, backend="torch").model
    changed.classifier[-1].weight.data.neg_()
    changed.save_pretrained(model)
    with caplog.at_level(logging.WARNING, logger="wbc_hf"):
        predictor = Predictor.from_pretrained(model, backend="openvino")
    (record,) = [record for record in caplog.records if record.name.startswith("wbc_hf")]
    assert "exported from other weights than those beside it" in record.getMessage()
    assert predictor.export is None
    expected = Predictor.from_pretrained(model, backend="torch").probabilities(cells)
    np.testing.assert_allclose(predictor.probabilities(cells), expected, atol=0.05)


def test_what_falls_too_far_is_refused_and_nothing_is_written(model: Path, monkeypatch: pytest.MonkeyPatch):
    before = files_in(model)
    monkeypatch.setattr(exporting, "MAX_FALL", -0.01)
    with pytest.raises(WbcError, match=r"macro F1 .* falls from \d\.\d{4} to \d\.\d{4} in fp32.*Nothing was written"):
        export_model(model, "openvino", "fp32")
    assert files_in(model) == before
    assert not (model / "openvino").exists()


@pytest.mark.long
def test_a_quantisation_that_went_wrong_is_refused(
    folder_of_cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Calibrated on pictures of the mean colour, zeros for the network, it cuts off nearly all that cells give."""
    model = shutil.copytree(DEFAULT_MODEL_FOLDER, tmp_path / "model")
    before = files_in(model)
    preprocessing = Preprocessing(load_processor(model))
    plain = np.full((32, *preprocessing.shape), preprocessing.mean.round(), dtype=np.uint8)
    monkeypatch.setattr(exporting, "_crops", lambda *_: plain)
    with pytest.raises(WbcError, match=r"macro F1 .* falls from \d\.\d{4} to \d\.\d{4} in int8; 0\.005 is allowed"):
        export_model(model, "openvino", "int8", dataset=str(folder_of_cells))
    assert files_in(model) == before


def test_an_old_export_does_not_hide_a_new_one(
    model_with_export: Path, cells: list[Image.Image], caplog: pytest.LogCaptureFixture
):
    model = model_with_export
    changed = Predictor.from_pretrained(model, backend="torch").model
    changed.classifier[-1].weight.data.neg_()
    changed.save_pretrained(model)
    export_model(model, "onnx", "fp32")
    predictor = Predictor.from_pretrained(model, backend="openvino")
    assert predictor.export.format == "onnx"
    assert f"{model / 'openvino'}: was exported from other weights" in caplog.text
    expected = Predictor.from_pretrained(model, backend="torch").probabilities(cells)
    np.testing.assert_allclose(predictor.probabilities(cells), expected, atol=1e-5)


def test_a_fresh_predictor_uses_no_export(exported: tuple[Path, Export]):
    model, _ = exported
    assert Predictor.from_pretrained(model, "openvino").export is not None
    assert Predictor.from_pretrained(model, "openvino", fresh=True).export is None


def test_an_export_of_what_is_no_resnet_says_so(cells: list[Image.Image], tmp_path: Path):
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    export_model(tmp_path / "vit", "openvino", "fp32", output=tmp_path / "small")
    predictor = Predictor.from_pretrained(tmp_path / "small")
    assert predictor.probabilities(cells).shape == (len(cells), 2)
    for ask in (predictor.logits_and_features, lambda images: heat_map(predictor, images[0])):
        with pytest.raises(WbcError, match="small: is a 'vit' model"):
            ask(cells)


def test_a_set_that_changed_since_training_is_not_checked_on(model: Path, folder_of_cells: Path):
    record = json.loads((model / "run.json").read_text())
    record["data"]["fingerprint"] = "0" * 64
    (model / "run.json").write_text(json.dumps(record))
    with pytest.raises(WbcError, match=r"holds other images, labels or splits than .*model was trained on"):
        export_model(model, "openvino", "fp32")
    _, export = export_model(model, "openvino", "fp32", dataset=str(folder_of_cells))
    assert export.check.dataset == str(folder_of_cells)


def test_a_new_export_takes_the_place_of_the_old_one(model_with_export: Path):
    model = model_with_export
    result = CliRunner().invoke(cli.app, ["export", str(model), "--format", "openvino", "--precision", "bf16"])
    assert result.exit_code == 0
    export = Export.load(model / "openvino")
    assert result.stdout == f"{describe_export(model / 'openvino', export)}\n"
    assert export.precision == "bf16"
    assert not list(model.glob(".export-*"))


def test_without_a_set_only_int8_is_refused(model: Path, tmp_path: Path):
    (model / "run.json").unlink()
    with pytest.raises(WbcError, match=r"no run\.json that names a stored data set, and int8 needs pictures"):
        export_model(model, "openvino", "int8")
    folder, export = export_model(model, "openvino", "fp32")
    assert export.check is None
    assert "Not checked" in describe_export(folder, export)


def test_what_cannot_be_asked_for(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WbcError, match="--precision bf16: ONNX Runtime has no convolution in bf16"):
        export_model(model, "onnx", "bf16")
    with pytest.raises(WbcError, match="is there already"):
        export_model(model, "openvino", "fp32", output=tmp_path)
    found = importlib.util.find_spec
    missing = ("nncf", "onnxruntime")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    with pytest.raises(WbcError, match=r"openvino --precision int8: needs nncf\. .* pip install 'wbc-hf\[export\]'"):
        export_model(model, "openvino", "int8")
    with pytest.raises(WbcError, match=r"onnx --precision int8: needs onnxruntime and nncf\. "):
        export_model(model, "onnx", "int8")


def test_broken_files_are_named(model_with_export: Path):
    model, folder = model_with_export, model_with_export / "openvino"
    (folder / "export.json").write_text("{")
    with pytest.raises(WbcError, match=r"export\.json: is not JSON .* or export anew"):
        Predictor.from_pretrained(model, backend="openvino")
    (folder / "export.json").write_text('{"export_format": 99}')
    with pytest.raises(WbcError, match="another version of wbc_hf"):
        Predictor.from_pretrained(model, backend="openvino")
