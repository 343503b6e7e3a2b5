"""The session of one visitor, without the page."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from tests.kept_specimens import replace_cells
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.errors import WbcError
from wbc_hf.inference import Prediction, Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import EXPORTS
from wbc_hf.smear import (
    DEFAULT_RANGES,
    NO_TYPES,
    Cell,
    CellState,
    CellTypes,
    ChangedMeanwhileError,
    Picture,
    amend,
    count_cells,
    load_types,
    sign,
)
from wbc_hf.smear.differential import exact_limits
from wbc_hf.web import session as session_module
from wbc_hf.web.remarks import Remark, RemarkKind
from wbc_hf.web.session import Session
from wbc_hf.web.specimen_html import (
    MAX_THUMBNAILS,
    Named,
    describe_gallery,
    make_thumbnails,
    names_of,
    render_gallery_frame,
    render_legend,
)
from wbc_hf.web.specimen_tab import make_file, parse_leucocytes, render_table, render_views
from wbc_hf.web.status_text import STATUS_TEXTS
from wbc_hf.web.uploads import MAX_PICTURES, Upload

TYPES = load_types(Path(__file__).parents[1] / "configs" / "types.toml")
# Columns of the gallery.
NONE_OF_THE_FIVE, NEVER_OR_CUT = len(CLASS_NAMES) + len(TYPES), len(CLASS_NAMES) + len(TYPES) + 2


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Not calibrated, so that every cell waits for a person."""
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def fields() -> list[Upload]:
    """Three fields with four leucocytes each."""
    return [
        Upload(paint_field([0, 1, 2, 4], width=480, height=360, seed=seed).image, f"field {seed}.png")
        for seed in (1, 2, 3)
    ]


@pytest.fixture
def session(predictor: Predictor, fields: list[Upload]) -> Session:
    session = Session(predictor, types=TYPES)
    for field in fields:
        assert session.read(field, is_field=True) is None
    return session


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


def waiting(session: Session) -> list[int]:
    return [cell.number for cell in session.specimen.cells if cell.state is CellState.WAITING]


def test_the_first_of_several_fields_is_shown_with_a_cell_that_waits(session: Session):
    view = session.view
    assert (view.picture.number, len(view.pictures)) == (1, 3)
    assert view.cell.number == waiting(session)[0]
    assert {cell.picture for cell in view.cells_of_picture} == {1}


def test_a_review_counts_and_leads_to_the_next_cell(session: Session):
    first, second, third = waiting(session)[:3]
    session.act("label", first, "monocyte", "Ana")
    assert session.view.cell.number == second
    session.act("label", second, None, "Ana")
    assert session.view.cell.number == third

    cells = session.specimen.cells
    assert count_cells(cells)["monocyte"] == 1
    assert cells[second - 1].state is CellState.REJECTED
    assert cells[first - 1].review.reviewer == "Ana"


def test_the_next_cell_may_be_in_another_field_or_before_the_last(session: Session):
    numbers = waiting(session)
    last = numbers[-1]
    session.act("cell", last)
    assert session.view.picture.number == 3
    session.act("label", last, "neutrophil", "")
    assert (session.view.cell.number, session.view.picture.number) == (numbers[0], 1)


def test_the_last_review_can_be_undone_from_the_next_cell(session: Session):
    first, second = waiting(session)[:2]
    session.act("label", first, "monocyte", "")
    assert session.view.cell.number == second
    assert f"Undo cell {first}<kbd>U</kbd>" in render_views(session, DEFAULT_RANGES, "")[2]
    session.act("undo", 0)
    assert session.view.cell.number == first and session.view.cell.review is None
    assert "Undo cell" not in render_views(session, DEFAULT_RANGES, "")[2]


def test_what_could_not_be_undone_can_be_undone_later(session: Session):
    first = waiting(session)[0]
    session.act("label", first, "monocyte", "Ana")
    sign(session.specimen, [], "Ana")
    with pytest.raises(WbcError, match="can only be amended"):
        session.act("undo", 0, None, "Ana")
    amend(session.specimen, "Ana", "one more look")
    session.act("undo", 0, None, "Ana")
    assert session.specimen.cells[first - 1].review is None and session.view.undo == ""


