"""A PostgreSQL server of a test run's own: on this machine's loopback, in a temporary folder, gone with the run."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

USER, PASSWORD = "wbc_hf", "not-to-be-shown"
# Debian keeps them out of the path.
_FOLDERS = [str(it) for it in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
_PATH = os.pathsep.join([*_FOLDERS, os.environ.get("PATH", "")])


def why_none() -> str:
    """Why no server can be started here; "" where one can."""
    missing = [name for name in ("initdb", "postgres", "psql") if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"{missing[0]} of PostgreSQL is not installed (Debian: postgresql)"
    if os.geteuid() == 0 and _owner() is None:
        return "PostgreSQL does not run as root, and there is neither a user postgres nor nobody"
    return ""


class PostgresServer:
    """A server that runs, with a user who may make databases.

    Attributes:
        port: At 127.0.0.1.
    """

    def __init__(self, port: int):
        self.port = port
        self._store = ""

    def new_database(self, options: str = "") -> str:
        """Make an empty database; its address."""
        name = f"test_{uuid4().hex}"
        self.run(f"CREATE DATABASE {name} {options}")
        return self.address(name)

    def empty_store(self) -> str:
        """The address of a database with the tables of an empty store, the same each time: making one takes longer."""
        from wbc_hf.store import SpecimenStore
        from wbc_hf.store.database import NEWEST

        if not self._store:
            self._store = self.new_database()
            SpecimenStore(self._store).close()
        empty = f"DELETE FROM specimen; UPDATE alembic_version SET version_num = '{NEWEST}'"
        self.run(empty, self._store.rpartition("/")[2])
        return self._store

    def address(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> str:
        """Let psql run statements, and return what it printed.

        Raises:
            subprocess.CalledProcessError: With what the server said in `stderr`.
        """
        words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)]
        words += ["-U", USER, "-d", database, "-c", statement]
        variables = os.environ | {"PATH": _PATH, "PGPASSWORD": PASSWORD}
        return subprocess.run(words, env=variables, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def serve_postgresql() -> Iterator[PostgresServer]:
    """Run a server for the duration of the block; its password is in PGPASSWORD meanwhile.

    It sorts as people do (ICU), not by bytes. Nothing is flushed to the disk: what is killed here is never the server.
    """
    folder = Path(tempfile.mkdtemp(prefix="wbc_hf-postgresql-"))
    before = os.environ.get("PGPASSWORD")
    process = None
    try:
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        for path in (folder, secret):
            if (owner := _owner()) is not None:
                os.chown(path, owner, -1)
        data = folder / "data"
        words = ["initdb", "-D", str(data), "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        words += ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=de"]
        _start(words, folder / "initdb.log").wait()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 300,
        }
        words = ["postgres", "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
        process = _start(words, folder / "server.log")
        os.environ["PGPASSWORD"] = PASSWORD
        server = PostgresServer(port)
        _wait_for(server, process, folder)
        yield server
    finally:
        if before is None:
            os.environ.pop("PGPASSWORD", None)
        else:
            os.environ["PGPASSWORD"] = before
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is needed
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> int | None:
    """The user to run as; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {it.pw_name: it.pw_uid for it in pwd.getpwall()}
    return known.get("postgres", known.get("nobody"))


def _start(words: list[str], log: Path) -> subprocess.Popen:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"PATH": _PATH}
    with log.open("w") as file:
        return subprocess.Popen(words, env=variables, cwd=log.parent, user=_owner(), stdout=file, stderr=file)


def _wait_for(server: PostgresServer, process: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.run("SELECT 1")
            return
        except subprocess.CalledProcessError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("".join(log.read_text() for log in folder.glob("*.log"))) from error
            time.sleep(0.05)
