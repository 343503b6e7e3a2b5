"""Which model is meant where none was named, and that the one that comes with the project is what it says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from wbc_hf import starter
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Trust
from wbc_hf.serving import Predictor

MOST_BYTES = 8_000_000


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(starter.VARIABLE, raising=False)


def test_what_is_named_wins(monkeypatch: pytest.MonkeyPatch):
    assert starter.choose_model(None) == str(starter.STARTER)
    monkeypatch.setenv(starter.VARIABLE, "owner/name")
    assert starter.choose_model(None) == "owner/name"
    assert starter.choose_model("cells") == "cells"


def test_a_package_without_the_project_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(starter, "STARTER", tmp_path / "starter")
    with pytest.raises(WbcError, match="Name a folder or a Hub id"):
        starter.choose_model(None)


def test_the_starter_is_small_and_whole():
    files = {file.name: file.stat().st_size for file in starter.STARTER.iterdir() if file.is_file()}
    assert files["model.safetensors"] < MOST_BYTES
    assert {"config.json", "preprocessor_config.json", "wbc.json", "wbc.safetensors", "README.md"} <= files.keys()
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    card = (starter.STARTER / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "10.17632/snkd93bnjr" in card
    assert "not for diagnosis" in card


def test_the_starter_knows_its_colours():
    assert Trust.load(starter.STARTER).colours is not None


def test_the_starter_tells_painted_cells_apart():
    """It was trained on some; a broken file would tell them apart no better than by chance."""
    labels = np.repeat(np.arange(len(CLASS_NAMES)), 8)
    cells = [Image.fromarray(cell) for cell in paint_cells(labels, size=128, seed=77)]
    answers = Predictor.from_pretrained(starter.STARTER).probabilities(cells)
    assert (answers.argmax(1) == labels).mean() > 0.8
    (first, *_) = pipeline("image-classification", model=str(starter.STARTER))(cells[0])
    assert first["label"] == CLASS_NAMES[answers[0].argmax()]
