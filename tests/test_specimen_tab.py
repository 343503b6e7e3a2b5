"""What the tab of a specimen does with events, without a browser; and what a page forgets."""

import base64
import csv
import io
import json
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio.state_holder import SessionState, StateHolder
from PIL import Image

from tests.adapted_models import build_tiny_model
from tests.kept_specimens import fill
from tests.test_session import waiting
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import EXPORTS
from wbc_hf.smear import DEFAULT_RANGES, CellState
from wbc_hf.web import build_page
from wbc_hf.web import session as session_module
from wbc_hf.web.housekeeping import KEEP_CLOSED, KEEP_OPEN, drop_idle_sessions, remove_files
from wbc_hf.web.intake import next_goal
from wbc_hf.web.session import Session, Sessions
from wbc_hf.web.specimen_html import describe_gallery
from wbc_hf.web.specimen_tab import ALL, GOALS, make_file, render_table

pytestmark = pytest.mark.usefixtures("unserved")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_model(), name="tiny")


class Tab:
    """The handlers of a page, called as Gradio calls them, and what they left in each part of the page."""

    def __init__(self, predictor: Predictor, folder: Path):
        self.page = build_page(predictor)
        self.folder = folder
        self.shown: dict = {}

    def handler(self, name: str):
        return next(fn.fn for fn in self.page.fns.values() if fn.name == name)

    def take(self, update: dict) -> None:
        self.shown |= {component._id: value for component, value in update.items()}

    def read(self, session: str, *seeds: int, goal: str = ALL) -> Iterator[None]:
        """Reads painted fields; stands still after each event that the page would get."""
        for update in self.handler("on_files")(
            [self.paint(seed) for seed in seeds], "Whole fields", goal, "", _request(session)
        ):
            self.take(update)
            yield

    def paint(self, seed: int) -> dict:
        path = self.folder / f"field {seed}.png"
        Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=seed).image).save(path)
        return {"path": str(path), "orig_name": path.name}

    @property
    def session(self) -> Session:
        state = next(block for block in self.page.blocks.values() if isinstance(block, gr.State))
        return self.shown[state._id]

    def text(self) -> str:
        return "".join(str(value) for value in self.shown.values())


# Fields of a drop that is not read to its end before somebody stops it.
MANY = range(1, 11)


@pytest.fixture
def tab(predictor: Predictor, tmp_path: Path) -> Tab:
    return Tab(predictor, tmp_path)


