"""Counting pictures of one smear from Python."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.modeling import build_from_scratch
from wbc_hf.smear import CellState, ReferenceRanges, count, counting, find_cells


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Not calibrated, so that every cell waits for review."""
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    return paint_field([0, 1, 2, 4], width=480, height=360, seed=1).image


def test_fields_of_any_kind_are_counted_and_unreadable_ones_are_named(
    predictor: Predictor, field: np.ndarray, tmp_path: Path
):
    Image.fromarray(field).save(tmp_path / "field.png")
    (tmp_path / "notes.jpg").write_text("no picture")

    snapshot = count([tmp_path / "field.png", str(tmp_path / "notes.jpg"), field], predictor, name="S 1")

    assert [(error.name, error.reason[:8]) for error in snapshot.unreadable] == [
        (f"{tmp_path / 'notes.jpg'}", "is not a")
    ]
    assert [picture.name for picture in snapshot.pictures] == ["field.png", "image 3"]
    assert (snapshot.specimen, snapshot.model) == ("S 1", predictor.identity)
    first, second = ([cell for cell in snapshot.cells if cell.picture == number] for number in (1, 2))
    assert [(cell.box, cell.cut) for cell in first] == [(cell.box, cell.cut) for cell in find_cells(field)]
    assert {cell.state for cell in first if not cell.cut} == {CellState.WAITING}
    assert [cell.duplicate_of for cell in second] == [cell.number for cell in first]


@pytest.mark.parametrize("step", ["find_cells", "predict_cells", "_encode_crop", "match_cells"])
def test_a_picture_on_which_a_step_fails_is_named_and_the_others_are_counted(
    step: str, predictor: Predictor, field: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """The third of four pictures; the fourth shows the second again, and its cells are recognised."""
    other = paint_field([1, 2, 3], width=480, height=360, seed=2).image
    real, at_fault = getattr(counting, step), []

    def failing(*arguments: object) -> object:
        if at_fault:
            raise ValueError("an odd field")
        return real(*arguments)

    def pictures() -> Iterator[np.ndarray]:
        yield field
        yield other
        at_fault.append(True)
        yield field  # with something to match
        at_fault.clear()
        yield other

    monkeypatch.setattr(counting, step, failing)
    snapshot = count(pictures(), predictor)

    (error,) = snapshot.unreadable
    assert error.name == "image 3"
    assert "an odd field" in error.reason
    assert [picture.name for picture in snapshot.pictures] == ["image 1", "image 2", "image 4"]
    second, third = ([cell.number for cell in snapshot.cells if cell.picture == number] for number in (2, 3))
    assert [cell.duplicate_of for cell in snapshot.cells if cell.number in third] == second


def test_images_of_single_cells_are_counted_whole(predictor: Predictor):
    snapshot = count(iter(paint_cells([0, 1, 2], size=48, seed=5)), predictor, whole_fields=False)
    assert [cell.box for cell in snapshot.cells] == [(0, 0, 48, 48)] * 3
    assert not any(picture.is_field for picture in snapshot.pictures)


def test_ranges_and_the_total_count_reach_the_differential(predictor: Predictor):
    ranges = ReferenceRanges(
        dict.fromkeys(("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"), (0, 9)), "ours"
    )
    differential = count([], predictor, ranges=ranges, leucocyte_count=6.4).differential
    assert (differential.ranges_source, differential.leucocyte_count, differential.total) == ("ours", 6.4, 0)
    with pytest.raises(WbcError, match="6500: a total leucocyte count"):
        count([], predictor, leucocyte_count=6500)


def test_the_default_model_counts_where_none_is_given(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network, processor = build_from_scratch(0.0625, image_size=32)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    monkeypatch.setenv("WBC_HF_MODEL", str(tmp_path))
    assert count([]).model.name == tmp_path.name


@pytest.mark.parametrize("kind", ["path", "array", "RGBA", "bytes"])
def test_cells_are_found_in_any_kind_of_image(kind: str, field: np.ndarray, tmp_path: Path):
    path = tmp_path / "field.png"
    Image.fromarray(field).save(path)
    image = {"path": path, "array": field, "RGBA": Image.fromarray(field).convert("RGBA"), "bytes": path.read_bytes()}
    assert find_cells(image[kind]) == find_cells(Image.fromarray(field))
