"""The database of a store: opened within limits, with its schema brought up to date, and its faults in words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.pool import QueuePool

from wbc_hf.errors import WbcError
from wbc_hf.files import is_full_disk, make_folder

FILE = "store.db"
NEWEST = "0001"  # of the migrations; a test compares it with them
_PATIENCE = 20  # seconds to wait for others who write
_BUSY = "database is locked"
# What SQLite says, and what that means to whoever reads it.
_FAULTS = {
    "database or disk is full": "is full: nothing more can be kept. What was kept before can be read",
    "disk I/O error": "cannot be written or read (the disk reports an error). Look at the disk before anything else",
    "readonly database": "may not be written to, only read. Allow the user who runs this to write there",
    "unable to open database file": "cannot be opened. Allow the user who runs this to read and write there",
    "malformed": "is damaged. Keep it as it is, and restore a backup into another folder (`wbc-hf store restore`)",
    "not a database": "is damaged: it holds no database. Restore a backup (`wbc-hf store restore`)",
    _BUSY: f"was in use elsewhere for {_PATIENCE} seconds. Try again",
}


class Database:
    """A SQLite database with a write-ahead log, in which whatever was acknowledged is on the disk.

    Args:
        folder: Where it lies; made where it is missing.

    Attributes:
        folder: As given.
        reading_only: Why nothing can be written; "" where it can.

    Raises:
        WbcError: It cannot be opened, or is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.reading_only = ""
        if not folder.is_dir():
            make_folder(folder, "Name another folder with --store.")
            folder.chmod(0o700)  # it will say of whom the specimens are
        writable = os.access(folder, os.W_OK) and (not (folder / FILE).exists() or os.access(folder / FILE, os.W_OK))
        if not writable:
            self.reading_only = f"{folder}: may not be written to, only read. Allow the user who runs this to."
        self._engine = self._make_engine(writable)
        self._check_version()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on the disk when the block has ended; an exception undoes it.

        Raises:
            WbcError: The store may not be written to, is full or damaged.
        """
        if self.reading_only:
            raise WbcError(self.reading_only)
        with self._faults_named(), self._engine.connect().execution_options(to_write=True) as it, it.begin():
            yield it

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment.

        Raises:
            WbcError: The store is damaged.
        """
        with self._faults_named(), self._engine.connect() as connection, connection.begin():
            yield connection

    def copy_to(self, path: Path) -> None:
        """Copy the database as it is at one moment, while others write.

        Raises:
            WbcError: It is damaged, or the disk is full.
        """
        with self._faults_named(), self._engine.connect() as connection:
            source: Any = connection.connection.dbapi_connection
            target = sqlite3.connect(path)
            try:
                source.backup(target)
                found = target.execute("PRAGMA integrity_check").fetchone()[0]
                target.execute("PRAGMA journal_mode=DELETE")
            finally:
                target.close()
        if found != "ok":
            raise WbcError(f"{self.folder}: is damaged ({found}), and was not copied. Use an earlier backup.")

    def forget_deleted(self) -> None:
        """Empty the write-ahead log, which holds what was deleted until then."""
        with self._faults_named(), self._engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _make_engine(self, writable: bool) -> Engine:
        mode = "rwc" if writable else "ro"
        uri = f"file:{(self.folder / FILE).absolute().as_posix()}?mode={mode}"
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=_PATIENCE, check_same_thread=False),
            # One connection for each thread that asks at the moment, not one for all.
            poolclass=QueuePool,
            pool_size=16,
            max_overflow=64,
        )

        @event.listens_for(engine, "connect")
        def _connect(connection: Any, _: object) -> None:
            connection.isolation_level = None  # `begin` below says when transactions begin
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")
            if writable:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # Whoever will write says so at once: two who read first and then write would wait for each other.
            to_write = connection.get_execution_options().get("to_write", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if to_write else "BEGIN")

        return engine

    def _check_version(self) -> None:
        found = self._version()
        if found == NEWEST:
            return
        if found is not None and found > NEWEST:
            self.reading_only = (
                f"{self.folder}: was written by a newer version of this program (schema {found}; this one knows "
                f"{NEWEST}). It can be read as far as possible, and is not written to: update with "
                "`pip install -U wbc-hf`."
            )
            return
        if self.reading_only:
            raise WbcError(self.reading_only)
        with self._faults_named():
            _migrate(self._engine)

    def _version(self) -> str | None:
        with self.reading() as connection:
            known = connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")).first()
            row = connection.execute(text("SELECT version_num FROM alembic_version")).first() if known else None
        return None if row is None else str(row[0])

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            reason = str(error.orig)
            if reason.startswith("signed"):
                raise WbcError("This specimen is signed: it can only be amended.") from error
            raise
        except (DatabaseError, sqlite3.DatabaseError) as error:
            reason = str(getattr(error, "orig", None) or error)
            said = next((meaning for words, meaning in _FAULTS.items() if words in reason), None)
            if said is None:
                raise
            raise WbcError(f"{self.folder}: this store {said}.") from error
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise WbcError(f"{self.folder}: this store is full: nothing more can be kept.") from error


def _migrate(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "wbc_hf:store/migrations")
    with engine.connect().execution_options(to_write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
