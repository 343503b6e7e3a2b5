"""The store of specimens: what was acknowledged lasts, what is signed stays, what is deleted is gone."""

import contextlib
import json
import multiprocessing
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from PIL import Image
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import event, inspect, text

from tests.adapted_models import build_tiny_model
from tests.conftest import SlideFile
from tests.kept_specimens import MODEL, add_field, add_slide, fill, fill_from_slide, new_cell, picture_bytes, slides_of
from tests.postgresql_server import PASSWORD, USER, PostgresServer
from wbc_hf.data import paint_field
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.smear import (
    DEFAULT_RANGES,
    Action,
    CellCounter,
    ChangedMeanwhileError,
    Picture,
    SlideField,
    Specimen,
    describe_snapshot,
    load_document,
    open_slide,
    read_pictures,
)
from wbc_hf.smear import amend as amend_specimen
from wbc_hf.smear import sign as sign_specimen
from wbc_hf.store import SpecimenStore, State, WorkItem, back_up, database, restore
from wbc_hf.store.database import NEWEST
from wbc_hf.store.sqlite import FILE, SqliteDatabase
from wbc_hf.store.tables import METADATA, POSTGRESQL_METADATA
from wbc_hf.web.specimen_html import make_thumbnails

PARTS = ("slide", "picture", "cell")
REST_OF_EVENT = "time, who, action, cell, picture, field, before, after"


@pytest.fixture
def folder_store(tmp_path: Path) -> SpecimenStore:
    """A store in a folder."""
    return SpecimenStore(tmp_path / "specimens")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SpecimenStore]:
    """A store in a folder, and one in a database."""
    place = tmp_path / "specimens"
    store = SpecimenStore(place if request.param == "sqlite" else request.getfixturevalue("postgresql").empty_store())
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder, and an empty database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").new_database()
    (tmp_path / "new").mkdir()
    return str(tmp_path / "new")


def in_folder(store: SpecimenStore) -> bool:
    return isinstance(store.database, SqliteDatabase)


def again(store: SpecimenStore) -> SpecimenStore:
    """The store as another process finds it."""
    return SpecimenStore(store.name)


def connect_to(name: str) -> sqlite3.Connection | psycopg.Connection:
    """Connect as a program would that knows nothing of this one."""
    return psycopg.connect(name.replace("+psycopg", "")) if "://" in name else sqlite3.connect(Path(name) / FILE)


def run_sql(store: SpecimenStore, statement: str) -> list[str]:
    """Run a statement as a program would that knows nothing of this one. Returns the faults it was refused with."""
    with contextlib.closing(connect_to(store.name)) as connection:
        try:
            connection.execute(statement)
        except (sqlite3.IntegrityError, psycopg.errors.IntegrityError) as error:
            return [str(error)]
        connection.commit()
    return []


def contents(specimen: Specimen) -> tuple:
    hidden = ("small", "crop")
    return (
        specimen.about,
        [{k: v for k, v in vars(it).items() if k not in hidden} | {"bytes": it.preview} for it in specimen.pictures],
        [{k: v for k, v in vars(it).items() if k not in hidden} | {"bytes": it.image} for it in specimen.cells],
        specimen.history,
        slides_of(specimen),
    )


def sign(specimen: Specimen, name: str = "Dr. Roe") -> None:
    sign_specimen(specimen, [], name)


def at_once(*acts: Callable[[], object]) -> list[str]:
    """Let threads act at one moment; the errors of those who were refused, "" for others."""
    ready = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> str:
        ready.wait()
        try:
            act()
        except WbcError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


# ---- keeping


def test_a_specimen_is_kept_from_its_first_picture_on(store: SpecimenStore):
    specimen = store.begin("ana")
    specimen.describe(name="S 17")
    assert store.find().total == store.used() == 0
    add_field(specimen, new_cell())
    kept = again(store).open(specimen.key)
    assert (kept.about.name, [it.action for it in kept.history]) == ("S 17", [Action.DESCRIBED, Action.READ])


def test_a_specimen_is_reopened_where_it_was(store: SpecimenStore):
    specimen = store.begin("ana")
    fill(specimen)
    opened = again(store).open(specimen.key)
    assert contents(opened) == contents(specimen)
    assert opened.owner == "ana"
    opened.put_back(2, "Ana")
    opened.review(2, "lymphocyte", "Cy")
    assert contents(again(store).open(specimen.key)) == contents(opened)


def test_a_specimen_read_from_slides_keeps_its_places_and_maps(store: SpecimenStore):
    specimen = store.begin("ana")
    first = add_slide(specimen, "first.ndpi")
    assert store.find().total == store.used() == 0
    second = fill_from_slide(specimen)
    item = again(store).show(specimen.key)
    opened = again(store).open(specimen.key)
    assert contents(opened) == contents(specimen)
    assert [it.name for it in opened.slides] == [first.name, second.name]
    assert [it.place and it.place.x for it in opened.pictures] == [None, 900, 1540]
    assert opened.size == specimen.size == store.used()
    add_slide(opened, "third.svs")
    assert contents(again(store).open(specimen.key)) == contents(opened)
    assert (item.pictures, item.state) == (3, State.IN_REVIEW)


