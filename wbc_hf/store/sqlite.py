"""A store in a folder: a SQLite database, and a file of pictures for each specimen beside it."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, create_engine, event, func, select, union, union_all
from sqlalchemy.pool import QueuePool

from wbc_hf.errors import WbcError
from wbc_hf.files import make_folder
from wbc_hf.smear import KeptPicture
from wbc_hf.store.database import PATIENCE, Database
from wbc_hf.store.pictures import SpecimenPictures
from wbc_hf.store.tables import CELLS, PICTURES, SLIDES, SPECIMENS

FILE, IMAGES = "store.db", "images"
_SUFFIX = ".pictures"
_ORPHAN_AGE = 3600  # seconds after which a file that no specimen has is removed
# What SQLite says, and what that means to whoever reads it.
_FAULTS = {
    "database or disk is full": "is full: nothing more can be kept. What was kept before can be read",
    "disk I/O error": "cannot be written or read (the disk reports an error). Look at the disk before anything else",
    "readonly database": "may not be written to, only read. Allow the user who runs this to write there",
    "unable to open database file": "cannot be opened. Allow the user who runs this to read and write there",
    "malformed": "is damaged. Keep it as it is, and restore a backup into another folder (`wbc-hf store restore`)",
    "not a database": "is damaged: it holds no database. Restore a backup (`wbc-hf store restore`)",
    "database is locked": f"was in use elsewhere for {PATIENCE} seconds. Try again",
}


class SqliteDatabase(Database):
    """A SQLite database with a write-ahead log.

    Args:
        folder: Where it lies; made where it is missing.
        must_exist: Whether a folder is refused in which no store was made yet.

    Raises:
        WbcError: It cannot be opened, or is damaged.
    """

    to_write: ClassVar[dict[str, Any]] = {"to_write": True}

    def __init__(self, folder: Path, must_exist: bool = False):
        self._folder, self._images = folder, folder / IMAGES
        file = folder / FILE
        if must_exist and not file.is_file():
            raise WbcError(f"{folder}: is no store, since it has no {FILE}. A page makes one: wbc-hf serve --store.")
        if not folder.is_dir():
            make_folder(folder, "Name another folder with --store.")
            folder.chmod(0o700)  # it will say of whom the specimens are
        self._writable = os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))
        super().__init__(str(folder), must_exist)
        if not self.reading_only:
            make_folder(self._images, "Name another folder with --store.")

    def pictures_of(self, key: str) -> SpecimenPictures:
        """The file of a specimen."""
        return SpecimenPictures(self.file_of(key))

    def file_of(self, key: str) -> Path:
        """Where the pictures of a specimen lie."""
        return self._images / f"{key}{_SUFFIX}"

    def missing_pictures(self, connection: Connection) -> list[str]:
        """Which files are shorter than what is said of them."""
        faults = []
        ends = union_all(
            *(select(it.c.specimen, (it.c.start + it.c.size).label("end")) for it in (SLIDES, PICTURES, CELLS))
        ).subquery()
        query = select(ends.c.specimen, func.max(ends.c.end)).group_by(ends.c.specimen)
        for key, end in connection.execute(query):
            file = self.file_of(key)
            size = file.stat().st_size if file.exists() else 0
            if size < end:
                faults.append(f"{file}: has {size} bytes of {end}, so that pictures are missing.")
        return faults

    def read_pictures(self, connection: Connection, key: str) -> Iterator[tuple[int, bytes]]:
        """Read the pictures that rows name, out of the file of a specimen."""
        places = union(
            *(select(it.c.start, it.c.size).where(it.c.specimen == key) for it in (SLIDES, PICTURES, CELLS))
        )
        pictures = self.pictures_of(key)
        for start, size in connection.execute(places.order_by("start")):
            yield start, KeptPicture(pictures, start, size).read()

    def write_pictures(self, connection: Connection, key: str, pictures: Iterable[tuple[int, bytes]]) -> None:
        """Write the file of a specimen, and flush it to the disk."""
        with self.faults_named(), self.file_of(key).open("xb") as file:
            for start, content in pictures:
                file.seek(start)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def forget(self, key: str) -> None:
        """Remove the file of a specimen, and empty the write-ahead log, which holds its rows until then."""
        self.file_of(key).unlink(missing_ok=True)
        with self.faults_named(), self._engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def tidy(self) -> int:
        """Remove files that no specimen has."""
        with self.reading() as connection:
            known = set(connection.execute(select(SPECIMENS.c.key)).scalars())
        removed = 0
        for file in self._images.glob(f"*{_SUFFIX}"):
            if file.stem not in known and time.time() - file.stat().st_mtime > _ORPHAN_AGE:
                file.unlink(missing_ok=True)
                removed += 1
        return removed

    def copy_to(self, path: Path) -> None:
        """Copy the database as it is at one moment, while others write.

        Raises:
            WbcError: It is damaged, or the disk is full.
        """
        with self.faults_named(), self._engine.connect() as connection:
            source: Any = connection.connection.dbapi_connection
            target = sqlite3.connect(path)
            try:
                source.backup(target)
                found = target.execute("PRAGMA integrity_check").fetchone()[0]
                target.execute("PRAGMA journal_mode=DELETE")
            finally:
                target.close()
        if found != "ok":
            raise WbcError(f"{self.name}: is damaged ({found}), and was not copied. Use an earlier backup.")

    def lock(self, connection: Connection, name: int) -> None:
        """Whoever writes is alone anyway."""

    def describe_fault(self, error: BaseException) -> str:
        """What SQLite's words mean."""
        if not isinstance(error, sqlite3.DatabaseError):
            return ""
        return next((meaning for words, meaning in _FAULTS.items() if words in str(error)), "")

    def _make_engine(self) -> Engine:
        mode = "rwc" if self._writable else "ro"
        uri = f"file:{(self._folder / FILE).absolute().as_posix()}?mode={mode}"
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=PATIENCE, check_same_thread=False),
            hide_parameters=True,  # what is kept stands in no error
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
            if self._writable:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # Whoever will write says so at once: two who read first and then write would wait for each other.
            to_write = connection.get_execution_options().get("to_write", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if to_write else "BEGIN")

        return engine

    def _why_only_read(self) -> str:
        if self._writable:
            return ""
        return f"{self._folder}: may not be written to, only read. Allow the user who runs this to."
