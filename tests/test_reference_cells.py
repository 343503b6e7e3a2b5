"""Reference cells: a cell finds itself first, classes are evenly there, what cannot be read is named."""

import io
import logging
from pathlib import Path

import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from tests.conftest import CELLS_PER_CLASS
from tests.tiny_sets import write_set
from wbc_hf.data import read_image
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor, reference_cells
from wbc_hf.inference.reference_cells import ReferenceCells
from wbc_hf.labels import CLASS_NAMES


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def cells(predictor: Predictor, folder_of_cells: Path) -> ReferenceCells:
    return ReferenceCells.from_folder(folder_of_cells, predictor)


def test_a_cell_is_its_own_nearest(cells: ReferenceCells, folder_of_cells: Path):
    name = "eosinophil/015.png"
    neighbours = cells.nearest(read_image(folder_of_cells / name))
    assert len(neighbours) == 5
    assert (neighbours[0].name, neighbours[0].label) == (name, "eosinophil")
    assert neighbours[0].similarity == pytest.approx(1, abs=1e-5)
    similarities = [neighbour.similarity for neighbour in neighbours]
    assert similarities == sorted(similarities, reverse=True)
    assert 0 <= similarities[-1] < similarities[0] <= 1
    assert len({neighbour.name for neighbour in neighbours}) == 5


def test_thumbnails_are_small_jpegs_of_the_cells(predictor: Predictor, tmp_path: Path):
    write_set(tmp_path, {"basophil": 1})
    Image.new("RGB", (400, 200), (90, 40, 130)).save(tmp_path / "basophil" / "wide.png")
    (wide,) = (
        neighbour
        for neighbour in ReferenceCells.from_folder(tmp_path, predictor).nearest(Image.new("RGB", (50, 50)))
        if neighbour.name == "basophil/wide.png"
    )
    thumbnail = Image.open(io.BytesIO(wide.thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (128, 64))


def test_all_cells_are_there(cells: ReferenceCells):
    assert len(cells) == len(CLASS_NAMES) * CELLS_PER_CLASS
    assert len(cells.nearest(Image.new("RGB", (40, 40), "white"), count=1000)) == len(cells)


def test_the_number_is_bounded_evenly(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a small class leaves over goes to the others."""
    write_set(tmp_path, {"basophil": 2, "EOSINOPHIL": 9, "lymphocytes": 9, "erythroblast": 3})
    monkeypatch.setattr(reference_cells, "MAX_CELLS", 12)
    cells = ReferenceCells.from_folder(tmp_path, predictor)
    assert {label: cells.labels.count(label) for label in set(cells.labels)} == {
        "basophil": 2,
        "eosinophil": 5,
        "lymphocyte": 5,
    }
    assert len(set(cells.names)) == 12
    assert "EOSINOPHIL/007.png" in cells.names


def test_what_cannot_be_read_is_named_once(predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"basophil": 2, "monocyte": 2})
    (tmp_path / "basophil" / "001.png").write_bytes(b"no picture")
    (tmp_path / "monocyte" / "notes.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING, logger=reference_cells.__name__):
        cells = ReferenceCells.from_folder(tmp_path, predictor)
    assert sorted(cells.names) == ["basophil/000.png", "monocyte/000.png", "monocyte/001.png"]
    (record,) = caplog.records
    assert "2 reference cells cannot be read" in record.message
    assert "basophil/001.png" in record.message
    assert "monocyte/notes.txt" in record.message


def test_folders_without_reference_cells(predictor: Predictor, tmp_path: Path):
    with pytest.raises(WbcError, match="erythroblast, platelet; reference cells are basophil,"):
        ReferenceCells.from_folder(write_set(tmp_path / "other", {"erythroblast": 1, "platelet": 1}), predictor)
    broken = write_set(tmp_path / "broken", {"basophil": 1})
    (broken / "basophil" / "000.png").write_bytes(b"no picture")
    with pytest.raises(WbcError, match=r"none of its 1 pictures can be read. The first: basophil/000\.png"):
        ReferenceCells.from_folder(broken, predictor)
