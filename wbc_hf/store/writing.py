"""Write a change of one specimen into the tables."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import postgresql, sqlite

from wbc_hf.files import check_json
from wbc_hf.smear import CellRecord, CellState, Change, Contents, Event, KeptPicture, PictureRecord, SlideRecord
from wbc_hf.store.tables import CELLS, EVENTS, PICTURES, SLIDES
from wbc_hf.store.work_list import State, folded, state_after


def row_after(newest: dict[str, Any], change: Change, before: Contents, after: Contents) -> dict[str, Any]:
    """What the row of a specimen says after a change.

    Args:
        newest: What it said before; empty of a new specimen.
        change: The change.
        before: What the specimen held before.
        after: What it holds then.

    Raises:
        WbcError: It could not be read again.
    """
    about, time = after.about, change.events[-1].time if change.events else datetime.now(UTC)
    earlier = state_after(State(newest.get("state", State.NEW)), change.events)
    cells = Counter(cell.state for cell in after.cells)
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
        "counted": cells[CellState.COUNTED],
        "waiting": cells[CellState.WAITING],
        "bytes": newest.get("bytes", 0) + sum(map(len, change.new_pictures(before))),
    }


def write_parts(connection: Connection, key: str, change: Change, before: Contents, after: Contents) -> None:
    """Write what a change brings of slides, pictures, cells and history.

    Args:
        connection: To the database, in a transaction.
        key: Of the specimen, whose row is there and not signed.
        change: The change.
        before: What the specimen held before.
        after: What it holds then.

    Raises:
        WbcError: It could not be read again.
    """

    def row(table: Table, number: int, record: object, small: bytes | KeptPicture) -> dict[str, Any]:
        """A record, and where its picture lies."""
        assert isinstance(small, KeptPicture)  # a specimen keeps its pictures before it tells anybody
        text = _json(record, f"{table.name} {number}")
        return {"specimen": key, "number": number, "record": text, "start": small.start, "size": small.size}

    numbered = enumerate(change.slides, len(before.slides) + 1)
    slides = [row(SLIDES, number, SlideRecord.of(it), it.small) for number, it in numbered]
    changed = sorted({*change.removals, *(it.number for it in change.pictures)})
    pictures = [
        row(PICTURES, it.number, PictureRecord.of(it, after.removals.get(it.number)), it.small)
        for it in (after.pictures[number - 1] for number in changed)
    ]
    cells = [row(CELLS, it.number, CellRecord.of(it), it.crop) for it in change.cells]
    for table, rows in ((PICTURES, pictures), (CELLS, cells)):
        _insert_or_replace(connection, table, rows)
    for table, rows in ((SLIDES, slides), (EVENTS, [_event_row(key, event) for event in change.events])):
        if rows:
            connection.execute(insert(table), rows)


def _insert_or_replace(connection: Connection, table: Table, rows: list[dict]) -> None:
    """Insert records; of those that are there, replace what may change."""
    if rows:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table)
        replaced = {"record": statement.excluded.record}
        connection.execute(statement.on_conflict_do_update(index_elements=["specimen", "number"], set_=replaced), rows)


def _json(record: object, name: str) -> str:
    """A record, unless it is one that could not be read again."""
    text = to_json(record)
    check_json(text, type(record), name, "Nothing of that was kept.")
    return text.decode()


def _event_row(key: str, event: Event) -> dict:
    values = vars(event) | {"time": event.time.isoformat(timespec="microseconds"), "action": event.action.value}
    return {"specimen": key, **values}