def test_undoing_a_missed_cell_leaves_another_readers_word(session: Session):
    session.act("add", 1, "3,3", "Ana")
    added = session.view.cell.number
    session.specimen.review(added, "basophil", "Ben")
    with pytest.raises(ChangedMeanwhileError, match=f"Ben: reviewed, cell {added}, basophil"):
        session.act("undo", 0, None, "Ana")
    assert session.specimen.cells[added - 1].label == "basophil" and not session.specimen.cells[added - 1].removed
    assert session.view.undo == ""


def test_reading_otherwise_is_ones_own_act_and_can_be_undone_later(predictor: Predictor, fields: list[Upload]):
    session = Session(predictor)
    session.read(fields[0], is_field=False)
    session.doubtful = [1]
    for upload in session.read_otherwise():
        session.read(upload, is_field=True)
    assert [picture.removed for picture in session.specimen.pictures] == [True, False]
    assert session.meanwhile.news() == ""
    sign(session.specimen, [], "Ana")
    with pytest.raises(WbcError, match="can only be amended"):
        session.act("undo", 0, None, "Ana")
    amend(session.specimen, "Ana", "one more look")
    session.act("undo", 0, None, "Ana")
    assert [picture.removed for picture in session.specimen.pictures] == [False, True]


def test_the_columns_of_the_gallery_are_listed_once_for_all_cells(session: Session, monkeypatch: pytest.MonkeyPatch):
    listed = []

    def list_names(types: CellTypes) -> list[Named]:
        listed.append(types)
        return names_of(types)

    monkeypatch.setattr("wbc_hf.web.specimen_html.names_of", list_names)
    assert json.loads(describe_gallery(session))["cells"]
    assert listed == [session.types]


def test_a_name_that_is_given_late_holds_for_what_was_said_before(session: Session):
    first, second = waiting(session)[:2]
    session.act("label", first, "monocyte", "Ana")
    session.act("label", second, "monocyte", "")
    make_file(session, EXPORTS[0], DEFAULT_RANGES, name="", leucocytes="", reviewer="Ben")
    assert [session.specimen.cells[number - 1].review.reviewer for number in (first, second)] == ["Ana", "Ben"]


def test_an_empty_first_field_gives_way_to_one_with_cells(predictor: Predictor, fields: list[Upload]):
    session = Session(predictor)
    session.read(Upload(np.full((200, 300, 3), 230, np.uint8), "empty.png"), is_field=True)
    session.read(fields[0], is_field=True)
    assert session.view.picture.number == 2


def test_a_picture_that_was_taken_out_does_not_count(session: Session):
    number = waiting(session)[0]
    session.act("label", number, "monocyte", "Ana")
    session.act("remove", 1)
    assert count_cells(session.specimen.cells)["monocyte"] == 0
    assert {cell.state for cell in session.view.cells_of_picture} == {CellState.REMOVED}
    assert all(session.specimen.cells[cell - 1].picture != 1 for cell in waiting(session))
    pager, _, card, *_ = render_views(session, DEFAULT_RANGES, "")
    assert "Taken out" in pager and "Missed cell" not in pager
    assert "with its picture: not counted" in card
    with pytest.raises(WbcError, match="its picture was removed"):
        session.act("label", number, "monocyte", "Ana")


def test_what_another_picture_shows_too_is_counted_there_once_the_first_is_taken_out(
    session: Session, fields: list[Upload]
):
    for _ in range(2):
        session.read(fields[0], is_field=True)
    before = waiting(session)
    session.act("remove", 1)
    by_picture = {
        picture: {cell.state for cell in session.specimen.cells if cell.picture == picture and not cell.cut}
        for picture in (1, 4, 5)
    }
    assert by_picture == {1: {CellState.REMOVED}, 4: {CellState.WAITING}, 5: {CellState.DUPLICATE}}
    assert len(waiting(session)) == len(before)


