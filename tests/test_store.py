"""The store of specimens: what was acknowledged lasts, what is signed stays, what is deleted is gone."""

import contextlib
import json
import multiprocessing
import os
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.kept_specimens import MODEL, add_field, add_slide, fill, fill_from_slide, new_cell, slides_of
from wbc_hf.errors import WbcError
from wbc_hf.smear import DEFAULT_RANGES, Action, Signature, Specimen, describe_snapshot, load_document
from wbc_hf.store import SpecimenStore, State, back_up, restore
from wbc_hf.store.database import FILE, NEWEST
from wbc_hf.store.tables import METADATA


@pytest.fixture
def store(tmp_path: Path) -> SpecimenStore:
    return SpecimenStore(tmp_path / "specimens")


def again(store: SpecimenStore) -> SpecimenStore:
    """The store as another process finds it."""
    return SpecimenStore(store.folder)


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
    about = replace(specimen.about, signature=Signature(name, datetime.now(UTC)))
    specimen.append(Action.SIGNED, name, about=about)


# ---- keeping


def test_a_specimen_is_kept_from_its_first_picture_on(store: SpecimenStore):
    specimen = store.begin("ana")
    specimen.name = "S 17"
    assert store.find().total == 0 and not list(store.folder.glob("images/*"))
    add_field(specimen, new_cell())
    kept = again(store).open(specimen.key)
    assert (kept.name, [it.action for it in kept.history]) == ("S 17", [Action.DESCRIBED, Action.READ])


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
    assert store.find().total == 0 and not list(store.folder.glob("images/*"))
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
    assert specimen.removals
    loaded, second = store.begin(), store.begin()
    document = describe_snapshot(specimen.snapshot(MODEL, DEFAULT_RANGES), pictures=True)
    load_document(json.dumps(document).encode(), "s.json", loaded)
    second.load_unread(specimen, "key")
    for kept in (loaded, second):
        reopened = again(store).open(kept.key)
        assert contents(reopened) == contents(kept)
        assert reopened.removals == specimen.removals
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


def test_two_processes_never_write_over_each_other(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell())
    other = again(store).open(specimen.key)
    other.review(1, "basophil", "Ben")
    with pytest.raises(WbcError, match="changed or deleted elsewhere"):
        specimen.review(1, "monocyte", "Ana")
    assert specimen.cells[0].review is None
    fresh = store.open(specimen.key)
    assert fresh is not specimen and fresh.cells[0].label == "basophil"
    fresh.review(1, "monocyte", "Ana")
    assert [it.who for it in fresh.history if it.action == Action.REVIEWED] == ["Ben", "Ana"]


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


# ---- the work list


def test_the_work_list_says_how_far_a_specimen_is(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(), new_cell(status="review"), new_cell(cut=True))
    (item,) = store.find().items
    assert (item.state, item.pictures, item.cells, item.counted, item.waiting) == (State.NEW, 1, 3, 1, 1)
    specimen.name = "S 17"
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
    assert names(words="17 äb") == names(words="100%") == names(owner="ana") == ["S 17"]
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

    about = replace(specimen.about, signature=None, amended=1)
    specimen.append(Action.AMENDED, "Dr. Roe", about=about, after="wrong slide")
    specimen.review(1, "basophil", "Dr. Roe")
    kept = again(store)
    assert kept.find().items[0].state == State.IN_REVIEW
    assert [it.action for it in kept.open(specimen.key).history][-3:] == [
        Action.SIGNED,
        Action.AMENDED,
        Action.REVIEWED,
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET who = 'x'",
        "DELETE FROM event",
        "UPDATE cell SET record = '{}'",
        "DELETE FROM cell",
        "DELETE FROM slide",
        "UPDATE specimen SET name = 'x'",
    ],
)
def test_the_database_itself_refuses_to_change_what_is_signed(store: SpecimenStore, statement: str):
    specimen = store.begin()
    add_slide(specimen)
    add_field(specimen, new_cell())
    sign(specimen)
    with sqlite3.connect(store.folder / FILE) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)


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
    assert not list(store.folder.rglob(f"{specimen.key}*"))
    assert not [it for it in store.folder.rglob("*") if it.is_file() and b"UNMISTAKABLE" in it.read_bytes()]
    assert contents(again(store).open(other.key)) == contents(other)


def test_others_on_the_machine_do_not_read_a_store(store: SpecimenStore):
    assert store.folder.stat().st_mode & 0o077 == 0