def test_a_specimen_of_which_a_picture_was_taken_out_is_loaded_into_a_store(store: SpecimenStore):
    specimen = Specimen()
    fill(specimen)
    assert specimen.contents.removals
    loaded, second = store.begin(), store.begin()
    document = describe_snapshot(specimen.snapshot(MODEL, DEFAULT_RANGES), pictures=True)
    load_document(json.dumps(document).encode(), "s.json", loaded)
    second.load_unread(specimen, "key")
    for kept in (loaded, second):
        reopened = again(store).open(kept.key)
        assert contents(reopened) == contents(kept)
        assert reopened.contents.removals == specimen.contents.removals
        reopened.put_back(2)


def test_nothing_is_kept_that_could_not_be_read_again(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(1, "review"))
    with pytest.raises(WbcError, match=r"^cell 1: review\.reviewer is .*at most 70000 characters"):
        specimen.review(1, "monocyte", "n" * 70_001)
    with pytest.raises(WbcError, match=r"^picture 2: name is "):
        add_field(specimen, name="n" * 70_001)
    specimen.review(1, "monocyte", "Ana")
    assert contents(again(store).open(specimen.key)) == contents(specimen)


def test_a_slide_alone_is_no_review(store: SpecimenStore):
    specimen = store.begin()
    add_slide(specimen)
    add_field(specimen, new_cell())
    assert store.show(specimen.key).state is State.NEW


def test_whoever_has_a_specimen_open_shares_it(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell())
    assert store.open(specimen.key) is specimen


def test_two_processes_never_overrule_a_word_that_they_do_not_know(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell())
    other = again(store).open(specimen.key)
    other.review(1, "basophil", "Ben")
    specimen.review(2, "lymphocyte", "Ana")  # of another cell
    other.review(1, "eosinophil", "Ben")
    with pytest.raises(ChangedMeanwhileError, match="Ben: reviewed, cell 1, eosinophil"):
        specimen.review(1, "monocyte", "Ana")
    assert specimen.cells[0].label == "eosinophil"
    specimen.review(1, "monocyte", "Ana")
    assert store.open(specimen.key) is specimen
    said = [(it.who, it.after) for it in again(store).open(specimen.key).history if it.action == Action.REVIEWED]
    assert said == [("Ben", "basophil"), ("Ana", "lymphocyte"), ("Ben", "eosinophil"), ("Ana", "monocyte")]