def test_a_cell_that_was_missed_can_be_pointed_at(session: Session):
    boxes = [cell.box for cell in session.view.cells_of_picture]
    before = len(session.specimen.cells)
    places = [(x, y) for x in range(30, 480, 30) for y in range(30, 360, 30)]
    free = next((x, y) for x, y in places if not any(a <= x < c and b <= y < d for a, b, c, d in boxes))

    session.act("add", 1, f"{free[0]},{free[1]}", "")

    cell = session.view.cell
    assert (cell.number, cell.picture, cell.state) == (before + 1, 1, CellState.WAITING)
    assert cell.box[0] <= free[0] < cell.box[2] and cell.box[1] <= free[1] < cell.box[3]
    session.act("label", cell.number, "neutrophil", "Ana")
    assert count_cells(session.specimen.cells)["neutrophil"] == 1


@pytest.mark.parametrize("place", ["480,10", "-1,10"])
def test_a_missed_cell_lies_within_the_field(session: Session, place: str):
    with pytest.raises(WbcError, match="lies outside the field of 480 × 360"):
        session.act("add", 1, place, "")


def test_no_cell_is_missed_in_what_is_no_field_of_the_specimen(session: Session):
    session.act("remove", 1)
    for picture in (1, 9):
        with pytest.raises(WbcError, match=f"picture {picture}: is not a field of this specimen"):
            session.act("add", picture, "5,5", "")


def test_a_cell_that_was_found_is_not_taken_in_again(session: Session):
    x0, y0, x1, y1 = session.specimen.cells[0].box
    with pytest.raises(WbcError, match="is cell 1 already"):
        session.act("add", 1, f"{(x0 + x1) // 2},{(y0 + y1) // 2}", "")


def test_what_shows_no_cell_is_not_offered_as_a_class(session: Session):
    number = waiting(session)[0]
    cell = session.specimen.cells[number - 1]
    replace_cells(session.specimen, replace(cell, prediction=Prediction("monocyte", 0.9, (), "not_a_cell")))
    card = render_views(session, DEFAULT_RANGES, "")[2]
    assert "No leucocyte?" in card
    assert "Accept monocyte" not in card


@pytest.mark.parametrize("status", STATUS_TEXTS)
def test_the_large_type_never_contradicts_the_warning(session: Session, status: str):
    """No percentage and no preferred button but of a calibrated probability; the warning is not behind a fold."""
    number = waiting(session)[0]
    session.act("cell", number)
    set_prediction(session, number, label="monocyte", probability=0.996, status=status)

    card, fold = render_views(session, DEFAULT_RANGES, "")[2].split("<details>")

    calibrated = session.view.cell.prediction.calibrated
    assert calibrated == (status in ("confident", "review"))
    assert ("99.6 %" in card) == ("99.6 %" in fold) == ("wbc-primary" in card) == calibrated
    assert status == "confident" or STATUS_TEXTS[status].sentence in card
    assert ("Accept monocyte" in card) == (status != "not_a_cell")


def test_a_cell_that_the_border_cuts_off_may_be_counted_all_the_same(session: Session):
    number = waiting(session)[0]
    replace_cells(session.specimen, replace(session.specimen.cells[number - 1], cut=True))
    session.act("cell", number)
    card = render_views(session, DEFAULT_RANGES, "")[2]
    assert "not counted, unless you say what it is" in card
    assert f'data-action="label" data-number="{number}" data-value="basophil"' in card
    assert gallery(session)["cells"][number][0] == NEVER_OR_CUT

    session.act("label", number, "basophil", "Ana")

    assert session.specimen.cells[number - 1].state is CellState.COUNTED
    assert gallery(session)["cells"][number][0] == CLASS_NAMES.index("basophil")


