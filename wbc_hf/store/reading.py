"""Read one specimen from the tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, MappingResult, RowMapping, Table, select

from wbc_hf.errors import WbcError
from wbc_hf.smear import (
    About,
    Action,
    CellRecord,
    Contents,
    Event,
    KeptPicture,
    PictureRecord,
    PictureStore,
    SlideRecord,
)
from wbc_hf.store.tables import CELLS, EVENTS, PICTURES, SLIDES, SPECIMENS
from wbc_hf.store.work_list import State

_ABOUT = TypeAdapter(About)


@dataclass(frozen=True)
class KeptContents:
    """A specimen as it is kept.

    Attributes:
        revision: Number of changes.
        owner: Who began it.
        size: Bytes of its pictures.
        end: Where the next picture starts.
        contents: All that it holds.
    """

    revision: int
    owner: str
    size: int
    end: int
    contents: Contents


def read_specimen(connection: Connection, key: str, store: PictureStore) -> KeptContents:
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

    def rows(table: Table) -> Iterator[tuple[str, KeptPicture]]:
        for row in _rows(connection, table, key):
            yield row["record"], KeptPicture(store, row["start"], row["size"])

    try:
        slides, pictures, cells = (list(rows(table)) for table in (SLIDES, PICTURES, CELLS))
        end = max((small.start + small.size for _, small in (*slides, *pictures, *cells)), default=0)
        records = [(PictureRecord.model_validate_json(text), small) for text, small in pictures]
        contents = Contents(
            _ABOUT.validate_json(row["about"], strict=True),
            tuple(record.picture(small) for record, small in records),
            tuple(CellRecord.model_validate_json(text).cell(small) for text, small in cells),
            {record.number: removal for record, _ in records if (removal := record.removal()) is not None},
            tuple(_event(row) for row in _rows(connection, EVENTS, key)),
            tuple(SlideRecord.model_validate_json(text).slide(small) for text, small in slides),
        )
        State(row["state"])  # one that is not known here is refused now, not at the next act
        return KeptContents(row["revision"], row["owner"], row["bytes"], end, contents)
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
