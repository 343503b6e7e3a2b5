"""Read one specimen from the tables."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import Connection, select

from wbc_hf.errors import WbcError
from wbc_hf.smear import (
    About,
    AboutRecord,
    Action,
    Cell,
    CellRecord,
    Event,
    KeptPicture,
    Picture,
    PictureRecord,
    PictureStore,
    Removal,
    SlideMap,
    SlideRecord,
)
from wbc_hf.store.tables import CELLS, EVENTS, PICTURES, SLIDES, SPECIMENS
from wbc_hf.store.work_list import State


@dataclass(frozen=True)
class Contents:
    """All that is kept of a specimen.

    Attributes:
        revision: Number of changes.
        state: How far it is.
        owner: Who began it.
        size: Bytes of its pictures.
        end: Where the next picture starts.
        about, pictures, cells, removals, history, slides: As for `Specimen.restore`.
    """

    revision: int
    state: State
    owner: str
    size: int
    end: int
    about: About
    pictures: list[Picture]
    cells: list[Cell]
    removals: dict[int, Removal]
    history: list[Event]
    slides: list[SlideMap]


def read_contents(connection: Connection, key: str, store: PictureStore) -> Contents:
    """Read a specimen.

    Args:
        connection: To the database, in a transaction that sees one moment.
        key: Of the specimen.
        store: Where its pictures lie.

    Raises:
        WbcError: There is none, or what is kept of it is damaged.
    """
    row = connection.execute(select(SPECIMENS).where(SPECIMENS.c.key == key)).mappings().first()
    if row is None:
        raise missing(key)
    try:
        pictures, removals = _read_pictures(connection, key, store)
        cells, slides = _read_cells(connection, key, store), _read_slides(connection, key, store)
        small = [it.small for it in pictures] + [it.crop for it in cells] + [it.small for it in slides]
        return Contents(
            row["revision"],
            State(row["state"]),
            row["owner"],
            row["bytes"],
            max((it.start + it.size for it in small if isinstance(it, KeptPicture)), default=0),
            AboutRecord.model_validate_json(row["about"]).about(),
            pictures,
            cells,
            removals,
            _read_events(connection, key),
            slides,
        )
    except (ValidationError, ValueError) as error:
        raise WbcError(
            f"specimen {key}: what is kept of it cannot be understood, since it is damaged or of a newer "
            "version. Nothing of it was changed."
        ) from error


def missing(key: str) -> WbcError:
    """The error of a specimen that is not there."""
    return WbcError(f"specimen {key[:40]}: is not in this store, or was deleted.")


def _read_slides(connection: Connection, key: str, store: PictureStore) -> list[SlideMap]:
    query = select(SLIDES).where(SLIDES.c.specimen == key).order_by(SLIDES.c.number)
    return [
        SlideRecord.model_validate_json(row["record"]).slide(KeptPicture(store, row["start"], row["size"]))
        for row in connection.execute(query).mappings()
    ]


def _read_pictures(connection: Connection, key: str, store: PictureStore) -> tuple[list[Picture], dict[int, Removal]]:
    pictures, removals = [], {}
    query = select(PICTURES).where(PICTURES.c.specimen == key).order_by(PICTURES.c.number)
    for row in connection.execute(query).mappings():
        record = PictureRecord.model_validate_json(row["record"])
        pictures.append(record.picture(KeptPicture(store, row["start"], row["size"])))
        if (removal := record.removal()) is not None:
            removals[record.number] = removal
    return pictures, removals


def _read_cells(connection: Connection, key: str, store: PictureStore) -> list[Cell]:
    query = select(CELLS).where(CELLS.c.specimen == key).order_by(CELLS.c.number)
    return [
        CellRecord.model_validate_json(row["record"]).cell(KeptPicture(store, row["start"], row["size"]))
        for row in connection.execute(query).mappings()
    ]


def _read_events(connection: Connection, key: str) -> list[Event]:
    query = select(EVENTS).where(EVENTS.c.specimen == key).order_by(EVENTS.c.number)
    return [
        Event(
            row["number"],
            datetime.fromisoformat(row["time"]),
            row["who"],
            Action(row["action"]),
            row["cell"],
            row["picture"],
            row["field"],
            row["before"],
            row["after"],
        )
        for row in connection.execute(query).mappings()
    ]