def _request(session: str, username: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(session_hash=session, username=username)


def _act(tab: Tab, session: str, action: str, number: int, value: str | None = None, **who: str) -> None:
    event = SimpleNamespace(action=action, number=number, value=value)
    tab.take(tab.handler("on_action")(event, tab.session, "", "Ana", _request(session, **who)))


def test_every_state_of_a_reading_says_what_is_visible(tab: Tab):
    """What is visible in one state and left out of the next, Gradio's page may never show."""
    notes = tab.folder / "notes.jpg"
    notes.write_text("no picture")
    given = [{"path": str(notes), "orig_name": notes.name}, tab.paint(1), tab.paint(2)]
    states = list(tab.handler("on_files")(given, "Whole fields", ALL, "", _request("one")))
    said = [
        {
            type(value): value.visible
            for part, value in state.items()
            if part.elem_classes in (["wbc-stop"], ["wbc-specimen"])
        }
        for state in states
    ]
    assert len(said) > 2  # also between the first and the last
    assert all(visible.keys() == {gr.Button, gr.Column} for visible in said)
    assert said[0] == {gr.Button: True, gr.Column: False}
    assert said[-1] == {gr.Button: False, gr.Column: True}


def test_a_review_while_pictures_are_read_is_kept_and_drawn(tab: Tab):
    reading = tab.read("one", 1, 2)
    while tab.shown == {} or not tab.session.specimen.pictures:
        next(reading)
    first = waiting(tab.session)[0]
    _act(tab, "one", "label", first, "basophil")
    chosen = tab.session.view.cell.number
    list(reading)
    assert tab.session.specimen.cells[first - 1].label == "basophil"
    assert tab.session.view.cell.number == chosen
    assert "Basophil<small>0.5 – 1</small></th><td>1</td>" in tab.text()


def test_a_specimen_that_was_put_away_does_not_come_back(tab: Tab):
    reading = tab.read("one", *MANY)
    while tab.shown == {} or not tab.session.specimen.pictures:
        next(reading)
    old = tab.session
    _act(tab, "one", "clear", 0)
    new = tab.session
    assert new is not old
    assert "field 1.png" not in tab.text()
    list(reading)
    assert tab.session is new
    assert len(old.specimen.pictures) < len(MANY)
    assert "field 1.png" not in tab.text()


def test_stop_ends_the_reading_and_keeps_what_was_read(tab: Tab):
    reading = tab.read("one", *MANY)
    while tab.shown == {} or not tab.session.specimen.pictures:
        next(reading)
    tab.handler("on_stop")(tab.session)
    list(reading)
    count = len(tab.session.specimen.pictures)
    assert count < len(MANY)
    assert f"Stopped: {count} of {len(MANY)} photographs were read" in tab.text()
    for update in tab.handler("on_go_on")(tab.session, "Whole fields", ALL, "", _request("one")):
        tab.take(update)
    assert [picture.name for picture in tab.session.specimen.pictures] == [f"field {seed}.png" for seed in MANY]
    assert tab.session.unread == []


def test_reading_stops_where_nobody_looks_any_more(tab: Tab):
    reading = tab.read("one", *MANY)
    while not tab.shown or not tab.session.specimen.pictures:
        next(reading)
    reading.close()
    assert len(tab.session.specimen.pictures) < len(MANY)
    assert tab.session.readings == 0
    assert tab.session.unread


def test_reading_stops_at_the_goal_and_goes_on_to_the_next(tab: Tab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(GOALS, "100 cells", 6)
    list(tab.read("one", 1, 2, 3, 4, goal="100 cells"))
    assert tab.session.leucocytes >= 6
    count = len(tab.session.specimen.pictures)
    assert count < 4
    assert [upload.name for upload in tab.session.unread] == [f"field {seed}.png" for seed in range(count + 1, 5)]
    assert f"Stopped: {count} of 4 photographs were read" in tab.text()
    for update in tab.handler("on_go_on")(tab.session, "Whole fields", "100 cells", "", _request("one")):
        tab.take(update)
    assert tab.session.leucocytes >= 12 or not tab.session.unread


@pytest.mark.parametrize(
    ("leucocytes", "goal", "enough"), [(0, 100, 100), (99, 100, 100), (100, 100, 200), (130, 200, 200), (5, None, inf)]
)
def test_the_next_goal_is_beyond_what_is_there(leucocytes: int, goal: int | None, enough: float):
    assert next_goal(leucocytes, goal) == enough


def test_two_uploads_at_once_make_one_specimen(tab: Tab):
    readings = [tab.read("one", 1), tab.read("one", 2)]
    for reading in readings:
        next(reading)
    for reading in readings:
        list(reading)
    assert len(tab.session.specimen.pictures) == 2
    assert tab.session.readings == 0


def test_example_fields_are_not_counted_with_a_patients(tab: Tab):
    list(tab.read("one", 1))
    for update in tab.handler("on_example")(tab.session, "", _request("one")):
        tab.take(update)
    assert len(tab.session.specimen.pictures) == 1
    assert "example fields would be counted with your own" in tab.text()


def test_the_files_say_of_each_cell_what_the_page_shows(predictor: Predictor):
    session = Session(predictor)
    fill(session.specimen)
    session.meanwhile.look(fields=True)
    cells, table = json.loads(describe_gallery(session))["cells"], render_table(session, DEFAULT_RANGES, "6.5")
    given = {"name": "S 17", "leucocytes": "6.5", "reviewer": "Ana"}
    files = {it.key: make_file(session, it, DEFAULT_RANGES, **given)["content"] for it in EXPORTS}
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(files["csv"]).decode("utf-8-sig"), newline="")))
    document = json.loads(base64.b64decode(files["json"]))

    columns = [*CLASS_NAMES, "", None]
    assert len({state for _, _, state, *_ in cells}) > 3
    for (number, column, state, _, _, reviewed), row, cell in zip(cells, rows, document["cells"], strict=True):
        assert number == int(row["number"]) == cell["number"]
        assert state == row["state"] == cell["state"]
        assert bool(reviewed) == bool(row["reviewed"]) == (cell["review"] is not None)
        assert row["class"] == (cell["class"] or "") and row["model_class"] == cell["prediction"]["class"]
        if state in (CellState.COUNTED, CellState.REJECTED):
            assert columns[column] == row["class"]
    shares = document["differential"]["shares"]
    for share, line in zip(shares, table.split("<tbody>")[1].split("</tr>"), strict=False):
        assert share["count"] == sum(row["state"] == "counted" and row["class"] == share["class"] for row in rows)
        assert f"<td>{share['count']}</td><td><b>{share['percent']:.1f}</b></td>" in line
        assert f"<td>{share['limits'][0]:.1f}" in line.replace("\n", "")