def test_what_others_add_meanwhile_is_numbered_before(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(seed=1))
    other = again(store).open(specimen.key)
    add_field(other, new_cell(seed=2), name="his.jpg")
    add_field(specimen, new_cell(seed=3), name="hers.jpg")
    other.describe("Ben", patient="P-1")
    specimen.describe("Ana", order="O-2")
    for kept in (specimen, again(store).open(specimen.key)):
        assert [(it.number, it.name) for it in kept.pictures] == [(1, "field.jpg"), (2, "his.jpg"), (3, "hers.jpg")]
        assert [it.image for it in kept.cells] == [new_cell(seed=seed).image for seed in (1, 2, 3)]
        assert (kept.about.patient, kept.about.order) == ("P-1", "O-2")
    assert store.check() == [] and store.used() == specimen.size


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Not calibrated, so that every cell waits for review."""
    return Predictor(*build_tiny_model(), name="tiny")


def counters_of(store: SpecimenStore, servers: int, predictor: Predictor) -> list[CellCounter]:
    """Ana's and Ben's of one specimen, which has a picture."""
    specimen = store.begin()
    CellCounter(predictor, specimen).add_image(Image.new("RGB", (480, 360), "white"), "f1.jpg", whole_field=True)
    opened = [specimen, specimen if servers == 1 else again(store).open(specimen.key)]
    return [CellCounter(predictor, it) for it in opened]


@pytest.mark.parametrize("servers", [1, 2])
def test_a_cell_that_two_people_give_is_counted_once(store: SpecimenStore, servers: int, predictor: Predictor):
    ana, ben = counters_of(store, servers, predictor)
    field = Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=1).image)
    ana.add_image(field, "f5.jpg", whole_field=True)
    ben.add_image(field, "f5.jpg", whole_field=True)
    other = Image.fromarray(paint_field([1, 2, 3], width=480, height=360, seed=2).image)
    assert at_once(*(lambda it=it: it.add_image(other, "f6.jpg", whole_field=True) for it in (ana, ben))) == ["", ""]
    kept = again(store).open(ana.specimen.key)
    by_picture = [[cell for cell in kept.cells if cell.picture == number] for number in (2, 3, 4, 5)]
    for first, second in (by_picture[:2], by_picture[2:]):
        assert len(first) >= 3
        assert [it.duplicate_of for it in first] == [None] * len(first)
        assert [it.duplicate_of for it in second] == [it.number for it in first]


@pytest.mark.parametrize("servers", [1, 2])
def test_a_picture_is_compared_with_all_before_it(store: SpecimenStore, servers: int):
    specimen = store.begin()
    add_field(specimen, new_cell())
    other = specimen if servers == 1 else again(store).open(specimen.key)
    add_field(other, new_cell())
    with pytest.raises(ChangedMeanwhileError, match="others added pictures"):
        specimen.add_picture(Picture(0, "f5.jpg", (9, 9), True, picture_bytes("JPEG")), [], seen=1)
    added = specimen.add_picture(Picture(0, "f5.jpg", (9, 9), True, picture_bytes("JPEG")), [], seen=2)
    assert added.number == len(again(store).open(specimen.key).pictures) == 3


@pytest.mark.parametrize("servers", [1, 2])
def test_a_field_of_a_slide_is_read_by_one_of_two(
    store: SpecimenStore, servers: int, predictor: Predictor, slide_file: SlideFile
):
    ana, ben = counters_of(store, servers, predictor)
    slide = open_slide(slide_file.path)
    for counter in (ana, ben):
        add_slide(counter.specimen, slide.name)
    first, second = (
        SlideField(slide, x // 600, (x, 400, x + 600, 800), (x, 400, x + 600, 800), 1.0, 0.25) for x in (600, 1200)
    )
    assert ana.add_slide_field(first).number == ben.add_slide_field(first).number == 2
    assert at_once(*(lambda it=it: it.add_slide_field(second) for it in (ana, ben))) == ["", ""]
    kept = again(store).open(ana.specimen.key)
    assert [it.place and it.place.x for it in kept.pictures] == [None, 600, 1200]
    assert len(kept.slides) == 1


def test_two_processes_never_overrule_a_field_or_a_cell_that_they_do_not_know(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell(pointed_at=True))
    other = again(store).open(specimen.key)
    other.describe("Ben", {"patient": ""}, patient="P-2")
    with pytest.raises(ChangedMeanwhileError, match="patient: was changed meanwhile"):
        specimen.describe("Ana", {"patient": ""}, patient="P-1")
    specimen.describe("Ana", {"order": ""}, order="O-1")
    other.review(2, "basophil", "Ben")
    with pytest.raises(ChangedMeanwhileError, match="Ben: reviewed, cell 2, basophil"):
        specimen.discard(2, "Ana", {2: None})
    kept = again(store).open(specimen.key)
    assert (kept.about.patient, kept.about.order) == ("P-2", "O-1")
    assert kept.cells[1].label == "basophil" and not kept.cells[1].removed


def test_many_readers_at_once(store: SpecimenStore):
    specimens = [store.begin() for _ in range(5)]
    for specimen in specimens:
        add_field(specimen, *[new_cell(status="review")] * 20)

    def review(number: int) -> None:
        for specimen in specimens:
            opened = store.open(specimen.key)
            assert opened is specimen
            opened.review(number, "monocyte", f"reader {number}")

    with ThreadPoolExecutor(10) as readers:
        list(readers.map(review, range(1, 21)))
    for kept in map(again(store).open, [it.key for it in specimens]):
        assert all(cell.review and cell.reviewer == f"reader {cell.number}" for cell in kept.cells)
        assert [it.number for it in kept.history] == list(range(1, 22))


def test_two_servers_review_the_same_cells_of_one_specimen_at_once(store: SpecimenStore):
    """Each word is kept, and whoever comes second is told the other's."""
    specimen, cells = store.begin(), 8
    add_field(specimen, *[new_cell(status="review")] * cells)
    opened, told = {who: again(store).open(specimen.key) for who in ("Ana", "Ben")}, []

    def review(who: str) -> None:
        for number in range(1, cells + 1):
            try:
                opened[who].review_many({number: "monocyte"}, who, expected={number: None})
            except ChangedMeanwhileError as error:
                told.append((who, number, str(error)))
                opened[who].review(number, "monocyte", who)

    assert at_once(*(lambda who=who: review(who) for who in opened)) == ["", ""]
    kept = again(store).open(specimen.key)
    said = sorted((it.who, it.cell) for it in kept.history if it.action == Action.REVIEWED)
    assert said == [(who, number) for who in ("Ana", "Ben") for number in range(1, cells + 1)]
    assert [it.number for it in kept.history] == list(range(1, len(kept.history) + 1))
    assert sorted(number for _, number, _ in told) == list(range(1, cells + 1))
    assert all({"Ana": "Ben: reviewed", "Ben": "Ana: reviewed"}[who] in text for who, _, text in told)


# ---- the work list


def test_the_work_list_says_how_far_a_specimen_is(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell(status="review"), new_cell(cut=True))
    (item,) = store.find().items
    assert (item.state, item.pictures, item.cells, item.counted, item.waiting) == (State.NEW, 1, 3, 1, 1)
    specimen.describe(name="S 17")
    assert store.find().items[0].state == State.NEW
    specimen.review(2, "monocyte", "Ana")
    (item,) = store.find().items
    assert (item.name, item.state, item.counted, item.waiting) == ("S 17", State.IN_REVIEW, 2, 0)
    sign(specimen)
    (item,) = store.find().items
    assert (item.state, item.signed_by) == (State.SIGNED, "Dr. Roe")


def test_specimens_are_found_by_words_state_owner_and_age(store: SpecimenStore):
    for owner, values in (("ana", {"name": "S 17", "patient": "ÄB 100%"}), ("ben", {"name": "S 18", "order": "s 17"})):
        specimen = store.begin(owner)
        add_field(specimen, new_cell())
        specimen.describe(**values)
    names = lambda **query: [item.name for item in store.find(**query).items]  # noqa: E731
    assert names() == ["S 18", "S 17"]
    assert names(words="17") == ["S 18", "S 17"]
    assert names(words="17 äb") == names(words="ÄB") == names(words="100%") == names(owner="ana") == ["S 17"]
    assert names(words="10_%") == names(words="nobody") == names(state=State.SIGNED) == []
    assert names(unchanged_for=timedelta(days=1)) == []
    assert len(names(unchanged_for=timedelta(0))) == 2
    assert (names(first=1), store.find(most=1).total) == (["S 17"], 2)


