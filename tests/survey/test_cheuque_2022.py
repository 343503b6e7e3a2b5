"""The detector and its two networks on painted cells."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.survey.conftest import Cells
from wbc_hf.data import Leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.cheuque_2022 import Cheuque2022
from wbc_hf.survey.networks import Recipe
from wbc_hf.survey.regions import RegionDetector, _vary
from wbc_hf.survey.system import pictures

pytestmark = pytest.mark.long

_RECIPE = Recipe(image_size=48, epochs=12, batch_size=8, learning_rate=3e-3, width=0.25)
_MONONUCLEAR = [CLASS_NAMES.index(name) for name in ("lymphocyte", "monocyte")]


@pytest.fixture(scope="module")
def fitted(leucocytes: Leucocytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Cheuque2022:
    system = Cheuque2022(tmp_path_factory.mktemp("cheuque"), seed=seed + 1, recipe=_RECIPE)
    system.fit(leucocytes)
    return system


def test_tells_painted_cells_apart(fitted: Cheuque2022, cells: Cells) -> None:
    probabilities = fitted.predict_proba(cells.images)
    assert probabilities.shape == (len(cells.labels), len(CLASS_NAMES))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == cells.labels).mean() > 0.4
    assert fitted.start == "from scratch"


def test_a_class_has_its_groups_probability_in_part(fitted: Cheuque2022, leucocytes: Leucocytes) -> None:
    images = list(pictures(leucocytes["test"]))
    groups = fitted.detector.find(images).groups
    np.testing.assert_allclose(fitted.predict_proba(images)[:, _MONONUCLEAR].sum(1), groups[:, 0], rtol=1e-5)
    mononuclear = np.isin(leucocytes["test"]["label"], _MONONUCLEAR)
    assert ((groups[:, 0] > 0.5) == mononuclear).mean() > 0.8


def test_the_box_follows_the_cell(fitted: Cheuque2022, leucocytes: Leucocytes) -> None:
    cells = list(pictures(leucocytes["test"]))
    side = cells[0].width
    shifted = []
    for cell in cells:
        image = Image.new("RGB", (2 * side, 2 * side), cell.getpixel((0, 0)))
        image.paste(cell, (side, 0))
        shifted.append(image)
    middles = fitted.detector.find(shifted).boxes.reshape(-1, 2, 2).mean(1)
    # The cells are in the middle of the upper right quarter.
    assert np.median(np.abs(middles - [0.75, 0.25]), 0).max() < 0.1


def test_a_crop_lies_within_the_picture(fitted: Cheuque2022) -> None:
    image = Image.new("RGB", (60, 40), "white")
    crop = fitted._crop(image, np.array([0.9, 0.8, 1.0, 1.0], np.float32))
    assert np.array(crop).min() == 255


def test_a_trained_detector_is_read_again(
    fitted: Cheuque2022, leucocytes: Leucocytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(RegionDetector, "_train", fail)
    again = Cheuque2022(fitted.folder, recipe=_RECIPE)
    again.fit(leucocytes)
    images = list(pictures(leucocytes["test"]))
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))


def test_the_same_seed_trains_alike(leucocytes: Leucocytes, tmp_path: Path) -> None:
    brief = Recipe(image_size=32, epochs=1, batch_size=16)
    rows = leucocytes["train"]
    images = list(pictures(leucocytes["test"]))
    found = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        detector = RegionDetector(brief, tmp_path / name, 2, seed)
        detector.fit(rows, np.array(rows["label"]) % 2)
        found.append(detector.find(images).groups)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_boxes_move_with_the_pictures() -> None:
    images = torch.zeros(32, 3, 64, 64)
    images[:, :, 20:32, 24:48] = 1
    boxes = torch.tensor([[36 / 64, 26 / 64, 24 / 64, 12 / 64]]).repeat(32, 1)
    views, moved = _vary(images, boxes, torch.Generator().manual_seed(0))
    for view, (x, y, width, height) in zip(views[:, 0] > 0.4, (64 * moved).tolist(), strict=True):
        rows, columns = (torch.nonzero(view.any(axis)).flatten().tolist() for axis in (1, 0))
        assert rows[0] == pytest.approx(y - height / 2, abs=1.01)
        assert rows[-1] + 1 == pytest.approx(y + height / 2, abs=1.01)
        assert columns[0] == pytest.approx(x - width / 2, abs=1.01)
        assert columns[-1] + 1 == pytest.approx(x + width / 2, abs=1.01)
    assert len({width > height for _, _, width, height in moved.tolist()}) == 2