def test_whoever_signed_in_reviews_under_that_name(tab: Tab):
    list(tab.read("one", 1))
    number = waiting(tab.session)[0]
    _act(tab, "one", "label", number, "monocyte", username="ben")
    assert tab.session.specimen.cells[number - 1].review.reviewer == "ben"


def test_what_cannot_be_done_is_said_until_the_next_click(tab: Tab):
    list(tab.read("one", 1))
    _act(tab, "one", "add", 1, "-1,5")
    assert "lies outside the field" in tab.text()
    _act(tab, "one", "picture", 1)
    assert "lies outside the field" not in tab.text()


def test_a_click_on_a_forgotten_specimen_says_so(tab: Tab):
    event = SimpleNamespace(action="cell", number=1, value=None)
    tab.take(tab.handler("on_action")(event, None, "", "", _request("one")))
    assert "is forgotten" in tab.text()


def _read_files(tab: Tab, given: list[dict], kind: str = "Find out") -> str:
    for update in tab.handler("on_files")(given, kind, ALL, "", _request("one")):
        tab.take(update)
    return tab.text()


def _file(path: Path, content: bytes | np.ndarray) -> dict:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    return {"path": str(path), "orig_name": path.name}


def test_what_is_missing_is_said_in_one_calm_line_that_unfolds(tab: Tab):
    empty = [_file(tab.folder / f"empty {n}.png", np.full((200, 300, 3), 200 + n, np.uint8)) for n in (1, 2)]
    text = _read_files(tab, [*empty, tab.paint(1)])
    assert "<summary>2 of 3 photographs: 2 without a leucocyte</summary>" in text
    assert "<li><b>empty 2.png</b>: no leucocyte was found in it</li>" in text
    assert 'class="wbc-remarks wbc-neutral"' in text and "wbc-problem" not in text
    text = _read_files(tab, [*empty, _file(tab.folder / "notes.jpg", b"no picture"), tab.paint(1)])
    assert "4 of 4 photographs: 2 without a leucocyte, 1 seen before, 1 cannot be read" in text
    assert 'class="wbc-remarks wbc-caution"' in text