def test_no_name_stands_in_a_file_name(store: SpecimenStore):
    specimen = store.begin()
    specimen.name = "Smith"
    add_field(specimen, new_cell(), name="Smith.jpg")
    assert not [it for it in store.folder.rglob("*") if "smith" in it.name.lower()]


def test_what_a_killed_process_left_is_removed(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell())
    old, new = (store.folder / "images" / f"{name}.pictures" for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert store.tidy() == 1
    assert not old.exists() and new.exists()
    assert specimen.cells[0].image


# ---- limits and faults


def test_a_quota_holds_and_reviews_go_on(tmp_path: Path):
    store = SpecimenStore(tmp_path / "store", quota=3000)
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
    with sqlite3.connect(store.folder / FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    newer = again(store)
    assert "newer version" in newer.reading_only
    opened = newer.open(specimen.key)
    assert contents(opened) == contents(specimen)
    with pytest.raises(WbcError, match="newer version"):
        opened.review(1, "monocyte")
    with pytest.raises(WbcError, match="newer version"):
        newer.delete(specimen.key)


def test_a_damaged_database_is_said_in_a_sentence(store: SpecimenStore):
    store.close()
    (store.folder / FILE).write_bytes(b"not a database at all, whatever it is" * 100)
    with pytest.raises(WbcError, match="is damaged: it holds no database"):
        again(store)


def test_what_is_whole_of_a_damaged_file_can_be_read(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, new_cell(seed=1))
    add_field(specimen, new_cell(seed=2))
    file = store.folder / "images" / f"{specimen.key}.pictures"
    os.truncate(file, file.stat().st_size - 10)
    opened = again(store).open(specimen.key)
    assert opened.cells[0].image == specimen.cells[0].image
    with pytest.raises(WbcError, match="is damaged, it ends within a picture"):
        assert opened.cells[1].image
    assert len(again(store).check()) == 1


def test_a_full_store_keeps_what_it_has(store: SpecimenStore):
    specimen = store.begin()
    add_field(specimen, *[new_cell(status="review")] * 20)
    store._database.close()
    original = store._database._engine.pool._creator

    def small() -> sqlite3.Connection:
        connection = original()
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        return connection

    store._database._engine.pool._creator = small

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
    with sqlite3.connect(store.folder / FILE) as connection:
        for table in METADATA.tables.values():
            found = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
            assert found == [column.name for column in table.columns]


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
    (store.folder / "images" / f"{specimen.key}.pictures").rename(tmp_path / "lost")
    with pytest.raises(WbcError, match="is missing, so that the store is damaged"):
        back_up(store, tmp_path / "another")
    with pytest.raises(WbcError, match="exists already"):
        restore(tmp_path / "backup", tmp_path / "restored")
    with pytest.raises(WbcError, match="is no backup of a store"):
        restore(tmp_path, tmp_path / "third")


# ---- kill -9


def review_for_ever(folder: Path, key: str, acknowledged: Connection) -> None:
    specimen = SpecimenStore(folder).open(key)
    number = len(specimen.history)
    while True:
        number += 1
        label = ("monocyte", "basophil", None)[number % 3]
        specimen.review(1 + number % len(specimen.cells), label, f"word {number}")
        acknowledged.send(number)


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path):
    folder = tmp_path / "specimens"
    first = SpecimenStore(folder)
    specimen = first.begin()
    add_field(specimen, *[new_cell(status="review")] * 10)
    key, moments, acknowledged = specimen.key, random.Random(5), set()
    first.close()
    for _ in range(5):
        ours, theirs = multiprocessing.Pipe()
        # A fork, since a process that imports all anew takes seconds.
        process = multiprocessing.get_context("fork").Process(target=review_for_ever, args=(folder, key, theirs))
        process.start()
        theirs.close()
        acknowledged |= {ours.recv() for _ in range(moments.randint(1, 20))}
        process.kill()
        with contextlib.suppress(EOFError):
            while True:
                acknowledged.add(ours.recv())
        process.join()
        store = SpecimenStore(folder)
        history = store.open(key).history
        assert [event.number for event in history] == list(range(1, len(history) + 1))
        said = [event.who for event in history if event.action == Action.REVIEWED]
        assert len(said) == len(set(said))
        assert {f"word {number}" for number in acknowledged} <= set(said)
        assert store.check() == []
        store.close()
