"""Write each change of a specimen into the store before it holds: what was acknowledged is on the disk."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from wbc_hf.errors import WbcError
from wbc_hf.files import check_json
from wbc_hf.smear import (
    CellRecord,
    CellState,
    Change,
    Contents,
    Event,
    KeptPicture,
    PictureRecord,
    SlideRecord,
)
from wbc_hf.store.database import Database
from wbc_hf.store.pictures import SpecimenPictures
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
        self.revision = 0

    def __call__(self, change: Change, before: Contents) -> None:
        """Write a change, all of it or nothing.

        Raises:
            NotNewestError: Another process changed the specimen.
            WbcError: It cannot be written, or the specimen was deleted.
        """
        # A specimen keeps its pictures before it tells its journal.
        fresh = [it for it in change.new_pictures(before) if isinstance(it, KeptPicture)]
        size = sum(map(len, fresh))
        after = change.made_to(before)
        if fresh:
            self._file.sync()
        with self._database.writing() as connection:
            newest = self._newest(connection)
            if fresh:
                self._check_room(connection, size)
            row = _row(newest, change, before, after) | {"bytes": newest.get("bytes", 0) + size}
            if row["state"] != State.SIGNED:  # signing comes last, and amending first: what is signed takes nothing
                self._write_specimen(connection, row)
            if fresh:
                self._file.write(connection, fresh)
            if change.slides:
                numbered = enumerate(change.slides, len(before.slides) + 1)
                rows = [self._record(SLIDES, number, SlideRecord.of(it), it.small) for number, it in numbered]
                connection.execute(insert(SLIDES), rows)
            rows = []
            for number in sorted({*change.removals, *(it.number for it in change.pictures)}):
                picture = after.pictures[number - 1]
                record = PictureRecord.of(picture, after.removals.get(number))
                rows.append(self._record(PICTURES, number, record, picture.small))
            _insert_or_replace(connection, PICTURES, rows)
            rows = [self._record(CELLS, it.number, CellRecord.of(it), it.crop) for it in change.cells]
            _insert_or_replace(connection, CELLS, rows)
            if change.events:
                connection.execute(insert(EVENTS), [_event_row(self._key, event) for event in change.events])
            if row["state"] == State.SIGNED:
                self._write_specimen(connection, row)
        self._file.forget_written(fresh)
        self.revision += 1

    def _newest(self, connection: Connection) -> dict[str, Any]:
        """The row of the specimen, empty of a new one, which nobody else changes until the end of the transaction.

        Raises:
            NotNewestError: Somebody changed the specimen elsewhere.
        """
        query = select(SPECIMENS).where(SPECIMENS.c.key == self._key).with_for_update()
        found = connection.execute(query).mappings().first()
        if found is None and self.revision:
            raise WbcError("This specimen was deleted. What you did last was not kept.")
        if found is not None and found["revision"] != self.revision:
            raise NotNewestError("This specimen was changed elsewhere. What you did last was not kept.")
        return dict(found or {})

    def _write_specimen(self, connection: Connection, row: dict) -> None:
        if self.revision == 0:
            first = {"key": self._key, "owner": self._owner, "created": row["changed"], "revision": 1}
            connection.execute(insert(SPECIMENS).values(**row, **first))
            return
        known = SPECIMENS.c.key == self._key
        connection.execute(update(SPECIMENS).where(known).values(**row, revision=self.revision + 1))

    def _record(self, table: Table, number: int, record: object, small: bytes | KeptPicture) -> dict:
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


def _row(newest: dict[str, Any], change: Change, before: Contents, after: Contents) -> dict[str, Any]:
    """What the row of a specimen says after a change, without the bytes of its pictures."""
    about, time = after.about, change.events[-1].time if change.events else datetime.now(UTC)
    earlier = state_after(State(newest.get("state", State.NEW)), change.events)
    more = Counter(cell.state for cell in change.cells)
    more.subtract(before.cells[it.number - 1].state for it in change.cells if it.number <= len(before.cells))
    return {
        "state": (earlier if about.signature is None else State.SIGNED).value,
        "changed": time.isoformat(timespec="microseconds"),
        "about": _json(about, "this specimen"),
        "name": about.name,
        "signed_by": about.signature.name if about.signature else "",
        "search": folded(" ".join((about.name, about.patient, about.order, about.slide, about.comment))),
        "amended": about.amended,
        "pictures": len(after.pictures),
        "cells": len(after.cells),
        "counted": newest.get("counted", 0) + more[CellState.COUNTED],
        "waiting": newest.get("waiting", 0) + more[CellState.WAITING],
    }


def _json(record: object, name: str) -> str:
    """A record, unless it is one that could not be read again."""
    text = to_json(record)
    check_json(text, type(record), name, "Nothing of that was kept.")
    return text.decode()


def _event_row(key: str, event: Event) -> dict:
    values = vars(event) | {"time": event.time.isoformat(timespec="microseconds"), "action": event.action.value}
    return {"specimen": key, **values}
