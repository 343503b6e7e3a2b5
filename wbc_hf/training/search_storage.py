"""The database in which several processes share the trials of a search, and how they tell a trial that was killed."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.manifest import Manifest

BEAT_SECONDS = 15.0
# After this long without a beat a trial counts as killed.
PATIENCE_SECONDS = 120.0

_SQLITE, _POSTGRES = "sqlite", "postgresql+psycopg"
_ALLOWED = f"{_SQLITE}:///FILE, for processes of one machine, or {_POSTGRES}://USER@HOST/DATABASE"
_BUSY_SECONDS = 60  # to wait for others who write to SQLite
_CONNECT_SECONDS = 20
_ATTEMPTS = 5
_CLAIM = "arguments"  # attribute of the study: what its trials have in common
_BEAT = "beat"  # attribute of a trial: a number that grows while it is run
# Paths, which differ between machines: the fingerprint of the images tells whether they are the same.
_PATHS = ("dataset", "unlabelled", "left_out")


def connect(address: str) -> optuna.storages.RDBStorage:
    """Open the database of `--search_storage`, and make its tables if they are missing.

    Raises:
        WbcError: The address cannot be used, holds a password, or the database does not answer.
    """
    url = _parse(address)
    if url.drivername == _POSTGRES:
        with needs_extra("postgres"):
            import psycopg  # noqa: F401
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_SECONDS}}
    else:
        options = {"connect_args": {"timeout": _BUSY_SECONDS}}
    with faults_named():
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return optuna.storages.RDBStorage(str(url), engine_kwargs=options)
            except (SQLAlchemyError, StorageInternalError):
                # Two who come at the same moment make the same tables; the second finds them.
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(random.random() / 2)
            except RuntimeError as error:  # of another version of Optuna, which says what to do
                raise WbcError(f"--search_storage: {error}") from error
    raise AssertionError("unreachable")


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        # Without its words, which may be a part of a password.
        raise WbcError(f"--search_storage: is no address of a database. Give {_ALLOWED}.") from None
    if url.password is not None or any("password" in name for name in url.query):
        raise WbcError(
            "--search_storage: a password comes from the environment variable PGPASSWORD or from ~/.pgpass alone, and "
            "is never written. Leave it out of the address."
        )
    if url.drivername == "postgresql":
        url = url.set(drivername=_POSTGRES)
    if url.drivername not in (_SQLITE, _POSTGRES):
        raise WbcError(f"--search_storage {url.drivername}://…: is not one of {_ALLOWED}.")
    if not url.database or url.database == ":memory:":
        raise WbcError(
            f"--search_storage: names no {'file' if url.drivername == _SQLITE else 'database'}. {_ALLOWED}."
        )
    return url


@contextmanager
def faults_named() -> Iterator[None]:
    """Turn what a database says into a sentence.

    Raises:
        WbcError: It could not be reached, read or written.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
        raise WbcError(
            f"--search_storage: the database cannot be used ({reason}). When it can, the same command with --resume "
            "goes on; the trial of this process is run again."
        ) from error


def claim(study: optuna.Study, manifest: Manifest) -> None:
    """Note what the trials of a study have in common, or compare it with what was noted.

    Raises:
        WbcError: They are trials of other images or arguments, or of another program.
    """
    entries = {name: value for name, value in manifest.entries.items() if name not in _PATHS}
    recorded = study.user_attrs.get(_CLAIM)
    if recorded is None:
        if study.get_trials(deepcopy=False):
            raise WbcError(f"--search_study {study.study_name}: holds trials of another program. Give another name.")
        study.set_user_attr(_CLAIM, entries)
    elif changes := manifest.changes_from({name: recorded[name] for name in entries if name in recorded}):
        raise WbcError(
            f"--search_study {study.study_name}: its trials have other arguments than this command: "
            f"{'; '.join(changes)}. Give the same ones to join it, or another --search_study."
        )


@contextmanager
def beating(trial: optuna.Trial) -> Iterator[None]:
    """Tell the other processes that a trial is being run, as long as the block lasts."""
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(trial, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(trial: optuna.Trial, ended: threading.Event) -> None:
    beats = 0
    # A database that is away for a moment costs a beat, and no more.
    with suppress(UpdateFinishedTrialError):
        while not ended.wait(BEAT_SECONDS):
            beats += 1
            with suppress(SQLAlchemyError, StorageInternalError):
                trial.set_user_attr(_BEAT, beats)


class Watch:
    """Tells which trials are run by nobody any more.

    By the beats that arrive and the clock of this process alone: clocks of several machines differ.

    Args:
        patience: Seconds without a beat; 0 where no other process can be running trials.
    """

    def __init__(self, patience: float):
        self._patience = patience
        self._seen: dict[int, tuple[int | None, float]] = {}

    def silent(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Of trials in the state of running, list those that have been silent for so long."""
        now = time.monotonic()
        for trial in running:
            beat = trial.user_attrs.get(_BEAT)
            if trial.number not in self._seen or self._seen[trial.number][0] != beat:
                self._seen[trial.number] = (beat, now)
        return [trial for trial in running if now - self._seen[trial.number][1] >= self._patience]
