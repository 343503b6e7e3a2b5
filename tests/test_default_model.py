"""Which model is meant where none was named, and that the one that comes with the project is what it says."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from wbc_hf import default_model
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import read_metrics
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration

MOST_BYTES = 13_000_000


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(default_model.VARIABLE, raising=False)


def test_what_is_named_wins(monkeypatch: pytest.MonkeyPatch):
    assert default_model.choose_model(None) == str(default_model.DEFAULT_MODEL_FOLDER)
    monkeypatch.setenv(default_model.VARIABLE, "owner/name")
    assert default_model.choose_model(None) == "owner/name"
    assert default_model.choose_model("cells") == "cells"


def test_a_package_without_the_project_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(default_model, "DEFAULT_MODEL_FOLDER", tmp_path / "starter")
    with pytest.raises(WbcError, match="Name a folder or a Hub id"):
        default_model.choose_model(None)


def test_the_starter_is_small_and_whole():
    files = {file.name: file.stat().st_size for file in default_model.DEFAULT_MODEL_FOLDER.iterdir() if file.is_file()}
    assert files["model.safetensors"] < MOST_BYTES
    assert {"config.json", "preprocessor_config.json", "wbc.json", "wbc.safetensors", "README.md"} <= files.keys()
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    card = (default_model.DEFAULT_MODEL_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "10.17632/snkd93bnjr" in card
    assert "not for diagnosis" in card


def test_the_starters_thresholds_are_of_laboratories_it_had_to_do_without():
    calibration = Calibration.load(default_model.DEFAULT_MODEL_FOLDER)
    assert calibration.left_out == ("BCCD", "Raabin", "Chulalongkorn")
    assert "Tecom" not in calibration.trained_on


def test_no_figure_of_the_starter_is_without_room_for_a_mistake():
    """Where no mistake was seen the limits are exact ones, so none is "1.000 to 1.000"."""
    metrics = read_metrics(default_model.DEFAULT_MODEL_FOLDER)
    found = list(intervals_in(metrics))
    assert len(found) > 100
    assert not [(name, low) for name, low, high in found if high <= low]


def intervals_in(figures: dict, name: str = "") -> Iterator[tuple[str, float, float]]:
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from intervals_in(value, f"{name}/{key}")
        elif "intervals" in name and value is not None:
            yield f"{name}/{key}", *value


def test_the_starter_tells_painted_cells_apart():
    """It was trained on some; a broken file would tell them apart no better than by chance."""
    labels = np.repeat(np.arange(len(CLASS_NAMES)), 8)
    cells = [Image.fromarray(cell) for cell in paint_cells(labels, size=128, seed=77)]
    answers = Predictor.from_pretrained(default_model.DEFAULT_MODEL_FOLDER).probabilities(cells)
    assert (answers.argmax(1) == labels).mean() > 0.8
    (first, *_) = pipeline("image-classification", model=str(default_model.DEFAULT_MODEL_FOLDER))(cells[0])
    assert first["label"] == CLASS_NAMES[answers[0].argmax()]