# ---- signing


def test_a_signed_specimen_is_only_amended(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell())
    sign(specimen)
    before = contents(specimen)
    for kept in (specimen, again(store).open(specimen.key)):
        for change in (
            lambda kept=kept: kept.review(1, "basophil", "Ben"),
            lambda kept=kept: kept.withdraw(1),
            lambda kept=kept: kept.remove(1),
            lambda kept=kept: kept.describe(name="other"),
            lambda kept=kept: add_field(kept, new_cell()),
            lambda kept=kept: sign(kept, "Mallory"),
        ):
            with pytest.raises(WbcError, match="signed: it can only be amended"):
                change()
        assert contents(kept) == before

    amend_specimen(specimen, "Dr. Roe", "wrong slide")
    specimen.review(1, "basophil", "Dr. Roe")
    kept = again(store)
    assert kept.find().items[0].state == State.IN_REVIEW
    assert [it.action for it in kept.open(specimen.key).history][-3:] == [
        Action.SIGNED,
        Action.AMENDED,
        Action.REVIEWED,
    ]


def test_of_two_who_sign_or_amend_at_once_one_does(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell())
    for stores in ([store, store], [again(store), again(store)]):
        opened = [it.open(specimen.key) for it in stores]
        signed = at_once(*(lambda it=it: sign_specimen(it, [], "Dr. Roe") for it in opened))
        assert sorted(map(bool, signed)) == [False, True]
        assert "is signed" in "".join(signed) or "meanwhile: Dr. Roe: signed" in "".join(signed)
        amended = at_once(*(lambda it=it: amend_specimen(it, "Dr. Roe", "wrong slide") for it in opened))
        assert sorted(amended) == ["", "This specimen is not signed, and can be changed as it is."]
    kept = again(store).open(specimen.key)
    assert kept.about.amended == 2
    assert [it.action for it in kept.history if it.action != Action.READ] == [Action.SIGNED, Action.AMENDED] * 2


def test_what_changes_while_it_is_signed_is_not_signed(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell())
    seen = specimen.last_event
    again(store).open(specimen.key).review(2, "basophil", "Ben")
    with pytest.raises(ChangedMeanwhileError, match="Ben: reviewed, cell 2, basophil"):
        sign_specimen(specimen, [], "Dr. Roe", seen=seen)
    assert store.show(specimen.key).state is State.IN_REVIEW
    assert specimen.cells[1].label == "basophil"
    sign_specimen(specimen, [], "Dr. Roe")


def test_a_specimen_is_signed_and_reviewed_at_once(store: SpecimenStore):
    """Either the word comes first and is what is signed, or it is refused."""
    specimen = store.begin()
    add_field(specimen, new_cell())
    one, other = again(store).open(specimen.key), again(store).open(specimen.key)
    signed, reviewed = at_once(lambda: sign(one), lambda: other.review(1, "basophil", "Ben"))
    kept = again(store).open(specimen.key)
    actions = [it.action for it in kept.history][1:]
    expected = {
        ("", "is signed"): [Action.SIGNED],
        ("meanwhile", ""): [Action.REVIEWED],
        ("", ""): [Action.REVIEWED, Action.SIGNED],
    }
    (found,) = [it for (a, b), it in expected.items() if bool(a) == bool(signed) and bool(b) == bool(reviewed)]
    assert actions == found and "signed: it can only" in (reviewed or "signed: it can only")


def test_a_specimen_is_not_deleted_that_is_signed_meanwhile(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell())

    def check(item: WorkItem) -> None:
        if item.state is State.SIGNED:
            raise WbcError("Signed.")

    opened = again(store).open(specimen.key)
    deleted, signed = at_once(lambda: store.delete(specimen.key, check), lambda: sign(opened))
    assert (deleted == "Signed.") == (signed == "") == (specimen.key in store)


def test_a_quota_holds_for_two_at_once(store: SpecimenStore):
    stores = [SpecimenStore(store.name, quota=3000) for _ in range(2)]
    specimens = [it.begin() for it in stores]
    refused = at_once(*(lambda it=it: add_field(it, *[new_cell()] * 4) for it in specimens))
    assert sum("--store-quota" in it for it in refused) == 1 and refused.count("") == 1
    assert 0 < store.used() <= 3000


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET who = 'x'",
        "DELETE FROM event",
        f"INSERT INTO event SELECT specimen, number + 9, {REST_OF_EVENT} FROM event",
        "UPDATE cell SET record = '{}'",
        "UPDATE cell SET specimen = (SELECT key FROM specimen WHERE state = 'new')",
        "DELETE FROM cell",
        "DELETE FROM slide",
        "UPDATE specimen SET name = 'x' WHERE state = 'signed'",
        "UPDATE specimen SET amended = amended + 1, about = '{}' WHERE state = 'signed'",
        "UPDATE specimen SET amended = amended - 1, state = 'in review' WHERE state = 'signed'",
    ],
)
def test_the_database_itself_refuses_to_change_what_is_signed(store: SpecimenStore, statement: str):
    specimen = store.begin()
    add_slide(specimen)
    add_field(specimen, new_cell())
    sign(specimen)
    add_field(store.begin())
    before = contents(specimen)
    assert run_sql(store, statement)
    assert contents(again(store).open(specimen.key)) == before


