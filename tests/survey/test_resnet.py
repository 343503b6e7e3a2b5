"""The two rows that are `train.py` itself."""

from pathlib import Path

import numpy as np
import pytest

from wbc_hf.data import Leucocytes, load_leucocytes, read_image
from wbc_hf.survey.resnet import Ours, SourceStudy

TINY = ["--width=0.0625", "--image_size=32", "--precision=fp32", "--per_device_train_batch_size=8"]


@pytest.fixture(scope="module")
def leucocytes() -> Leucocytes:
    return load_leucocytes("synthetic:40")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch):
    """No Hub: the network starts from scratch."""
    monkeypatch.setattr("wbc_hf.survey.resnet.imagenet_weights", lambda model: None)


@pytest.mark.parametrize("system", [SourceStudy, Ours])
def test_it_learns_painted_cells(system, leucocytes: Leucocytes, tmp_path: Path):
    fitted = system(tmp_path, 0, [*TINY, "--num_train_epochs=12", "--learning_rate=3e-3", "--painted=0"])
    fitted.fit(leucocytes)
    images = [read_image(image) for image in leucocytes["test"]["image"]]
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (len(images), 5)
    assert probabilities.sum(1) == pytest.approx(np.ones(len(images)), abs=1e-4)
    assert (probabilities.argmax(1) == leucocytes["test"]["label"]).mean() > 0.35
    assert fitted.start == "from scratch"
    assert fitted.parameters > 50_000


def test_a_fit_that_was_stopped_goes_on_and_ends_alike(leucocytes: Leucocytes, tmp_path: Path):
    words = [*TINY, "--num_train_epochs=2", "--painted=0"]
    image = read_image(leucocytes["test"]["image"][0])
    whole = SourceStudy(tmp_path / "whole", 0, words)
    whole.fit(leucocytes)
    # As if killed after the training, before anything else was written.
    again = SourceStudy(tmp_path / "whole", 0, words)
    again.fit(leucocytes)
    assert np.array_equal(again.predict_proba([image]), whole.predict_proba([image]))


def test_the_source_study_is_plain():
    words = SourceStudy(Path("nowhere"))._words()
    assert {"--weight_decay=0", "--label_smoothing_factor=0", "--from_scratch=true"} <= set(words)


def test_with_imagenet_weights_early_layers_are_frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("wbc_hf.survey.resnet.imagenet_weights", lambda model: tmp_path)
    words = SourceStudy(Path("nowhere"))._words()
    assert "--freeze=stage2" in words
    assert f"--model={tmp_path}" in words
