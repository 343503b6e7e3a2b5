"""A store in a PostgreSQL database, pictures included, for several servers."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, insert, make_url, select, text
from sqlalchemy.exc import ArgumentError

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.inference import batches
from wbc_hf.store.database import PATIENCE, Database
from wbc_hf.store.pictures import DatabasePictures
from wbc_hf.store.tables import CELLS, CONTENTS, PICTURES, SLIDES

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")
_SECRETS = ("password", "sslpassword", "passfile")
_SESSION = text(
    f"SELECT set_config('lock_timeout', '{PATIENCE}s', false),"
    " set_config('idle_in_transaction_session_timeout', '300s', false),"
    # Where an administrator gave up that a commit is on the disk, the store does not.
    " set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
    " ELSE current_setting('synchronous_commit') END, false)"
).text
_UNREACHABLE = (
    "cannot be reached{reason}. Look whether the server runs, and whether host, user, password (PGPASSWORD or "
    "~/.pgpass) and database are right"
)
_AT_ONCE = 64  # pictures that are copied together
_BUSY = f"was in use elsewhere for {PATIENCE} seconds. Try again"
# Beginnings of SQLSTATE, longer ones first, and what they mean to whoever reads them.
_FAULTS = {
    "25006": "may not be written to, only read: its server is a standby, or set so",
    "42501": "may not be written to. Let the user of the URL own the database, or grant them its tables",
    "57014": "took longer than its server allows (statement_timeout). Try again, or let its administrator allow more",
    "25P03": "was left waiting for longer than its server allows (idle_in_transaction_session_timeout). Try again",
    "53200": "has no memory left on its server. Try again, or let its administrator look there",
    "54000": "cannot take so much at once, says its server. Try again with fewer pictures",
    "53100": "is full: nothing more can be kept. What was kept before can be read",
    "53300": "has no connection left. Allow its server more (max_connections), or stop what is not needed",
    "55P03": _BUSY,
    "40": _BUSY,
    "42P01": "is damaged: a table is missing. Restore a backup into another database",
    "22P05": "cannot hold a character of that text. Take it out, and try again",
    "22021": "cannot hold a character of that text. Take it out, and try again",
    "XX": "is damaged, says its server. Keep it as it is, and restore a backup into another database",
    "58": "cannot be written or read (its server reports an error of the disk). Look there before anything else",
    "08": _UNREACHABLE,
    "28": _UNREACHABLE,
    "3D": _UNREACHABLE,
    "57P": _UNREACHABLE,
}


def is_address(place: object) -> bool:
    """Whether a store is named by an address, also a mistyped one, and not by a folder."""
    return isinstance(place, str) and "://" in place


def parse_address(address: str) -> URL:
    """Parse `postgresql+psycopg://user@host/database`.

    Raises:
        WbcError: It is none, is of another kind of database, names no database, or holds a password.
    """
    if address.partition("://")[0] not in _SCHEMES:
        # The address is not named: it may hold a password.
        raise WbcError(
            "--store: is neither a folder nor an address of PostgreSQL. Write the folder without ://, or "
            "postgresql+psycopg://user@host/database, small letters first."
        )
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise WbcError("--store: is no address such as postgresql+psycopg://user@host/database.") from error
    if url.password is not None or any(name in url.query for name in _SECRETS):
        raise WbcError(
            "--store: holds a password, which everybody on the machine can read among its processes. Leave it out, "
            "and set the variable PGPASSWORD or write ~/.pgpass."
        )
    if not url.database:
        raise WbcError(f"{_name(url)}: names no database. Write postgresql+psycopg://user@host/database.")
    return url.set(drivername="postgresql+psycopg")


class PostgresDatabase(Database):
    """A PostgreSQL database, of its own for the store.

    Args:
        address: See `parse_address`. The password comes from PGPASSWORD or ~/.pgpass, as for any client.
        must_exist: Whether a database is refused in which no store was made yet.

    Raises:
        WbcError: It cannot be reached, or is not in UTF-8.
    """

    # Whatever the server's default is: `FOR UPDATE` then finds the newest revision, on which an act is done again.
    to_write: ClassVar[dict[str, Any]] = {"isolation_level": "READ COMMITTED"}
    to_read: ClassVar[dict[str, Any]] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def __init__(self, address: str, must_exist: bool = False):
        self._url = parse_address(address)
        with needs_extra("postgres"):
            import psycopg
        self._psycopg = psycopg
        super().__init__(_name(self._url), must_exist)

    def pictures_of(self, key: str) -> DatabasePictures:
        """The rows of a specimen."""
        return DatabasePictures(self, key)

    def missing_pictures(self, connection: Connection) -> list[str]:
        """Of which specimens pictures are missing, or have another size than is said of them."""
        found: dict[str, int] = {}
        for table in (SLIDES, PICTURES, CELLS):
            here = (CONTENTS.c.specimen == table.c.specimen) & (CONTENTS.c.start == table.c.start)
            lost = func.coalesce(func.octet_length(CONTENTS.c.data), -1) != table.c.size
            query = select(table.c.specimen, func.count()).outerjoin_from(table, CONTENTS, here).where(lost)
            for key, count in connection.execute(query.group_by(table.c.specimen)):
                found[key] = found.get(key, 0) + count
        return [f"specimen {key}: {count} of its pictures are missing." for key, count in found.items()]

    def read_pictures(self, connection: Connection, key: str) -> Iterator[tuple[int, bytes]]:
        """Read the pictures of a specimen, some at a time."""
        query = select(CONTENTS.c.start, CONTENTS.c.data).where(CONTENTS.c.specimen == key).order_by(CONTENTS.c.start)
        for start, content in connection.execute(query.execution_options(yield_per=_AT_ONCE)):
            yield start, bytes(content)

    def write_pictures(self, connection: Connection, key: str, pictures: Iterable[tuple[int, bytes]]) -> None:
        """Write pictures of a specimen, some at a time."""
        for some in batches(({"specimen": key, "start": start, "data": it} for start, it in pictures), _AT_ONCE):
            connection.execute(insert(CONTENTS), some)

    def forget(self, key: str) -> None:
        """Nothing is left beside the tables; the server frees the space of the rows (VACUUM)."""

    def tidy(self) -> int:
        """A killed process leaves nothing: its transaction is undone."""
        return 0

    def lock(self, connection: Connection, name: int) -> None:
        """Wait for others who hold it."""
        connection.execute(select(func.pg_advisory_xact_lock(name)))

    def describe_fault(self, error: BaseException) -> str:
        """What the state that the server gave, or its absence, means."""
        if not isinstance(error, self._psycopg.Error):
            return ""
        if isinstance(error, self._psycopg.DataError) and "NUL" in str(error):
            return _FAULTS["22021"]
        # Without a state the server did not answer. What libpq says of that never holds the password.
        state = error.sqlstate or ("08" if isinstance(error, self._psycopg.OperationalError) else "none")
        said = next((meaning for start, meaning in _FAULTS.items() if state.startswith(start)), "")
        reason = str(error).strip().partition("\n")[0]
        return said.format(reason=f" ({reason})" if reason else "")

    def _make_engine(self) -> Engine:
        engine = create_engine(
            self._url,
            connect_args={"connect_timeout": 10, "application_name": "wbc_hf", "client_encoding": "utf8"},
            hide_parameters=True,  # what is kept stands in no error
            pool_pre_ping=True,  # a server that was started again is found
            pool_size=8,
            max_overflow=8,  # of a hundred that a server allows by itself, shared by several
            pool_timeout=PATIENCE,
        )

        @event.listens_for(engine, "connect")
        def _connect(connection: Any, _: object) -> None:
            connection.autocommit = True
            connection.execute(_SESSION)
            connection.autocommit = False

        return engine

    def _why_only_read(self) -> str:
        query = text(
            "SELECT current_setting('server_encoding'),"
            " pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',"
            " coalesce(has_table_privilege(to_regclass('specimen'), 'INSERT'), true)"
        )
        with self.reading() as connection:
            encoding, standby, granted = connection.execute(query).one()
        if encoding != "UTF8":
            raise WbcError(
                f"{self.name}: is in {encoding}, and not every name can be written there. Make a database in UTF-8: "
                "createdb --encoding UTF8 --template template0."
            )
        if standby or not granted:
            return f"{self.name}: this store {_FAULTS['25006' if standby else '42501']}."
        return ""


def _name(url: URL) -> str:
    """An address without password and options."""
    place = f"{url.host or 'local'}{f':{url.port}' if url.port else ''}"
    return f"postgresql://{f'{url.username}@' if url.username else ''}{place}/{url.database or ''}"
