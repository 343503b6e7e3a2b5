"""Write each change of a specimen into the store before it holds: what was acknowledged is on the disk."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import BaseModel
from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from wbc_hf.errors import WbcError
from wbc_hf.files import check_json
from wbc_hf.smear import (
    About,
    AboutRecord,
    CellRecord,
    CellState,
    Change,
    Event,
    KeptPicture,
    Picture,
    PictureRecord,
    Removal,
    SlideRecord,
)
from wbc_hf.store.database import Database
from wbc_hf.store.pictures import SpecimenPictures
from wbc_hf.store.reading import Contents
from wbc_hf.store.tables import CELLS, EVENTS, PICTURES, SLIDES, SPECIMENS
from wbc_hf.store.work_list import State, folded, state_after

# Is told within a transaction how many bytes are to come, and raises a WbcError where there is no room.
CheckRoom = Callable[[Connection, int], None]


class NotNewestError(WbcError):
    """Another process changed the specimen since it was read here."""


class SpecimenJournal:
    """The journal of one specimen, to be called for one change after the other.

    Args:
        database: Of the store.
        key: Of the specimen.
        owner: Who began it.
        pictures: Its pictures.
        check_room: See there.

    Attributes:
        revision: Number of changes that are known here; 0 where nothing is kept yet.
    """

    def __init__(self, database: Database, key: str, owner: str, pictures: SpecimenPictures, check_room: CheckRoom):
        self._database, self._key, self._owner, self._file = database, key, owner, pictures
        self._check_room = check_room
        self._forget()

    def _forget(self) -> None:
        self.revision = self._bytes = self._slides = 0
        self._state = State.NEW
        self._about = About()
        self._pictures: dict[int, Picture] = {}
        self._removals: dict[int, Removal] = {}
        self._states: dict[int, CellState] = {}
        self._counts: Counter[CellState] = Counter()

    def catch_up(self, kept: Contents) -> None:
        """Take note of what the store holds, in place of what was known."""
        self._forget()
        change = Change(tuple(kept.pictures), tuple(kept.cells), about=kept.about, slides=tuple(kept.slides))
        self._note(change, kept.removals, kept.state, kept.size)
        self.revision = kept.revision

    def __call__(self, change: Change) -> None:
        """Write a change, all of it or nothing.

        Raises:
            NotNewestError: Another process changed the specimen.
            WbcError: It cannot be written, or the specimen was deleted.
        """
        about = change.about or self._about
        small = [it.small for it in change.pictures if it.number not in self._pictures]
        small += [it.crop for it in change.cells if it.number not in self._states]
        small += [it.small for it in change.slides]
        # A specimen keeps its pictures before it tells its journal.
        fresh = [it for it in small if isinstance(it, KeptPicture)]
        size = sum(len(content) for content in fresh)
        known: dict[int, Removal | None] = {**self._removals, **change.removals}
        removals = {number: removal for number, removal in known.items() if removal is not None}
        state = State.SIGNED if about.signature is not None else state_after(self._state, change.events)
        if fresh:
            self._file.sync()
        row = _row(about, state, change, self._counts + self._more(change)) | {
            "pictures": len(self._pictures) + sum(it.number not in self._pictures for it in change.pictures),
            "cells": len(self._states) + sum(it.number not in self._states for it in change.cells),
            "bytes": self._bytes + size,
        }
        with self._database.writing() as connection:
            self._check_newest(connection)
            if fresh:
                self._check_room(connection, size)
            if state is not State.SIGNED:  # signing comes last, and amending first: what is signed takes nothing
                self._write_specimen(connection, row)
            if fresh:
                self._file.write(connection, fresh)
            if change.slides:
                numbered = enumerate(change.slides, self._slides + 1)
                rows = [self._record(SLIDES, number, SlideRecord.of(it), it.small) for number, it in numbered]
                connection.execute(insert(SLIDES), rows)
            self._write_pictures(connection, change, removals)
            rows = [self._record(CELLS, it.number, CellRecord.of(it), it.crop) for it in change.cells]
            _insert_or_replace(connection, CELLS, rows)
            if change.events:
                connection.execute(insert(EVENTS), [_event_row(self._key, event) for event in change.events])
            if state is State.SIGNED:
                self._write_specimen(connection, row)
        self._file.forget_written(fresh)
        self._note(change, removals, state, self._bytes + size)
        self.revision += 1

    def _more(self, change: Change) -> Counter[CellState]:
        """By how many cells more, or fewer, are in each state."""
        more: Counter[CellState] = Counter()
        for cell in change.cells:
            more[cell.state] += 1
            if (before := self._states.get(cell.number)) is not None:
                more[before] -= 1
        return more

    def _note(self, change: Change, removals: dict[int, Removal], state: State, size: int) -> None:
        self._counts.update(self._more(change))
        self._about = change.about or self._about
        self._pictures |= {picture.number: picture for picture in change.pictures}
        self._states |= {cell.number: cell.state for cell in change.cells}
        self._slides += len(change.slides)
        self._removals, self._state, self._bytes = removals, state, size

    def _check_newest(self, connection: Connection) -> None:
        """Check that nobody changed the specimen elsewhere, and let nobody do so until the end of the transaction."""
        query = select(SPECIMENS.c.revision).where(SPECIMENS.c.key == self._key).with_for_update()
        found = connection.execute(query).scalar_one_or_none()
        if found is None and self.revision == 0:
            return
        if found is None:
            raise WbcError("This specimen was deleted. What you did last was not kept.")
        if found != self.revision:
            raise NotNewestError("This specimen was changed elsewhere. What you did last was not kept.")

    def _write_specimen(self, connection: Connection, row: dict) -> None:
        if self.revision == 0:
            first = {"key": self._key, "owner": self._owner, "created": row["changed"], "revision": 1}
            connection.execute(insert(SPECIMENS).values(**row, **first))
            return
        known = SPECIMENS.c.key == self._key
        connection.execute(update(SPECIMENS).where(known).values(**row, revision=self.revision + 1))

    def _write_pictures(self, connection: Connection, change: Change, removals: dict[int, Removal]) -> None:
        known = self._pictures | {picture.number: picture for picture in change.pictures}
        numbers = {*change.removals, *(picture.number for picture in change.pictures)}
        rows = [
            self._record(PICTURES, number, PictureRecord.of(known[number], removals.get(number)), known[number].small)
            for number in sorted(numbers)
        ]
        _insert_or_replace(connection, PICTURES, rows)

    def _record(self, table: Table, number: int, record: BaseModel, small: bytes | KeptPicture) -> dict:
        """A row of a table of records, and where its picture lies."""
        assert isinstance(small, KeptPicture)  # a specimen keeps its pictures before it tells its journal
        text = _json(record, f"{table.name} {number}")
        return {"specimen": self._key, "number": number, "record": text, "start": small.start, "size": small.size}


def _insert_or_replace(connection: Connection, table: Table, rows: list[dict]) -> None:
    """Insert records; of those that are there, replace what may change."""
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table)
        replaced = {"record": statement.excluded.record}
        connection.execute(statement.on_conflict_do_update(index_elements=["specimen", "number"], set_=replaced), rows)


def _row(about: About, state: State, change: Change, counts: Counter[CellState]) -> dict:
    time = change.events[-1].time if change.events else datetime.now(UTC)
    return {
        "state": state.value,
        "changed": time.isoformat(timespec="microseconds"),
        "about": _json(AboutRecord.of(about), "this specimen"),
        "name": about.name,
        "signed_by": about.signature.name if about.signature else "",
        "search": folded(" ".join((about.name, about.patient, about.order, about.slide, about.comment))),
        "amended": about.amended,
        "counted": counts[CellState.COUNTED],
        "waiting": counts[CellState.WAITING],
    }


def _json(record: BaseModel, name: str) -> str:
    """A record without its picture, unless it is one that could not be read again."""
    text = record.model_dump_json(exclude={"preview", "image", "thumbnail"})
    check_json(text.encode(), type(record), name, "Nothing of that was kept.")
    return text


def _event_row(key: str, event: Event) -> dict:
    values = vars(event) | {"time": event.time.isoformat(timespec="microseconds"), "action": event.action.value}
    return {"specimen": key, **values}
