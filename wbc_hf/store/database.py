"""The database of a store: transactions, a schema that is brought up to date, and faults in words."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError

from wbc_hf.errors import WbcError
from wbc_hf.files import is_full_disk
from wbc_hf.store.pictures import SpecimenPictures

NEWEST = "0003"  # of the migrations; a test compares it with them
PATIENCE = 20  # seconds to wait for others who write
# Names of the locks that all who use the same database respect: any numbers that no other program takes. They are of
# changing the schema, and of adding pictures where a quota holds.
SCHEMA, ROOM = 0x77626301, 0x77626302


class Database(ABC):
    """A database in which whatever was acknowledged is on the disk. Thread-safe, for several processes.

    Args:
        name: What messages call it: without a password.
        must_exist: Whether one is refused in which no store was made yet.

    Attributes:
        name: As given.
        reading_only: Why nothing can be written, a sentence; "" where it can.

    Raises:
        WbcError: It cannot be opened, or is damaged.
    """

    # Options of a connection that is to write, and of one that is to read.
    to_write: ClassVar[dict[str, Any]] = {}
    to_read: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str, must_exist: bool = False):
        self.name, self.reading_only = name, ""
        self._engine = self._make_engine()
        try:
            self.reading_only = self._why_only_read()
            self._check_version(must_exist)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on the disk when the block has ended; an exception undoes it.

        Raises:
            WbcError: The store may not be written to, cannot be reached, is full or damaged.
        """
        if self.reading_only:
            raise WbcError(self.reading_only)
        with self._transaction(self.to_write) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment.

        Raises:
            WbcError: The store cannot be reached, or is damaged.
        """
        with self._transaction(self.to_read) as connection:
            yield connection

    @contextmanager
    def _transaction(self, options: dict[str, Any]) -> Iterator[Connection]:
        with self.faults_named(), self._engine.connect() as it, it.execution_options(**options).begin():
            yield it

    @abstractmethod
    def pictures_of(self, key: str) -> SpecimenPictures:
        """Where the pictures of a specimen lie."""

    @abstractmethod
    def missing_pictures(self, connection: Connection) -> list[str]:
        """Which pictures are missing, a sentence for each specimen."""

    @abstractmethod
    def read_pictures(self, connection: Connection, key: str) -> Iterator[tuple[int, bytes]]:
        """Yield the pictures of a specimen, and where each starts, in that order."""

    @abstractmethod
    def write_pictures(self, connection: Connection, key: str, pictures: Iterable[tuple[int, bytes]]) -> None:
        """Write what `read_pictures` yields, of a specimen that has none yet."""

    @abstractmethod
    def forget(self, key: str) -> None:
        """Remove what a deleted specimen left beside the tables."""

    @abstractmethod
    def tidy(self) -> int:
        """Remove what killed processes left, and say of how many specimens."""

    @abstractmethod
    def lock(self, connection: Connection, name: int) -> None:
        """Let nobody else do what `SCHEMA` or `ROOM` is the lock of until the end of the transaction."""

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def faults_named(self) -> Iterator[None]:
        """Say in a sentence what a fault of the database means; what is none of its faults goes through."""
        try:
            yield
        except IntegrityError as error:
            if str(error.orig).startswith("signed"):
                raise WbcError("This specimen is signed: it can only be amended.") from error
            # Not from the error, see below.
            raise WbcError(
                f"{self.name}: keeps another state of this specimen. Open it again from the work list."
            ) from None
        except TimeoutError as error:
            raise WbcError(f"{self.name}: this store is busy. Try again.") from error
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise WbcError(f"{self.name}: this store is full: nothing more can be kept.") from error
        except Exception as error:
            said = self.describe_fault(error.orig if isinstance(error, DBAPIError) and error.orig else error)
            if not said:
                raise
            # Not from the error: it may hold what was to be written, or how the database was reached.
            raise WbcError(f"{self.name}: this store {said}.") from None

    @abstractmethod
    def describe_fault(self, error: BaseException) -> str:
        """What a fault of the driver means, to follow "this store"; "" where nobody knows."""

    @abstractmethod
    def _make_engine(self) -> Engine: ...

    @abstractmethod
    def _why_only_read(self) -> str:
        """Why nothing can be written, as `reading_only`."""

    def _check_version(self, must_exist: bool) -> None:
        found = self._version()
        if found == NEWEST:
            return
        if found is None and must_exist:
            raise WbcError(f"{self.name}: is no store, since it is empty. A page makes one: wbc-hf serve --store.")
        if found is not None and found > NEWEST:
            self.reading_only = (
                f"{self.name}: was written by a newer version of this program (schema {found}; this one knows "
                f"{NEWEST}). It can be read as far as possible, and is not written to: update with "
                "`pip install -U wbc-hf`."
            )
            return
        with self.writing() as connection:
            self.lock(connection, SCHEMA)
            _migrate(connection)

    def _version(self) -> str | None:
        with self.reading() as connection:
            tables = set(inspect(connection).get_table_names())
            if not tables:
                return None
            ours = {"alembic_version", "specimen"} <= tables
            row = connection.execute(text("SELECT version_num FROM alembic_version")).first() if ours else None
        if row is None:
            raise WbcError(f"{self.name}: holds tables of another program. Give the store a database of its own.")
        return str(row[0])


def _migrate(connection: Connection) -> None:
    """Bring the schema up to date, in the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "wbc_hf:store/migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, NEWEST)
