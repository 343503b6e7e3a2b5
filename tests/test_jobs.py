"""Resumable jobs on Ray Data: every row once, whoever is killed, and nothing mixed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wbc_hf.errors import WbcError
from wbc_hf.inference import Job, jobs, ray_session, run_as_actor

ROWS, AT_ONCE = 60, 10
SCHEMA = pa.schema([("word", pa.string())])
MESSAGES = {"model": "another model ({before}, this one is {now})"}


class Doubling:
    """Doubles words, and notes which; the first of its kind that meets `fatal` dies, or raises where it is `bad`."""

    def __init__(self, notes: str, fatal: str = "", bad: str = ""):
        self._notes, self._fatal, self._bad = Path(notes), fatal, bad

    def __call__(self, rows: pa.Table) -> pa.Table:
        words = rows["word"].to_pylist()
        died = self._notes / "died"
        if self._fatal in words and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._bad in words:
            # Others write what is done by then.
            deadline = time.monotonic() + 100
            while not committed(self._notes.parent / "out") and time.monotonic() < deadline:
                time.sleep(0.1)
            raise WbcError(f"{self._bad}: is no word. Give another.")
        for number in rows["number"].to_pylist():
            with (self._notes / str(number)).open("a") as file:
                file.write("x")
        return pa.table({"number": rows["number"], "twice": [2 * word for word in words]})


def committed(folder: Path) -> set[int]:
    """Numbers of the rows that a checkpoint says are written."""
    files = [file for file in (folder / ".work" / "checkpoints").glob("*.parquet") if ".pending" not in file.name]
    return {number for file in files for number in pq.read_table(file)["number"].to_pylist()}


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    with ray_session():
        yield


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def work(folder: Path, notes: Path, model: str = "a", words: int = ROWS, **arguments: str) -> Job:
    job = Job(folder)
    with job.prepared(({"word": f"w{number}"} for number in range(words)), SCHEMA, AT_ONCE):
        job.claim({"model": model, "words": words}, MESSAGES)
        job.run(Doubling, "results", notes=str(notes), **arguments)
    job.finish()
    return job


def assert_whole(folder: Path) -> None:
    rows = pq.read_table(folder / "results").sort_by("number").to_pylist()
    assert rows == [{"number": number, "twice": f"w{number}w{number}"} for number in range(ROWS)]


def times_done(notes: Path) -> Counter[int]:
    return Counter({int(file.name): len(file.read_text()) for file in notes.iterdir() if file.name.isdigit()})


@pytest.mark.long
def test_every_row_once_also_where_an_actor_is_killed(tmp_path: Path, notes: Path):
    job = work(tmp_path / "out", notes, fatal="w33")
    assert (notes / "died").exists()
    assert job.count == ROWS
    assert_whole(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results", "run.json"]


@pytest.mark.long
def test_an_error_of_an_actor_is_told_and_the_same_command_resumes(tmp_path: Path, notes: Path):
    with pytest.raises(WbcError, match=r"^w45: is no word\. Give another\.$"):
        work(tmp_path / "out", notes, bad="w45")
    kept = committed(tmp_path / "out")
    assert kept and 45 not in kept
    work(tmp_path / "out", notes)
    assert_whole(tmp_path / "out")
    assert all(times_done(notes)[number] == 1 for number in kept)

    # Once more: it is finished, and nothing is done again.
    before = times_done(notes)
    assert work(tmp_path / "out", notes).count == ROWS
    assert times_done(notes) == before
    # Another one is refused, and what is there stays.
    with pytest.raises(WbcError, match=r"out: holds results with another model \(a, this one is b\)\. Give the orig"):
        work(tmp_path / "out", notes, model="b")
    assert_whole(tmp_path / "out")
    # What was lost is noticed.
    next((tmp_path / "out" / "results").iterdir()).unlink()
    with pytest.raises(WbcError, match=r"results: does not hold a row for each of 60\. Remove .*out, and start again"):
        work(tmp_path / "out", notes)


SCRIPT = """
import sys
from pathlib import Path
from tests.test_jobs import work
from wbc_hf.inference import ray_session

folder = Path(sys.argv[1])
with ray_session():
    work(folder / "out", folder / "notes")
"""


@pytest.mark.long
def test_a_killed_driver_is_resumed(tmp_path: Path, notes: Path):
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)])
    while process.poll() is None and not committed(tmp_path / "out"):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert committed(tmp_path / "out")
    work(tmp_path / "out", notes)
    assert_whole(tmp_path / "out")


def test_a_function_runs_once_and_its_error_comes_back():
    assert run_as_actor(lambda: os.getpid()) != os.getpid()

    def fail() -> None:
        raise WbcError("model: is none.")

    with pytest.raises(WbcError, match=r"^model: is none\.$"):
        run_as_actor(fail)


# Without running


def prepare(folder: Path, words: int = 1) -> None:
    with Job(folder).prepared(({"word": "w"} for _ in range(words)), SCHEMA, AT_ONCE):
        pass


def test_the_index_holds_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_GROUPS_PER_FILE", 2)
    job = Job(tmp_path / "out")
    with job.prepared(({"word": f"w{number}"} for number in range(55)), SCHEMA, AT_ONCE):
        job.claim({}, {})
    files = sorted((tmp_path / "out" / ".work" / "index").iterdir())
    assert [pq.read_metadata(file).num_row_groups for file in files] == [2, 2, 2]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert rows == [{"number": number, "word": f"w{number}"} for number in range(55)]


def test_what_was_not_begun_leaves_no_trace(tmp_path: Path):
    prepare(tmp_path / "new")
    with pytest.raises(WbcError, match=r"new: the sources are empty, so that nothing is written"):
        prepare(tmp_path / "new", words=0)
    assert not (tmp_path / "new").exists()


def test_folders_that_hold_something_else_are_refused(tmp_path: Path):
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("somebody's")
    with pytest.raises(WbcError, match="file: is a file; results are written to a folder"):
        prepare(tmp_path / "file")
    with pytest.raises(WbcError, match=r"full: holds other files\. Name a new folder, or an empty one"):
        prepare(tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["thesis.txt"]


def test_a_missing_ray_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(
        WbcError, match=r"^The package ray.* is not installed\. Install it with `pip install 'wbc-hf\[bulk\]'`"
    ):
        jobs.check_ray()


@pytest.mark.parametrize(("address", "mode"), [("127.0.0.1:6379", "token"), ("local", None)])
def test_a_cluster_is_shown_the_token_that_ray_start_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, mode: str | None
):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    jobs.check_ray("127.0.0.1:6379")
    assert "RAY_AUTH_MODE" not in os.environ  # there is no token
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    jobs.check_ray(address)
    assert os.environ.get("RAY_AUTH_MODE") == mode