@pytest.mark.parametrize(
    ("count", "goal", "sign"), [(99, 100, "of 100"), (100, 200, "100 reached"), (200, 200, "200 reached")]
)
def test_the_table_shows_how_far_the_count_is(predictor: Predictor, count: int, goal: int, sign: str):
    session = Session(predictor)
    cell = Cell((0, 0, 8, 8), Prediction("monocyte", 0.9, (), "confident"), png(8))
    session.specimen.add_picture(Picture(0, "many.png", (64, 64), True, b""), [cell] * count)
    table = render_table(session, DEFAULT_RANGES, "")
    assert f'<progress value="{count}" max="{goal}"' in table
    assert f"{sign}<" in table


def test_a_cell_that_did_not_wait_stays_chosen(session: Session):
    number = waiting(session)[0]
    session.act("label", number, "monocyte", "")
    session.act("label", number, "basophil", "")
    assert session.view.cell.number == number
    assert session.view.cell.label == "basophil"
    session.act("withdraw", number)
    assert session.view.cell.state is CellState.WAITING


def gallery(session: Session) -> dict:
    """What the browser is told of the gallery; `cells` by number: column, state, tag, unsureness, reviewed."""
    told = json.loads(render_views(session, DEFAULT_RANGES, "")[3])
    return told | {"cells": {number: rest for number, *rest in told["cells"]}}


def set_prediction(session: Session, number: int, **changes) -> None:
    cell = session.specimen.cells[number - 1]
    replace_cells(session.specimen, replace(cell, prediction=replace(cell.prediction, **changes)))


def test_several_cells_are_reviewed_at_once_and_undone_at_once(session: Session):
    numbers = waiting(session)[:3]
    session.act("label", numbers[0], "basophil", "Ana")
    before = session.specimen.cells
    session.act("label", numbers, "monocyte", "Ana")
    assert [session.specimen.cells[number - 1].label for number in numbers] == ["monocyte"] * 3
    assert gallery(session)["undo"] == "3 cells"
    assert "Undo 3 cells<kbd>U</kbd>" in render_views(session, DEFAULT_RANGES, "")[2]

    session.act("undo", 0)

    assert session.specimen.cells == before  # the first is a basophil again
    assert gallery(session)["undo"] == f"cell {numbers[0]}"


def test_what_was_read_while_a_picture_was_out_is_not_counted_twice_once_it_is_back(
    session: Session, fields: list[Upload]
):
    before = session.leucocytes
    session.act("remove", 1)
    session.read(fields[0], is_field=True)
    assert session.leucocytes == before
    session.act("undo", 0)
    assert session.leucocytes == before
    assert {cell.state for cell in session.view.cells if cell.picture == 4} <= {CellState.DUPLICATE, CellState.CUT}


def test_undo_goes_back_all_the_way(session: Session, fields: list[Upload]):
    session.read(fields[0], is_field=True)
    first, second, third = waiting(session)[-3:]
    states = [session.specimen.contents]
    for action, number, value in (
        ("label", first, "monocyte"),
        ("accept", [second, third], None),
        ("remove", 1, None),
        ("withdraw", third, None),
        ("add", 2, "3,3"),
        ("remove", 2, None),
        ("label", third, None),
    ):
        session.act(action, number, value, "Ana")
        states.append(session.specimen.contents)

    added = len(states[-1].cells)
    for before in reversed(states[:-1]):
        assert gallery(session)["undo"]
        session.act("undo", 0)
        assert session.specimen.pictures == before.pictures
        # A cell that was pointed at leaves a number, and nothing else.
        assert session.specimen.cells[: len(before.cells)] == before.cells
    assert session.specimen.cells[added - 1].removed
    assert added not in {cell.number for cell in session.view.cells_of_picture}
    assert gallery(session)["undo"] == ""
    session.act("undo", 0)