def test_sqlite_replaces_no_history_either(folder_store: SpecimenStore):
    specimen = folder_store.begin()
    add_field(specimen, new_cell())
    for table in ("event", "specimen"):
        assert run_sql(folder_store, f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")


@pytest.mark.parametrize(
    "statement", ["TRUNCATE event", "TRUNCATE specimen CASCADE", "DELETE FROM content", "UPDATE content SET data = ''"]
)
def test_postgresql_keeps_history_and_pictures_whole(postgresql: PostgresServer, statement: str):
    store = SpecimenStore(postgresql.empty_store())
    specimen = store.begin()
    add_field(specimen, new_cell())
    sign(specimen)
    assert run_sql(store, statement)
    assert contents(again(store).open(specimen.key)) == contents(specimen)


# ---- deleting


def test_deleting_deletes(store: SpecimenStore):
    specimen = store.begin()
    fill(specimen)
    specimen.describe(comment="UNMISTAKABLE")
    other = store.begin()
    add_field(other, new_cell())
    sign(specimen)
    store.delete(specimen.key)

    assert [item.key for item in store.find().items] == [other.key]
    with pytest.raises(WbcError, match="is not in this store, or was deleted"):
        store.open(specimen.key)
    with pytest.raises(WbcError, match="can only be amended"):
        specimen.review(1, "monocyte")
    assert store.used() == other.size
    if in_folder(store):
        assert not list(Path(store.name).rglob(f"{specimen.key}*"))
        assert not [it for it in Path(store.name).rglob("*") if it.is_file() and b"UNMISTAKABLE" in it.read_bytes()]
    assert contents(again(store).open(other.key)) == contents(other)


def test_whoever_acts_on_what_was_deleted_elsewhere_is_told(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell())
    again(store).delete(specimen.key)
    for act in (lambda: specimen.review(1, "monocyte"), lambda: add_field(specimen), specimen.catch_up):
        with pytest.raises(WbcError, match="was deleted"):
            act()
    assert store.find().total == store.used() == 0


def test_others_on_the_machine_do_not_read_a_store(folder_store: SpecimenStore):
    assert Path(folder_store.name).stat().st_mode & 0o077 == 0


def test_no_name_stands_in_a_file_name(folder_store: SpecimenStore):
    specimen = folder_store.begin()
    specimen.describe(name="Smith")
    add_field(specimen, new_cell(), name="Smith.jpg")
    assert not [it for it in Path(folder_store.name).rglob("*") if "smith" in it.name.lower()]


def test_what_a_killed_process_left_is_removed(folder_store: SpecimenStore):
    store = folder_store
    specimen = store.begin()
    add_field(specimen, new_cell())
    old, new = (Path(store.name) / "images" / f"{name}.pictures" for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert store.tidy() == 1
    assert not old.exists() and new.exists()
    assert specimen.cells[0].image


# ---- limits and faults


def test_a_quota_holds_and_reviews_go_on(store: SpecimenStore):
    store = SpecimenStore(store.name, quota=3000)
    specimen = store.begin()
    add_field(specimen, new_cell())
    while store.used() < 2000:
        add_field(specimen, new_cell())
    with pytest.raises(WbcError, match="--store-quota"):
        add_field(specimen, *[new_cell()] * 5)
    assert store.used() <= 3000
    specimen.review(1, "monocyte", "Ana")
    assert contents(again(store).open(specimen.key)) == contents(specimen)


def test_a_store_of_a_newer_version_is_read_and_not_written(store: SpecimenStore):
    specimen = store.begin()
    fill(specimen)
    assert not run_sql(store, "UPDATE alembic_version SET version_num = '9999'")
    newer = again(store)
    assert "newer version" in newer.reading_only
    opened = newer.open(specimen.key)
    assert contents(opened) == contents(specimen)
    with pytest.raises(WbcError, match="newer version"):
        opened.review(1, "monocyte")
    with pytest.raises(WbcError, match="newer version"):
        newer.delete(specimen.key)


def test_a_damaged_database_is_said_in_a_sentence(folder_store: SpecimenStore):
    store = folder_store
    store.close()
    (Path(store.name) / FILE).write_bytes(b"not a database at all, whatever it is" * 100)
    with pytest.raises(WbcError, match="is damaged: it holds no database"):
        again(store)


def test_what_is_whole_of_a_damaged_file_can_be_read(folder_store: SpecimenStore):
    store = folder_store
    specimen = store.begin()
    add_field(specimen, new_cell(seed=1))
    add_field(specimen, new_cell(seed=2))
    file = Path(store.name) / "images" / f"{specimen.key}.pictures"
    os.truncate(file, file.stat().st_size - 10)
    opened = again(store).open(specimen.key)
    assert opened.cells[0].image == specimen.cells[0].image
    with pytest.raises(WbcError, match="is damaged, it ends within a picture"):
        assert opened.cells[1].image
    assert len(again(store).check()) == 1


def test_a_preview_and_a_thumbnail_that_are_missing_are_found(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen)
    add_slide(specimen)
    for kind in ("slide", "picture"):
        assert store.check() == []
        if in_folder(store):
            with contextlib.closing(connect_to(store.name)) as connection:
                (end,) = connection.execute(f"SELECT start + size FROM {kind}").fetchone()
            os.truncate(Path(store.name) / "images" / f"{specimen.key}.pictures", end - 1)
        else:
            assert not run_sql(store, f"DELETE FROM content WHERE start IN (SELECT start FROM {kind})")
        assert len(store.check()) == 1
        assert not run_sql(store, f"DELETE FROM {kind} WHERE specimen = '{specimen.key}'")


def test_a_rule_of_the_database_that_is_broken_is_said_in_a_sentence(store: SpecimenStore):
    add_field(store.begin())
    said = r"another state of this specimen\. Open it again from the work list\.$"
    with pytest.raises(WbcError, match=said), store.database.writing() as connection:
        connection.execute(text("UPDATE event SET who = 'x'"))


def test_a_full_store_keeps_what_it_has(folder_store: SpecimenStore):
    store = folder_store
    specimen = store.begin()
    add_field(specimen, *[new_cell(status="review")] * 20)
    store.database.close()
    original = store.database._engine.pool._creator

    def small() -> sqlite3.Connection:
        connection = original()
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        return connection

    store.database._engine.pool._creator = small

    def review_for_ever() -> None:
        while True:
            specimen.review(1, "monocyte", "Ana " * 200)

    with pytest.raises(WbcError, match="this store is full: nothing more can be kept"):
        review_for_ever()
    assert contents(again(store).open(specimen.key)) == contents(specimen)


# ---- migrations, backup


def test_the_newest_migration_is_the_one_that_is_expected():
    config = Config()
    config.set_main_option("script_location", "wbc_hf:store/migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [NEWEST]


def test_the_migrations_make_the_tables_that_the_program_knows(store: SpecimenStore):
    tables = [*METADATA.tables.values()]
    if not in_folder(store):
        tables += POSTGRESQL_METADATA.tables.values()
    with store.database.reading() as connection:
        for table in tables:
            found = {it["name"]: it["type"] for it in inspect(connection).get_columns(table.name)}
            assert list(found) == [column.name for column in table.columns]
            for column in table.columns:
                assert str(found[column.name]) == column.type.compile(connection.dialect), column


def test_two_servers_that_begin_at_once_make_one_schema(postgresql: PostgresServer):
    address = postgresql.new_database()
    assert at_once(*[lambda: SpecimenStore(address).close()] * 3) == ["", "", ""]


def test_a_store_of_the_first_schema_is_brought_up_to_date(folder_store: SpecimenStore):
    store = folder_store
    specimen = store.begin()
    fill(specimen)
    for name in ("event_not_replaced", "specimen_not_replaced", *(f"{it}_signed_moved" for it in PARTS)):
        assert not run_sql(store, f"DROP TRIGGER {name}")
    assert not run_sql(store, "UPDATE alembic_version SET version_num = '0001'")
    assert contents(again(store).open(specimen.key)) == contents(specimen)
    assert run_sql(store, "INSERT OR REPLACE INTO event SELECT * FROM event")


def test_a_store_of_the_second_schema_is_brought_up_to_date(new_place: str, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as older:
        older.setattr(database, "NEWEST", "0002")
        store = SpecimenStore(new_place)
    specimen = store.begin()
    fill(specimen)
    sign(specimen)
    statement = "UPDATE specimen SET amended = amended + 1"
    assert not run_sql(store, statement)
    assert not run_sql(store, "UPDATE specimen SET amended = amended - 1")
    opened = again(store).open(specimen.key)
    assert contents(opened) == contents(specimen)
    assert run_sql(store, statement)
    amend_specimen(opened, "Dr. Roe", "wrong slide")
    opened.review(1, "basophil", "Dr. Roe")


@pytest.mark.parametrize("table", ["specimen (key text)", "patient (name text)"])
def test_no_store_is_made_among_the_tables_of_another_program(new_place: str, table: str):
    with contextlib.closing(connect_to(new_place)) as connection:
        connection.execute(f"CREATE TABLE {table}")
        connection.commit()
        with pytest.raises(WbcError, match="tables of another program"):
            SpecimenStore(new_place)
        assert connection.execute(f"SELECT * FROM {table.split()[0]}").fetchall() == []


def test_a_store_that_must_exist_is_not_made(new_place: str):
    def refuse() -> None:
        with pytest.raises(WbcError, match=r"is no store.*wbc-hf serve --store"):
            SpecimenStore(new_place, must_exist=True)

    refuse()
    if "://" not in new_place:
        (Path(new_place) / FILE).touch()
        refuse()
    SpecimenStore(new_place).close()
    SpecimenStore(new_place, must_exist=True).close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux, to see which files are open")
def test_a_backup_that_was_refused_leaves_no_file_open(folder_store: SpecimenStore, tmp_path: Path):
    specimen = folder_store.begin()
    add_field(specimen, new_cell())
    (Path(folder_store.name) / "images" / f"{specimen.key}.pictures").unlink()
    with pytest.raises(WbcError, match="is damaged") as caught:
        back_up(folder_store, tmp_path / "backup")
    assert caught.tb  # what it holds stays
    links = [it for it in Path("/proc/self/fd").iterdir() if it.is_symlink()]
    assert not [it for it in links if ".backup." in os.readlink(it)]


def test_a_backup_is_made_while_others_write_and_can_be_restored(store: SpecimenStore, tmp_path: Path):
    specimen = store.begin()
    fill(specimen)
    done = threading.Event()

    def write() -> None:
        busy = store.begin()
        while not done.is_set():
            add_field(busy, new_cell())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert back_up(store, tmp_path / "backup") in (1, 2)
    finally:
        done.set()
        writer.join()
    restore(tmp_path / "backup", tmp_path / "restored")
    restored = SpecimenStore(tmp_path / "restored")
    assert contents(restored.open(specimen.key)) == contents(specimen)
    assert restored.check() == []
    (tmp_path / "backup" / "images" / f"{specimen.key}.pictures").write_bytes(b"cut")
    with pytest.raises(WbcError, match="was not copied, since it is damaged"):
        restore(tmp_path / "backup", tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists() and not list(tmp_path.glob(".*"))
    if in_folder(store):
        (Path(store.name) / "images" / f"{specimen.key}.pictures").rename(tmp_path / "lost")
        with pytest.raises(WbcError, match="is missing, so that the store is damaged"):
            back_up(store, tmp_path / "another")
    with pytest.raises(WbcError, match="exists already"):
        restore(tmp_path / "backup", tmp_path / "restored")
    with pytest.raises(WbcError, match="is no backup of a store"):
        restore(tmp_path, tmp_path / "third")


def test_a_folder_becomes_a_database_and_a_database_a_folder(
    folder_store: SpecimenStore, postgresql: PostgresServer, tmp_path: Path
):
    signed, other = folder_store.begin("ana"), folder_store.begin("ben")
    fill(signed)
    fill_from_slide(other)
    sign(signed)
    address = postgresql.empty_store()
    back_up(folder_store, tmp_path / "backup")
    before = {path: path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert restore(tmp_path / "backup", address) == 2
    assert {path: path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()} == before
    moved = SpecimenStore(address)
    assert moved.check() == [] and moved.find() == folder_store.find()
    assert back_up(moved, tmp_path / "back") == 2
    for store in (moved, SpecimenStore(tmp_path / "back")):
        for specimen in (signed, other):
            assert contents(store.open(specimen.key)) == contents(specimen)
        opened = store.open(other.key)
        add_field(opened, new_cell())
        assert contents(again(store).open(other.key)) == contents(opened)
        with pytest.raises(WbcError, match="can only be amended"):
            store.open(signed.key).review(1, "monocyte")
    with pytest.raises(WbcError, match=r"keeps specimens\. Name a new database"):
        restore(tmp_path / "backup", address)


# ---- a PostgreSQL server


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql+psycopg://{user}@127.0.0.1:1/db", "127.0.0.1:1/db: this store cannot be reached"),
        ("postgresql://{user}@127.0.0.1:{port}/nowhere", "cannot be reached.*nowhere"),
        ("postgresql://nobody@127.0.0.1:{port}/postgres", "cannot be reached.*password.*PGPASSWORD"),
        ("postgresql://{user}:hidden@127.0.0.1:{port}/postgres", "holds a password.*PGPASSWORD"),
        ("postgresql://{user}@127.0.0.1:{port}/postgres?password=hidden", "holds a password"),
        ("postgresql://{user}@127.0.0.1:{port}", "names no database"),
        ("postgresql://{user}@127.0.0.1:port/postgres", "is no address such as"),
    ],
)
def test_a_database_that_cannot_be_reached_is_said_in_a_sentence(postgresql: PostgresServer, address: str, said: str):
    with pytest.raises(WbcError, match=said) as caught:
        SpecimenStore(address.format(user=USER, port=postgresql.port))
    assert PASSWORD not in str(caught.value) and "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["postgresql+psycopg2://u:hidden@db/x", "PostgreSQL://u:hidden@db/x", "mysql://u:hidden@db/x", "u:hidden://db/x"],
)
def test_a_mistyped_address_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WbcError, match=r"neither a folder.*postgresql\+psycopg://user@host/database") as caught:
        SpecimenStore(address)
    assert "hidden" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_first_picture_of_which_the_acknowledgement_was_lost(postgresql: PostgresServer):
    store = SpecimenStore(postgresql.empty_store())
    specimen = store.begin()

    def break_after_commit(connection: SqlConnection) -> None:
        driver = connection.connection.dbapi_connection
        driver.commit()
        driver.close()

    event.listen(store.database._engine, "commit", break_after_commit, once=True)
    with pytest.raises(WbcError, match="cannot be reached"):
        add_field(specimen, new_cell(seed=1), name="first.jpg")
    add_field(specimen, new_cell(seed=2), name="second.jpg")
    for kept in (specimen, again(store).open(specimen.key)):
        assert [it.name for it in kept.pictures] == ["first.jpg", "second.jpg"]
        assert [it.image for it in kept.cells] == [new_cell(seed=seed).image for seed in (1, 2)]
    assert store.check() == []


def test_pictures_of_a_database_are_read_together(postgresql: PostgresServer):
    store, cells = SpecimenStore(postgresql.empty_store()), 70
    specimen = store.begin()
    crops = [picture_bytes("PNG", number, side=24) for number in range(cells)]
    for field in range(10):
        add_field(specimen, *(replace(new_cell(), crop=crop) for crop in crops[field * 7 : field * 7 + 7]))
    opened = again(store)
    kept = opened.open(specimen.key)
    page = SimpleNamespace(key="key", specimen=kept)
    predictor = Predictor(*build_tiny_model(), name="tiny")
    snapshot, begun = kept.snapshot(MODEL, DEFAULT_RANGES), []
    event.listen(opened.database._engine, "begin", begun.append)
    for act in (
        lambda: describe_snapshot(snapshot, pictures=True),
        lambda: Specimen().load_unread(kept, "key"),
        lambda: kept.predict_again(predictor),
        lambda: make_thumbnails(page, range(1, cells + 1)),
    ):
        act()
        assert 0 < len(begun) < 10
        begun.clear()
    assert list(read_pictures(it.crop for it in reversed(kept.cells))) == crops[::-1]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("57014", "took longer than its server allows"),
        ("25P03", "was left waiting"),
        ("53200", "has no memory left"),
        ("54000", "cannot take so much at once"),
    ],
)
def test_what_the_server_refuses_is_said_in_a_sentence(postgresql: PostgresServer, state: str, said: str):
    store = SpecimenStore(postgresql.empty_store())
    with pytest.raises(WbcError, match=f"this store {said}"), store.database.writing() as connection:
        connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"))


