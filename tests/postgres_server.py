"""A PostgreSQL server of a test's own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_USER = "postgres"


@contextmanager
def running_postgres(password: str | None = None) -> Iterator[str]:
    """Start a server on a free port of this machine, with an empty database; yield its URL, and remove all at the end.

    Skips the test where Debian's package `postgresql` is not installed.

    Args:
        password: What the server asks for, which the URL does not hold; None lets everybody on this machine in.
    """
    programs = _programs()
    root = Path(tempfile.mkdtemp(prefix="wbc_hf-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(root, _USER)  # the server refuses to run as root
        words = ["--username", _USER, "--auth-local=trust", "--no-sync"]
        if password is None:
            words.append("--auth-host=trust")
        else:
            (root / "password").write_text(password)
            words += ["--auth-host=scram-sha-256", f"--pwfile={root / 'password'}"]
        data = root / "data"
        _run(programs / "initdb", "--pgdata", data, *words)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off"
        _run(programs / "pg_ctl", "--pgdata", data, "--wait", "--log", root / "log", "--options", settings, "start")
        try:
            yield f"postgresql+psycopg://{_USER}@127.0.0.1:{port}/{_USER}"
        finally:
            _run(programs / "pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _programs() -> Path:
    """The folder of the newest version's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("needs PostgreSQL (Debian's package postgresql)")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("needs runuser: PostgreSQL does not run as root")
    return found[-1].parent


def _run(*words: object) -> None:
    as_user = ["runuser", "--user", _USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_user, *map(str, words)], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