def test_what_the_model_proposes_is_accepted_of_several_cells(session: Session):
    one, two, none, reviewed = waiting(session)[:4]
    set_prediction(session, one, label="monocyte")
    set_prediction(session, two, label="neutrophil")
    set_prediction(session, none, label="neutrophil", status="not_a_cell")
    session.act("label", reviewed, "basophil", "Ana")

    session.act("accept", [one, two, none, reviewed], None, "Ben")

    cells = session.specimen.cells
    labels = {number: cells[number - 1].review.label for number in (one, two, none, reviewed)}
    assert labels == {one: "monocyte", two: "neutrophil", none: None, reviewed: "basophil"}
    assert cells[reviewed - 1].reviewer == "Ana"
    assert gallery(session)["undo"] == "3 cells"


def test_of_several_cells_all_are_reviewed_or_none(session: Session):
    number, *_ = waiting(session)
    session.act("remove", 3)
    removed = next(cell.number for cell in session.specimen.cells if cell.picture == 3)
    with pytest.raises(WbcError, match=f"cell {removed}: is never counted, since its picture was removed"):
        session.act("label", [number, removed], "monocyte")
    assert session.specimen.cells[number - 1].review is None
    with pytest.raises(WbcError, match="cell: concerns one picture or cell, not 2"):
        session.act("cell", [1, 2])


def test_the_gallery_has_a_column_for_each_class(session: Session):
    one, doubtful, none, *_ = waiting(session)
    session.act("label", one, "monocyte", "")
    set_prediction(session, doubtful, label="neutrophil", status="not_a_cell")
    session.act("label", none, None, "")
    cells = gallery(session)["cells"]
    monocytes = CLASS_NAMES.index("monocyte")
    assert cells[one][:3] == [monocytes, "counted", "Mon"] and cells[one][4] == 1
    assert cells[doubtful][:3] == [NONE_OF_THE_FIVE, "waiting", "no?"] and cells[doubtful][4] == 0
    assert cells[none][:3] == [NONE_OF_THE_FIVE, "rejected", "none"]
    session.act("remove", 1)
    assert gallery(session)["cells"][one][:3] == [NEVER_OR_CUT, "removed", "out"]


def test_own_types_are_named_have_columns_and_are_undone(session: Session):
    first, second, third, *_ = waiting(session)
    names = [str(it.of) for it in names_of(TYPES)]
    session.act("label", [first, second], "blast", "Ana")
    session.act("label", third, "Erythroblasts", "Ana")
    cells = gallery(session)["cells"]
    assert cells[first][:3] == [names.index("blast"), "counted", "Bla"]
    assert cells[third][:3] == [names.index("erythroblast"), "beside", "Ery"]
    session.act("cell", third)
    _, field, card, _, table = render_views(session, DEFAULT_RANGES, "6.4")
    assert TYPES.resolve("erythroblast").colour in field
    assert "Now counted per 100 leucocytes" in card and 'data-value="smudge cell"' in card
    pressed = re.findall(r'data-value="([^"]*)"[^>]*aria-pressed="true"', card)
    assert pressed == ["erythroblast"]
    assert "Blast</th><td>2</td>" in table and "Erythroblast</th><td>1</td><td><b>50.0</b>" in table
    assert "Leucocytes corrected for erythroblast: 4.27" in table
    session.act("undo", 0)
    assert session.specimen.cells[third - 1].own is None
    with pytest.raises(WbcError, match=r"hairy cell: is not one of basophil, .*platelet clump"):
        session.act("label", first, "hairy cell", "Ana")


def test_types_that_the_settings_do_not_know_stay_and_have_a_column(session: Session):
    first, *_ = waiting(session)
    session.act("label", first, "blast", "Ana")
    session.act("cell", first)
    session.types = NO_TYPES
    assert gallery(session)["cells"][first][:3] == [len(names_of(NO_TYPES)), "counted", "Bla"]
    _, _, card, _, table = render_views(session, DEFAULT_RANGES, "")
    assert "Blast</b>" in card and "Blast</th><td>1</td>" in table
    with pytest.raises(WbcError, match="blast: is not one of"):
        session.act("label", first, "blast", "Ana")