def test_a_default_of_the_server_makes_no_store_stricter(postgresql: PostgresServer):
    address = postgresql.new_database()
    name = address.rpartition("/")[2]
    postgresql.run(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    store = SpecimenStore(address)
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell())
    other = again(store).open(specimen.key)
    for_update = text("SELECT revision FROM specimen FOR UPDATE")
    with store.database.writing() as connection:
        connection.execute(text("SELECT 1"))  # from here on a stricter one sees one moment
        other.review(1, "basophil", "Ben")
        assert connection.execute(for_update).scalar_one() == 2
    store.close()


def test_a_database_that_is_only_read_says_so(postgresql: PostgresServer):
    address = postgresql.new_database()
    specimen = SpecimenStore(address).begin()
    add_field(specimen, new_cell())
    name = address.rpartition("/")[2]
    postgresql.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = SpecimenStore(address)
    assert "may not be written to, only read" in store.reading_only
    opened = store.open(specimen.key)
    assert opened.cells[0].image == specimen.cells[0].image
    with pytest.raises(WbcError, match="only read"):
        opened.review(1, "monocyte")
    # Of one that is open the server says it.
    specimen.review(1, "monocyte")
    postgresql.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(WbcError, match="only read"):
        specimen.review(1, "basophil")


def test_a_database_of_another_program_or_encoding_is_left_alone(postgresql: PostgresServer):
    latin = "ENCODING 'SQL_ASCII' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    with pytest.raises(WbcError, match=r"is in SQL_ASCII.*createdb"):
        SpecimenStore(postgresql.new_database(latin))
    address = postgresql.new_database()
    postgresql.run("CREATE TABLE alembic_version (version_num text)", address.rpartition("/")[2])
    with pytest.raises(WbcError, match="tables of another program"):
        SpecimenStore(address)


