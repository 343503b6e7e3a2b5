"""Keep specimens: begin, open, find and delete them."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

from sqlalchemy import Connection, delete, func, select

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity
from wbc_hf.store.database import ROOM, Database
from wbc_hf.store.kept_specimen import KeptSpecimen
from wbc_hf.store.postgresql import PostgresDatabase, is_address
from wbc_hf.store.reading import missing
from wbc_hf.store.sqlite import SqliteDatabase
from wbc_hf.store.tables import EVENTS, SPECIMENS
from wbc_hf.store.work_list import State, WorkItem, WorkList, find_work


class SpecimenStore:
    """Specimens in a folder or in a PostgreSQL database. Thread-safe, for several processes.

    In a folder lie a SQLite database and a file of pictures for each specimen; PostgreSQL holds the pictures as well,
    and serves several servers.

    Args:
        place: Folder of the store, made where it is missing; or `postgresql+psycopg://user@host/database`, whose
            password comes from the variable PGPASSWORD or ~/.pgpass.
        quota: Bytes of pictures that it may hold; None for as many as the disk takes.
        must_exist: Whether a place is refused in which no store was made yet.

    Attributes:
        database: What holds it.

    Raises:
        WbcError: It cannot be opened.
    """

    def __init__(self, place: Path | str, quota: int | None = None, *, must_exist: bool = False):
        self._quota = quota
        self.database: Database = (
            PostgresDatabase(str(place), must_exist) if is_address(place) else SqliteDatabase(Path(place), must_exist)
        )
        # One object for all who look at a specimen: what one does, the others see.
        self._open: WeakValueDictionary[str, KeptSpecimen] = WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What messages call it: the folder, or the address without options."""
        return self.database.name

    @property
    def reading_only(self) -> str:
        """Why nothing can be kept, a sentence; "" where it can."""
        return self.database.reading_only

    def begin(self, owner: str = "", model: ModelIdentity | None = None) -> KeptSpecimen:
        """A new, empty specimen. It is kept, and in the work list, from its first picture on.

        Args:
            owner: Who begins it.
            model: The model that predicts its cells.
        """
        specimen = KeptSpecimen(self.database, uuid4().hex, owner, self._check_room, model)
        with self._lock:
            self._open[specimen.key] = specimen
        return specimen

    def open(self, key: str) -> KeptSpecimen:
        """Open a specimen where it was; who has it open already shares it.

        Raises:
            WbcError: There is none, or what is kept of it is damaged.
        """
        with self._lock:
            specimen = self._open.get(key)
        if specimen is None:
            read = KeptSpecimen.read(self.database, key, self._check_room)
            with self._lock:
                specimen = self._open.setdefault(key, read)
        specimen.catch_up()
        return specimen

    def find(
        self,
        words: str = "",
        state: State | None = None,
        owner: str | None = None,
        unchanged_for: timedelta | None = None,
        first: int = 0,
        most: int = 50,
    ) -> WorkList:
        """Find specimens, see `find_work`; those that changed last come first."""
        since = None if unchanged_for is None else (datetime.now(UTC) - unchanged_for).isoformat()
        with self.database.reading() as connection:
            return find_work(connection, words, state, owner, since, first, most)

    def show(self, key: str) -> WorkItem:
        """The line of the work list of one specimen.

        Raises:
            WbcError: There is none.
        """
        with self.database.reading() as connection:
            return _line(connection, key)

    def all_keys(self) -> list[str]:
        """Of all specimens."""
        with self.database.reading() as connection:
            return list(connection.execute(select(SPECIMENS.c.key)).scalars())

    def __contains__(self, key: str) -> bool:
        with self.database.reading() as connection:
            return connection.execute(select(SPECIMENS.c.key).where(SPECIMENS.c.key == key)).first() is not None

    def delete(self, key: str, check: Callable[[WorkItem], None] = lambda _: None) -> None:
        """Delete a specimen: its pictures, cells and history. Whoever has it open can keep nothing more in it.

        Args:
            key: Of the specimen.
            check: Raises a WbcError where it may not be deleted. What it is asked about does not change meanwhile.

        Raises:
            WbcError: There is none, the store may not be written to, or from `check`.
        """
        with self.database.writing() as connection:
            connection.execute(select(SPECIMENS.c.key).where(SPECIMENS.c.key == key).with_for_update())
            check(_line(connection, key))
            connection.execute(delete(SPECIMENS).where(SPECIMENS.c.key == key))
        with self._lock:
            self._open.pop(key, None)
        self.database.forget(key)

    def used(self) -> int:
        """Bytes of all pictures."""
        with self.database.reading() as connection:
            return _used(connection)

    def tidy(self) -> int:
        """Remove pictures that no specimen has, as a killed process leaves them; say of how many."""
        return 0 if self.reading_only else self.database.tidy()

    def check(self) -> list[str]:
        """What is damaged or missing, a sentence for each; empty where all is well.

        Raises:
            WbcError: The database itself is damaged.
        """
        with self.database.reading() as connection:
            faults = self.database.missing_pictures(connection)
            events = connection.execute(
                select(EVENTS.c.specimen, func.count(), func.max(EVENTS.c.number)).group_by(EVENTS.c.specimen)
            )
            faults += [
                f"specimen {key}: its history has {count} of {last} events."
                for key, count, last in events
                if count != last
            ]
        return faults

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _check_room(self, connection: Connection, more: int) -> None:
        if self._quota is None:
            return
        self.database.lock(connection, ROOM)
        used = _used(connection)
        if used + more > self._quota:
            raise WbcError(
                f"The store holds {used / 1e9:.2f} GB of pictures, and may hold {self._quota / 1e9:.2f}. "
                "Delete specimens that are reported, or allow it more with --store-quota."
            )


def _line(connection: Connection, key: str) -> WorkItem:
    found = find_work(connection, key=key).items
    if not found:
        raise missing(key)
    return found[0]


def _used(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.sum(SPECIMENS.c.bytes), 0))).scalar_one())