def test_columns_and_keys_stand_in_one_order():
    """The browser finds the column of a key by its place."""
    frame, legend = render_gallery_frame(TYPES), render_legend(TYPES)
    values = re.findall(r'data-column="(\d+)" data-value="([^"]*)"', frame)
    assert [value for _, value in values] == re.findall(r'data-name="([^"]*)"', legend)
    assert [int(column) for column, _ in values] == list(range(len(names_of(TYPES))))
    assert re.findall(r'data-default="([^"]*)"', legend) == [*"12345", *(it.key for it in TYPES), "0"]


def test_what_the_model_says_nothing_of_is_more_unsure_than_all_else(session: Session):
    for number, (status, probability, distance) in enumerate(
        [("confident", 0.99, 0.2), ("review", 0.5, 0.9), ("unfamiliar", 0.99, 1.2), ("not_a_cell", 0.9, 3.0)], start=1
    ):
        set_prediction(session, number, status=status, probability=probability, distance=distance)
    unsure = [gallery(session)["cells"][number][3] for number in (1, 2, 3, 4)]
    assert unsure == pytest.approx([0.01, 0.5, 2.2, 4.0])


def test_the_box_on_the_field_and_the_card_say_the_same_of_what_is_no_leucocyte(session: Session):
    number = waiting(session)[0]
    set_prediction(session, number, label="neutrophil", status="not_a_cell")
    _, field, card, *_ = render_views(session, DEFAULT_RANGES, "")
    assert "No leucocyte?" in card
    assert f">{number} no?<" in field and f">{number} Neu?<" not in field
    assert f'aria-label="{number} no?: ' in field


def test_each_answer_of_the_gallery_is_newer_than_the_last(session: Session):
    first, second = gallery(session), gallery(session)
    assert second["version"] > first["version"] and first["key"] == second["key"] == session.key


def test_images_of_the_gallery_are_made_for_those_who_ask(session: Session):
    assert "data:image" not in render_views(session, DEFAULT_RANGES, "")[3]
    made = make_thumbnails(session, [2, 99, 1, 0])
    assert made["key"] == session.key
    assert list(made["urls"]) == ["2", "1"]
    assert all(url.startswith("data:image/jpeg;base64,") for url in made["urls"].values())


@pytest.mark.parametrize(
    ("action", "number", "message"),
    [("picture", 4, "picture 4: there are 3"), ("cell", 99, "cell 99: there are"), ("dance", 1, "dance: no button")],
)
def test_what_is_not_there_is_named(session: Session, action: str, number: int, message: str):
    with pytest.raises(WbcError, match=message):
        session.act(action, number)


def test_the_same_field_once_more_adds_nothing(session: Session, fields: list[Upload]):
    before = count_cells(session.specimen.cells), len(waiting(session))
    said = session.read(fields[1], is_field=True)
    assert said.kind is RemarkKind.SEEN and "shows nothing that was not seen before" in said.reason
    assert session.view.picture.number == 1
    session.act("picture", 4)
    assert all(cell.state is CellState.DUPLICATE for cell in session.view.cells_of_picture)
    assert {cell.duplicate_of for cell in session.view.cells_of_picture} == {
        cell.number for cell in session.specimen.cells if cell.picture == 2
    }
    assert (count_cells(session.specimen.cells), len(waiting(session))) == before
    # And once more: still near-duplicates of the first, not of each other.
    session.read(fields[1], is_field=True)
    session.act("picture", 5)
    assert {session.specimen.cells[cell.duplicate_of - 1].picture for cell in session.view.cells_of_picture} == {2}


def test_pictures_of_one_cell_are_one_cell_each(predictor: Predictor):
    session = Session(predictor)
    for number, pixels in enumerate(paint_cells([0, 1, 2], size=96, seed=4)):
        assert session.read(Upload(pixels, f"{number}.png"), is_field=False) is None
    assert [cell.box for cell in session.specimen.cells] == [(0, 0, 96, 96)] * 3
    assert len(waiting(session)) == 3