def test_good_files_are_read_beside_those_that_are_too_large_or_too_many(tab: Tab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wbc_hf.web.uploads.MAX_PICTURE_BYTES", 2 * 1024**2)
    monkeypatch.setattr(session_module, "MAX_PICTURES", 3)
    unsent = _file(tab.folder / "slide.svs", b"wbc-hf left out: is too large (3.1 GiB)")
    large = _file(tab.folder / "large.tif", bytes(3 * 1024**2))
    text = _read_files(tab, [unsent, tab.paint(1), large, tab.paint(2), tab.paint(3), tab.paint(4), tab.paint(5)])
    assert [picture.name for picture in tab.session.specimen.pictures] == [f"field {n}.png" for n in (1, 2, 3)]
    assert "4 of 7 photographs: 4 left out" in text
    assert "<b>slide.svs</b>: is too large (3.1 GiB)" in text
    assert "<b>large.tif</b>: is too large (3 MiB); pictures of at most 2 MiB are read" in text
    assert "<b>field 5.png</b>: is not read. A specimen on this page holds 3 pictures at most." in text


def test_a_zip_file_and_all_pages_are_read(tab: Tab):
    first, second = (paint_field([0, 2], width=480, height=360, seed=seed).image for seed in (11, 12))
    Image.fromarray(first).save(tab.folder / "stack.tif", save_all=True, append_images=[Image.fromarray(second)])
    with zipfile.ZipFile(tab.folder / "smear.zip", "w") as archive:
        archive.write(tab.folder / "stack.tif", "slide 1/stack.tif")
        archive.writestr("notes.txt", "none")
    text = _read_files(tab, [{"path": str(tab.folder / "smear.zip"), "orig_name": "smear.zip"}])
    names = [picture.name for picture in tab.session.specimen.pictures]
    assert names == ["slide 1/stack.tif", "slide 1/stack.tif, page 2"]
    assert "<b>smear.zip: notes.txt</b>: is no picture by the ending of its name" in text


@pytest.mark.parametrize(("chosen", "read_as_fields"), [("Find out", [True, False]), ("Whole fields", [True, True])])
def test_the_page_finds_out_what_photographs_show(tab: Tab, chosen: str, read_as_fields: list[bool]):
    cell = _file(tab.folder / "cell.png", paint_cells([4], size=128, seed=4)[0])
    text = _read_files(tab, [tab.paint(1), cell], chosen)
    assert [picture.is_field for picture in tab.session.specimen.pictures] == read_as_fields
    assert ("cell.png</b>: was read as a picture of one cell" in text) == (chosen == "Find out")


def test_a_wrong_choice_is_noticed(tab: Tab):
    text = _read_files(tab, [tab.paint(1), tab.paint(2)], "One cell each")
    assert "2 of 2 look like whole fields, but were read as “One cell each”" in text
    painted = paint_cells([1, 4], size=128, seed=4)
    cells = [_file(tab.folder / f"cell {number}.png", cell) for number, cell in enumerate(painted)]
    _act(tab, "one", "clear", 0)
    text = _read_files(tab, cells, "Whole fields")
    assert "2 of 2 look like pictures of one cell each, but were read as “Whole fields”" in text


def _press_otherwise(tab: Tab) -> str:
    for update in tab.handler("on_otherwise")(tab.session, "", _request("one")):
        tab.take(update)
    return tab.text()


def _visible(tab: Tab, elem_class: str) -> str | None:
    """The text of a button, if it is visible."""
    (block,) = [it for it in tab.page.blocks.values() if elem_class in (getattr(it, "elem_classes", None) or ())]
    return tab.shown[block._id].value if tab.shown[block._id].visible else None


def _kinds(tab: Tab) -> list[tuple[bool, bool]]:
    return [(picture.is_field, picture.removed) for picture in tab.session.specimen.pictures]


def test_a_wrong_choice_is_mended_by_one_click_and_undone_by_another(tab: Tab):
    _read_files(tab, [tab.paint(1), tab.paint(2)], "One cell each")
    assert _visible(tab, "wbc-otherwise") == "Read them as whole fields"
    before = tab.session.specimen.cells
    tab.session.act("label", 1, "basophil", "Ana")

    _press_otherwise(tab)
    assert _kinds(tab) == [(False, True), (False, True), (True, False), (True, False)]
    assert [picture.name for picture in tab.session.specimen.pictures[2:]] == ["field 1.png", "field 2.png"]
    assert _visible(tab, "wbc-otherwise") is None
    assert len(waiting(tab.session)) > len(before)
    assert tab.session.view.picture.number == 3 and tab.session.view.cell.number == waiting(tab.session)[0]

    _act(tab, "one", "undo", 0)
    assert _kinds(tab) == [(False, False), (False, False), (True, True), (True, True)]
    assert tab.session.specimen.cells[0].label == "basophil" and waiting(tab.session) == [2]
    assert tab.session.view.picture.number == 1


def test_pictures_that_are_not_kept_are_named_and_stay(tab: Tab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wbc_hf.smear.counting.PREVIEW_SIDE", 100)
    monkeypatch.setattr("wbc_hf.web.full_pictures.MAX_BYTES", 0)
    _read_files(tab, [tab.paint(1)], "One cell each")
    assert _visible(tab, "wbc-otherwise") == "Read it as whole fields"
    assert "field 1.png</b>: is not kept in full resolution" in _press_otherwise(tab)
    assert _kinds(tab) == [(False, False)]


def test_the_scale_of_a_picture_is_not_lost_when_it_is_read_otherwise(tab: Tab):
    path = tab.folder / "scaled.tif"
    photograph = Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=1).image)
    photograph.save(path, dpi=(254_000, 254_000))
    _read_files(tab, [{"path": str(path), "orig_name": path.name}], "One cell each")
    _press_otherwise(tab)
    sizes = [picture.pixel_size for picture in tab.session.specimen.pictures]
    assert sizes == [pytest.approx(0.1), pytest.approx(0.1)]


