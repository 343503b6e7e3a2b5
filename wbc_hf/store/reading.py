"""Read one specimen from the tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import Connection, MappingResult, RowMapping, Table, select

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
        about, pictures, cells, removals, history, slides: As for `Specimen.load`.
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

    def rows(table: Table) -> Iterator[tuple[RowMapping, KeptPicture]]:
        for row in _rows(connection, table, key):
            yield row, KeptPicture(store, row["start"], row["size"])

    try:
        slides = [SlideRecord.model_validate_json(row["record"]).slide(small) for row, small in rows(SLIDES)]
        cells = [CellRecord.model_validate_json(row["record"]).cell(small) for row, small in rows(CELLS)]
        records = [(PictureRecord.model_validate_json(row["record"]), small) for row, small in rows(PICTURES)]
        pictures = [record.picture(small) for record, small in records]
        removals = {record.number: it for record, _ in records if (it := record.removal()) is not None}
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
            [_event(row) for row in _rows(connection, EVENTS, key)],
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


def _rows(connection: Connection, table: Table, key: str) -> MappingResult:
    """The rows of a specimen in a table, in order of their numbers."""
    query = select(table).where(table.c.specimen == key).order_by(table.c.number)
    return connection.execute(query).mappings()


def _event(row: RowMapping) -> Event:
    values = {name: value for name, value in row.items() if name != "specimen"}
    return Event(**values | {"time": datetime.fromisoformat(row["time"]), "action": Action(row["action"])})