def test_empty_and_broken_pictures_are_named_and_stop_nothing(session: Session, tmp_path: Path):
    empty = Upload(np.full((200, 300, 3), 230, np.uint8), "empty.png")
    assert session.read(empty, is_field=True) == Remark(RemarkKind.EMPTY, "empty.png", "no leucocyte was found in it")
    session.act("picture", 4)
    assert session.view.cell is None
    (tmp_path / "notes").write_text("no picture")
    notes = session.read(Upload(str(tmp_path / "notes"), "notes.jpg"), is_field=True)
    assert (notes.kind, notes.name) == (RemarkKind.UNREADABLE, "notes.jpg")
    assert notes.reason.startswith("is not a picture")
    assert len(session.specimen.pictures) == 4


def test_a_picture_on_which_the_finder_fails_is_named_and_stops_nothing(
    session: Session, fields: list[Upload], monkeypatch: pytest.MonkeyPatch
):
    def fail(image: Image.Image) -> None:
        raise ValueError("an odd field")

    before = session.specimen.contents
    with monkeypatch.context() as patch:
        patch.setattr("wbc_hf.smear.counting.find_cells", fail)
        said = session.read(fields[0], is_field=True)
    assert said.name == fields[0].name
    assert said.reason.startswith("its cells cannot be counted (ValueError('an odd field'))")
    assert session.specimen.contents == before
    assert session.read(fields[0], is_field=True).kind is RemarkKind.SEEN


def test_a_specimen_has_room_for_so_many(session: Session):
    session.check_room(MAX_PICTURES - 3)
    with pytest.raises(WbcError, match="holds 1,000 pictures at most"):
        session.check_room(MAX_PICTURES - 2)


def test_what_is_drawn_follows_what_is_said(session: Session):
    number = waiting(session)[0]
    pager, field, card, gallery, table = render_views(session, DEFAULT_RANGES, "")
    assert "Field 1 of 3" in pager
    assert field.count('class="wbc-box ') == len(session.view.cells_of_picture)
    assert f'data-number="{number}"' in card and "Not counted yet." in card
    assert [state for _, _, state, *_ in json.loads(gallery)["cells"]].count("waiting") == len(waiting(session))
    assert f"<b>{len(waiting(session))} cells</b> wait for review" in table

    session.act("label", number, "basophil", "<Ana>")
    session.act("cell", number)
    _, field, card, _, table = render_views(session, DEFAULT_RANGES, "")
    assert f">{number} Bas<" in field
    assert "&lt;Ana&gt;" in card and "<Ana>" not in card
    low, high = exact_limits(1, 1, waiting=len(waiting(session)))
    limits = f"<td>{low:.1f} – {high:.1f}</td>"
    assert f"Basophil<small>0.5 – 1</small></th><td>1</td><td><b>100.0</b></td>{limits}" in table


def test_names_of_files_are_no_html(predictor: Predictor):
    session = Session(predictor)
    session.read(Upload(paint_field([4] * 8, seed=21).image, "<script>1</script>"), is_field=True)
    assert not any("<script>" in part for part in render_views(session, DEFAULT_RANGES, ""))


def test_not_all_images_of_a_large_gallery_come_at_once(predictor: Predictor):
    session = Session(predictor)
    cell = Cell((0, 0, 8, 8), Prediction("monocyte", 0.9, (), "confident"), png(8))
    session.specimen.add_picture(Picture(0, "many.png", (64, 64), True, b""), [cell] * 150)
    assert len(make_thumbnails(session, range(1, 151))["urls"]) == MAX_THUMBNAILS


@pytest.mark.parametrize(("written", "read"), [("", None), (" 6.4 ", 6.4), ("6,4", 6.4), ("0", None)])
def test_leucocyte_counts_as_people_write_them(written: str, read: float | None):
    assert parse_leucocytes(written) == read