# ---- whose session is whose, and for how long


def test_each_session_has_a_specimen_of_its_own(predictor: Predictor):
    sessions = Sessions(predictor)
    ours, theirs = sessions.of("one"), sessions.of("two")
    assert ours is sessions.of("one") and ours is not theirs
    assert sessions.renew("one") is not ours
    assert ours.stopped and not theirs.stopped


def test_a_full_page_takes_no_new_specimen_and_keeps_the_old(predictor: Predictor, monkeypatch: pytest.MonkeyPatch):
    sessions = Sessions(predictor)
    ours = sessions.of("one")
    ours.specimen.size = 11
    monkeypatch.setattr(session_module, "MAX_BYTES_OF_ALL", 10)
    with pytest.raises(WbcError, match="as many specimens as it can"):
        sessions.of("two")
    assert sessions.of("one") is ours
    assert sessions.renew("one") is not ours
    monkeypatch.setattr(session_module, "MAX_BYTES", 10)
    with pytest.raises(WbcError, match="as many as a specimen"):
        ours.check_room(1)


@pytest.mark.parametrize(
    ("reviewing", "open_tabs", "idle", "kept"),
    [
        (True, {"one"}, KEEP_OPEN - timedelta(minutes=1), True),
        (True, {"one"}, KEEP_OPEN + timedelta(minutes=1), False),
        (True, {"two"}, KEEP_CLOSED - timedelta(minutes=1), True),
        (True, {"two"}, KEEP_CLOSED + timedelta(minutes=1), False),
        (False, {"one"}, KEEP_CLOSED + timedelta(minutes=1), False),
    ],
)
def test_idle_sessions_are_dropped_with_all_that_was_shown(
    predictor: Predictor, reviewing: bool, open_tabs: set[str], idle: timedelta, kept: bool
):
    page = build_page(predictor)
    visitors = StateHolder()
    visitors.set_blocks(page)
    state: SessionState = visitors["one"]
    box = next(block for block in page.blocks.values() if isinstance(block, gr.State))
    state[box._id] = Session(predictor) if reviewing else None

    drop_idle_sessions(visitors, datetime.now() + idle, open_tabs)

    assert ("one" in visitors) == kept


def test_uploads_do_not_stay(predictor: Predictor, tmp_path: Path):
    page = build_page(predictor)
    file = tmp_path / "upload.png"
    file.write_bytes(b"1")
    page.temp_file_sets.append({str(file)})
    remove_files(page, age=60)
    assert file.exists()
    time.sleep(0.02)
    remove_files(page, age=0)
    assert not file.exists()


def test_what_cut_off_uploads_leave_does_not_stay(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page = build_page(predictor)
    before = sorted(tmp_path.rglob("*"))  # what the page itself shows
    (tmp_path / "tmpab12").write_bytes(b"1")
    (tmp_path / "0a1b").mkdir()
    (tmp_path / "0a1b" / "smear.png").write_bytes(b"1")
    (tmp_path / "2c3d").mkdir()
    remove_files(page, age=60)
    assert len(list(tmp_path.rglob("*"))) == len(before) + 4
    time.sleep(0.02)
    remove_files(page, age=0)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == [it for it in before if it.is_file()]
    assert not (tmp_path / "2c3d").exists()


def test_a_visitor_has_so_many_specimens(predictor: Predictor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "MAX_SESSIONS", 2)
    sessions, visitor = Sessions(predictor), ["ana", ""]
    monkeypatch.setattr(session_module, "current_visitor", lambda: tuple(visitor))
    first, second = sessions.of("one"), sessions.of("two")
    with pytest.raises(WbcError, match="2 specimens of yours"):
        sessions.of("three")
    assert sessions.of("two") is second
    visitor[0] = "ben"
    other = sessions.of("four")
    monkeypatch.setattr(session_module, "MAX_BYTES_OF_ONE", 10)
    other.specimen.size = 11
    with pytest.raises(WbcError, match="1 specimens of yours"):
        sessions.of("five")
    assert first.visitor == "ana"
