"""The two rows that are `train.py` itself."""

from pathlib import Path

import numpy as np
import pytest
from datasets import concatenate_datasets

from wbc_hf.data import Leucocytes, load_leucocytes, read_image
from wbc_hf.survey.resnet import Ours, SourceStudy

pytestmark = pytest.mark.long

TINY = ["--width=0.0625", "--image_size=32", "--precision=fp32", "--per_device_train_batch_size=8"]


# Ours is shown cells as many laboratories would show them, and learns these few more slowly.
@pytest.mark.parametrize(("system", "epochs"), [(SourceStudy, 12), (Ours, 18)])
def test_it_learns_painted_cells(system, epochs: int, leucocytes: Leucocytes, tmp_path: Path, seed: int):
    fitted = system(tmp_path, seed, [*TINY, f"--num_train_epochs={epochs}", "--learning_rate=3e-3", "--painted=0"])
    fitted.fit(leucocytes)
    cells = concatenate_datasets(list(leucocytes.values()))  # all: the few of the test split say little
    probabilities = fitted.predict_proba([read_image(image) for image in cells["image"]])
    assert probabilities.shape == (len(cells), 5)
    assert probabilities.sum(1) == pytest.approx(np.ones(len(cells)), abs=1e-4)
    right = (probabilities.argmax(1) == cells["label"]).mean()
    assert right > 0.33
    assert fitted.start == "from scratch"
    assert fitted.parameters > 50_000


def test_a_fit_that_was_stopped_goes_on_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leucocytes = load_leucocytes("synthetic:12")
    words = [*TINY, "--num_train_epochs=3"]
    whole = SourceStudy(tmp_path / "whole", 0, words)
    whole.fit(leucocytes)

    class StoppedError(Exception):
        """As a kill would."""

    def stop(self, args, state, control, **kwargs):
        if state.epoch >= 2:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("wbc_hf.training.trainer.StartEpoch.on_epoch_begin", stop)
        with pytest.raises(StoppedError):
            SourceStudy(tmp_path / "stopped", 0, words).fit(leucocytes)
    again = SourceStudy(tmp_path / "stopped", 0, words)
    again.fit(leucocytes)
    images = [read_image(image) for image in leucocytes["test"]["image"]]
    assert np.array_equal(again.predict_proba(images), whole.predict_proba(images))


def test_ours_paints_other_cells_than_a_painted_set_holds(leucocytes: Leucocytes, tmp_path: Path, monkeypatch):
    seen = []

    class LookedError(Exception):
        """Enough."""

    def look(cells: Leucocytes, *_) -> None:
        seen.append(cells["train"])
        raise LookedError

    monkeypatch.setattr("wbc_hf.survey.resnet.train_network", look)
    with pytest.raises(LookedError):
        Ours(tmp_path, 0, [*TINY, "--painted=5"]).fit(leucocytes)
    (rows,) = seen
    assert len(rows) == len(leucocytes["train"]) + 25
    added = [np.asarray(image).tobytes() for image in rows[len(leucocytes["train"]) :]["image"]]
    held = {np.asarray(image).tobytes() for split in leucocytes.values() for image in split["image"]}
    assert not held & set(added)


def test_the_source_study_is_plain():
    words = SourceStudy(Path("nowhere"))._words()
    assert {"--weight_decay=0", "--label_smoothing_factor=0", "--from_scratch=true"} <= set(words)


def test_with_imagenet_weights_early_layers_are_frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("wbc_hf.survey.resnet.imagenet_weights", lambda model: tmp_path)
    words = SourceStudy(Path("nowhere"))._words()
    assert "--freeze=stage2" in words
    assert f"--model={tmp_path}" in words
