"""What the viewer of a field gets: the picture once, in as much detail as is kept, and only its own visitor."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from tests.kept_specimens import replace_cells
from wbc_hf.data import paint_field
from wbc_hf.inference import Predictor
from wbc_hf.smear import DEFAULT_RANGES, CellState, Picture
from wbc_hf.web import full_pictures
from wbc_hf.web import session as session_module
from wbc_hf.web.full_pictures import FullPictures
from wbc_hf.web.session import Session, Sessions
from wbc_hf.web.specimen_html import render_field
from wbc_hf.web.specimen_tab import picture_sender, render_views
from wbc_hf.web.uploads import Upload


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def field() -> Image.Image:
    return Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=1).image)


@pytest.fixture(scope="module")
def large(field: Image.Image) -> Upload:
    """Larger than a preview."""
    return Upload(np.asarray(field.resize((1920, 1440))), "large.png")


def _decode(sent: str | None) -> Image.Image:
    assert sent is not None
    return Image.open(io.BytesIO(base64.b64decode(sent)))


def _picture(number: int) -> Picture:
    preview = io.BytesIO()
    Image.new("RGB", (64, 48)).save(preview, "JPEG")
    return Picture(number, "a.png", (640, 480), True, preview.getvalue())


def test_a_picture_is_sent_small_and_in_full_to_whoever_knows_the_secret(predictor: Predictor, large: Upload):
    sessions = Sessions(predictor)
    session, other = sessions.of("one"), sessions.of("two")
    session.read(large, is_field=True)
    send = picture_sender(sessions)
    asked = {"secret": session.secret, "number": 1}

    assert _decode(send(asked | {"full": False})).size == (1280, 960)
    full = _decode(send(asked | {"full": True}))
    assert full.size == (1920, 1440)
    difference = np.abs(np.asarray(full, int) - large.source)
    assert difference.mean() < 2

    for wrong in ({"secret": other.secret}, {"secret": ""}, {"secret": None}, {"number": 2}, {"number": 0}):
        assert send(asked | wrong) is None
    sessions.renew("one")
    assert send(asked) is None


def test_a_review_sends_no_picture(predictor: Predictor, large: Upload):
    session = Session(predictor)
    session.read(large, is_field=True)
    field = render_field(session.view)
    assert "base64" not in field and len(field) < 20_000
    assert f'data-secret="{session.secret}"' in field and 'data-in-full="true"' in field


def test_a_small_picture_is_kept_once(predictor: Predictor, field: Image.Image):
    session = Session(predictor)
    session.read(Upload(np.asarray(field), "small.png"), is_field=True)
    assert session.full_pictures.size == 0
    assert 'data-in-full="false"' in render_field(session.view)


def test_full_pictures_have_a_bound(monkeypatch: pytest.MonkeyPatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8))
    kept = FullPictures()
    kept.keep(_picture(1), noise)
    one = kept.size
    monkeypatch.setattr(full_pictures, "MAX_BYTES", int(2.5 * one))
    for number in range(2, 6):
        kept.keep(_picture(number), noise)
    assert kept.size == 2 * one
    assert [number in kept for number in range(1, 6)] == [True, True, False, False, False]
    kept.clear()
    assert kept.size == 0 and kept.get(1) is None


def test_full_pictures_make_way_before_a_visitor_is_refused(
    predictor: Predictor, large: Upload, monkeypatch: pytest.MonkeyPatch
):
    sessions = Sessions(predictor)
    session = sessions.of("one")
    session.read(large, is_field=True)
    monkeypatch.setattr(session_module, "MAX_BYTES_OF_ALL", session.specimen.size)
    assert session.size > session.specimen.size
    assert sessions.of("two") is not session
    assert session.size == session.specimen.size


def test_a_picture_that_is_put_back_is_there_in_full(predictor: Predictor, large: Upload):
    session = Session(predictor)
    session.read(large, is_field=True)
    session.act("remove", 1)
    session.act("undo", 0)
    assert session.view.in_full


@pytest.mark.parametrize(("dots", "written"), [(254_000, "0.1"), (300, "")])
def test_a_scale_is_given_where_the_file_knows_it(
    predictor: Predictor, field: Image.Image, tmp_path: Path, dots: int, written: str
):
    field.save(tmp_path / "field.png", dpi=(dots, dots))
    session = Session(predictor)
    session.read(Upload(str(tmp_path / "field.png"), "field.png"), is_field=True)
    html = render_field(session.view)
    size = session.view.picture.pixel_size
    assert (size is None) if not written else size == pytest.approx(float(written), rel=1e-3)
    assert ('data-pixel-size=""' in html) == (not written)


# ---- from cell to cell


@pytest.fixture
def session(predictor: Predictor, field: Image.Image) -> Session:
    session = Session(predictor)
    for seed in (1, 2):
        painted = paint_field([0, 1, 2, 4], width=480, height=360, seed=seed).image
        session.read(Upload(painted, f"{seed}.png"), is_field=True)
    return session


def test_every_cell_has_neighbours_in_the_order_of_the_pictures(session: Session):
    cells = session.specimen.cells
    first = [cell.number for cell in cells if cell.picture == 1]
    # A cell that was pointed at has the last number, and its place in the first picture.
    added = session.specimen.add_cell(1, replace(cells[0], box=(0, 0, 9, 9))).number
    session.act("cell", first[-1])
    assert session.view.beside == (first[-2], added)
    session.act("cell", added)
    assert session.view.beside == (first[-1], first[-1] + 1)
    session.act("cell", 1)
    assert session.view.beside == (None, 2)
    card = render_views(session, DEFAULT_RANGES, "")[2]
    assert 'data-key="arrowright" aria-keyshortcuts="ArrowRight"' in card
    session.act("remove", 1)
    session.act("cell", first[-1] + 1)
    assert session.view.beside[0] is None


def test_the_way_on_from_a_field_without_cells(session: Session):
    session.read(Upload(np.full((200, 300, 3), 230, np.uint8), "empty.png"), is_field=True)
    session.act("picture", 3)
    assert session.view.beside == (session.specimen.cells[-1].number, None)
    assert "Previous cell" in render_views(session, DEFAULT_RANGES, "")[2]


def test_review_starts_where_a_cell_waits_while_pictures_still_come(predictor: Predictor, field: Image.Image):
    """The first picture may show a cut-off cell alone: its card leads nowhere."""
    session = Session(predictor)
    session.read(Upload(np.asarray(field), "first.png"), is_field=True)
    replace_cells(session.specimen, *[replace(cell, cut=True) for cell in session.specimen.cells])
    session.show_picture(1)
    assert session.view.cell.state is CellState.CUT
    painted = paint_field([0, 1, 2, 4], width=480, height=360, seed=2).image
    session.read(Upload(painted, "second.png"), is_field=True)
    assert session.view.cell.state is CellState.WAITING
    session.act("cell", 1)
    session.read(Upload(paint_field([0, 2], width=480, height=360, seed=3).image, "third.png"), is_field=True)
    assert session.view.cell.number == 1  # a person chose it