def test_a_character_that_postgresql_cannot_hold_is_said(postgresql: PostgresServer):
    store = SpecimenStore(postgresql.empty_store())
    specimen = store.begin()
    add_field(specimen, new_cell())
    with pytest.raises(WbcError, match="cannot hold a character"):
        specimen.review(1, "monocyte", "A\0na")
    specimen.review(1, "monocyte", "Ana")
    assert contents(again(store).open(specimen.key)) == contents(specimen)


# ---- kill -9


def review_for_ever(place: Path | str, key: str, acknowledged: Connection) -> None:
    specimen = SpecimenStore(place).open(key)
    number = len(specimen.history)
    while True:
        number += 1
        label = ("monocyte", "basophil", None)[number % 3]
        specimen.review(1 + number % len(specimen.cells), label, f"word {number}")
        acknowledged.send(number)


def test_what_was_acknowledged_survives_a_kill(store: SpecimenStore):
    place = store.name
    specimen = store.begin()
    add_field(specimen, *[new_cell(status="review")] * 10)
    key, moments, acknowledged = specimen.key, random.Random(5), set()
    store.close()
    for _ in range(5):
        ours, theirs = multiprocessing.Pipe()
        # A fork, since a process that imports all anew takes seconds.
        process = multiprocessing.get_context("fork").Process(target=review_for_ever, args=(place, key, theirs))
        process.start()
        theirs.close()
        acknowledged |= {ours.recv() for _ in range(moments.randint(1, 20))}
        process.kill()
        with contextlib.suppress(EOFError):
            while True:
                acknowledged.add(ours.recv())
        process.join()
        store = SpecimenStore(place)
        history = store.open(key).history
        assert [event.number for event in history] == list(range(1, len(history) + 1))
        said = [event.who for event in history if event.action == Action.REVIEWED]
        assert len(said) == len(set(said))
        assert {f"word {number}" for number in acknowledged} <= set(said)
        assert store.check() == []
        store.close()
