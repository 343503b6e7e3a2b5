"""Training for laboratories that a model has not seen: its arguments, painted cells beside real ones, the starter."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import concatenate_datasets
from safetensors.torch import load_file

import train
from tests.conftest import Command, TinyRun
from tests.scripts import ROOT, script
from wbc_hf.data import OtherLaboratories, load_leucocytes, read_image, with_painted
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration
from wbc_hf.training import calibrate_on_left_out
from wbc_hf.training.transforms import build_augmentation, training_edge


def test_painted_cells_are_trained_on_and_nothing_else_is(folder_of_cells: Path):
    real = load_leucocytes(folder_of_cells)
    mixed = with_painted(real, per_class=3)
    assert len(mixed["train"]) == len(real["train"]) + 3 * len(CLASS_NAMES)
    for split in ("validation", "test"):
        assert mixed[split]["source"] == real[split]["source"]
    added = mixed["train"].select(range(len(real["train"]), len(mixed["train"])))
    assert np.bincount(added["label"]).tolist() == [3] * len(CLASS_NAMES)
    assert not set(added["group"]) & set(real["test"]["group"])
    # A run that is taken up again with another number of them is another run.
    fingerprints = {with_painted(real, count).provenance.fingerprint for count in (3, 4)}
    assert len({real.provenance.fingerprint, *fingerprints}) == 3


def test_many_laboratories_are_another_augmentation_of_larger_images(tiny_run: TinyRun):
    processor = Predictor.from_pretrained(tiny_run.folder).processor
    assert isinstance(build_augmentation(processor, "many", 0.5), OtherLaboratories)
    assert build_augmentation(processor, "many", 0.5).strength == 0.5
    assert training_edge(processor, "many") == round(1.6 * 32)
    assert training_edge(processor, "one") < training_edge(processor, "many")


@pytest.mark.long
def test_a_run_for_many_laboratories_with_painted_cells(command: Command, tmp_path: Path):
    train.main(command(tmp_path / "run", laboratories="many", painted=6, num_train_epochs=1))
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["arguments"]["laboratories"] == "many"
    assert record["arguments"]["painted"] == 6
    # The out-of-distribution score and the calibration are fitted on real cells alone.
    assert len(Predictor.from_pretrained(tmp_path / "run").calibration.out_of_distribution_score.references) == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"laboratories": "many", "augmentation": 0}, "--laboratories many: is an augmentation"),
        ({"painted": -1}, "--painted -1: 0 or more"),
        ({"painted": 5, "dataset": "synthetic"}, "--painted: are the same cells as those of --dataset synthetic"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, message: str
):
    with pytest.raises(SystemExit):
        train.main(command(tmp_path / "run", **changes))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_starter_is_the_run_in_half_precision(tiny_run: TinyRun, tmp_path: Path):
    script("models/make_starter.py").make_starter(tiny_run.folder, tmp_path / "starter")
    stored = load_file(tmp_path / "starter" / "model.safetensors")
    assert {str(value.dtype) for value in stored.values()} == {"torch.float16", "torch.int64"}
    card = (tmp_path / "starter" / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "run.json" not in {path.name for path in (tmp_path / "starter").iterdir()}
    cells = list((ROOT / "docs" / "images").glob("*.jpg"))
    before, after = (
        Predictor.from_pretrained(folder, backend="torch").classify([read_image(path) for path in cells])[0]
        for folder in (tiny_run.folder, tmp_path / "starter")
    )
    assert after == pytest.approx(before, abs=5e-3)


def test_labelled_cells_are_drawn_from_each_class_and_half_of_a_rare_one():
    benchmark = script("benchmarks/unseen_laboratory.py")
    labels = np.repeat([0, 2, 4], [1, 6, 40])
    laboratory = benchmark.Laboratory([None] * 47, labels, np.arange(47).astype(str))
    drawn = benchmark.draw(laboratory, 5, seed=0)
    assert np.bincount(labels[drawn], minlength=5).tolist() == [1, 0, 3, 0, 5]
    assert len(set(drawn)) == len(drawn)
    assert drawn.tolist() == benchmark.draw(laboratory, 5, seed=0).tolist()
    assert drawn.tolist() != benchmark.draw(laboratory, 5, seed=1).tolist()


def test_figures_of_several_models_are_taken_together():
    benchmark = script("benchmarks/unseen_laboratory.py")
    labels = np.array([0, 1, 2, 3])
    laboratory = benchmark.Laboratory([None] * 4, labels, np.array(list("abcd")))
    right, wrong = np.eye(5)[labels], np.eye(5)[(labels + 1) % 5]
    sure = ["confident", "review", "review", "review"]
    answers = [
        benchmark.Predictions(np.arange(4), right, sure),
        benchmark.Predictions(np.arange(4), wrong, sure),
    ]
    row = benchmark.summarise(laboratory, answers)
    assert row["accuracy"][0] == 0.5
    assert row["confident"] == 0.25
    assert row["right"] == 0.5


@pytest.mark.long
def test_figures_of_a_laboratory_that_was_left_out(tiny_run: TinyRun, folder_of_cells: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    unseen = calibrate_on_left_out(folder, [(tiny_run.folder, folder_of_cells)])

    [(name, figures)] = unseen.items()
    fitted = Calibration.load(folder)
    assert fitted.left_out == (name,)
    rows = concatenate_datasets(list(load_leucocytes(folder_of_cells).values()))
    probabilities, statuses = Predictor.from_pretrained(folder).classify([read_image(row) for row in rows["image"]])
    assert figures["count"] == len(rows)
    right = probabilities.argmax(1) == np.array(rows["label"])
    # One of the two computes on another library, and an untrained model's classes are nearly tied.
    assert figures["accuracy"] == pytest.approx(right.mean(), abs=0.1)
    # Both models are the same one here, so the accepted cells are those that it now calls confident.
    assert figures["review"]["coverage"] == pytest.approx(np.mean(np.array(statuses) == "confident"), abs=0.02)