@pytest.mark.parametrize("written", ["many", "6500", "-1"])
def test_leucocyte_counts_that_cannot_be_are_named(session: Session, written: str):
    with pytest.raises(WbcError, match=f"^{written}: "):
        parse_leucocytes(written)
    assert f'role="alert">{written}: ' in render_table(session, DEFAULT_RANGES, written)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.key)
def test_every_export_comes_as_a_file_to_save(session: Session, export):
    session.act("label", waiting(session)[0], "monocyte", "Ana")
    file = make_file(session, export, DEFAULT_RANGES, name=" S 17 ", leucocytes="6,4", reviewer="Ben")
    assert file["name"].startswith("differential-S-17-") and file["name"].endswith(export.suffix)
    assert file["type"] == export.media_type
    assert session.specimen.about.leucocyte_count == 6.4


def test_cells_that_nobody_looked_at_teach_nothing(session: Session):
    export = next(export for export in EXPORTS if export.key == "cells")
    with pytest.raises(WbcError, match="no counted cell is reviewed"):
        make_file(session, export, DEFAULT_RANGES, name="", leucocytes="", reviewer="")


def test_large_pictures_are_shown_smaller_and_kept_small(predictor: Predictor):
    session = Session(predictor)
    pixels = np.asarray(Image.fromarray(paint_field([4] * 8, seed=21).image).resize((2560, 1920)))
    session.read(Upload(pixels, "large.png"), is_field=True)
    assert session.view.picture.size == (2560, 1920)
    assert len(session.view.picture.preview) < 600_000
    assert 'viewBox="0 0 2560 1920"' in render_views(session, DEFAULT_RANGES, "")[1]


def test_a_missed_cell_is_as_sharp_as_those_that_were_found(predictor: Predictor):
    session = Session(predictor)
    pixels = np.asarray(Image.fromarray(paint_field([4] * 8, seed=21).image).resize((5120, 3840)))
    session.read(Upload(pixels, "large.png"), is_field=True)
    found, corner = session.view.cells_of_picture[0], "5115,3835"
    session.act("add", 1, corner)
    assert session.view.cell.pointed_at
    sizes = [Image.open(io.BytesIO(cell.image)).size for cell in (found, session.view.cell)]
    assert sizes[0] == sizes[1]
    # Where the field is not kept, out of its preview.
    session.act("undo", 0)
    session.full_pictures.clear()
    session.act("add", 1, corner)
    assert Image.open(io.BytesIO(session.view.cell.image)).size < sizes[0]


def test_a_cell_that_was_discarded_does_not_come_back_with_its_picture(session: Session):
    height = session.view.picture.size[1]
    session.act("add", 1, f"3,{height - 3}")
    added = session.view.cell.number
    for action in ("undo", "remove", "undo"):
        session.act(action, 1)
    assert session.specimen.cells[added - 1].state is CellState.REMOVED


def test_review_starts_with_a_cell_that_waits(session: Session):
    """Also where the first picture shows none: the card of a counted cell leads nowhere."""
    for cell in session.specimen.cells:
        if cell.picture == 1:
            set_prediction(session, cell.number, status="confident")
    session.show_picture(1)
    session.start_review()
    assert session.view.cell.number == waiting(session)[0]
    session.act("label", waiting(session)[0], "monocyte", "Ana")
    session.show_picture(1)
    session.start_review()
    assert session.view.picture.number == 1  # a person chose it


def test_reading_waits_for_the_turn_of_whose_specimen_it_is(
    predictor: Predictor, fields: list[Upload], monkeypatch: pytest.MonkeyPatch
):
    asked = []

    @contextmanager
    def turn(pixels: int, who: tuple[str, str]) -> Iterator[None]:
        asked.append((pixels, *who))
        yield

    monkeypatch.setattr(session_module, "current_visitor", lambda: ("ana", ""))
    monkeypatch.setattr(session_module, "turn", turn)
    session = Session(predictor)
    with ThreadPoolExecutor() as threads:
        threads.submit(session.read, fields[0], is_field=True).result()
    (answer,) = asked
    assert answer[0] > 100 * 100 and answer[1:] == ("ana", session.key)
