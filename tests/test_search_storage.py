"""A search that several processes share: its address, its number of trials, and what becomes of a killed process."""

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import train
from tests.conftest import Command, figures_undrawn
from tests.postgresql_server import PASSWORD, PostgresServer
from tests.test_run import PROCESSES, new_process
from wbc_hf.errors import WbcError
from wbc_hf.manifest import Manifest
from wbc_hf.training import parse, search, search_storage
from wbc_hf.training.run_folder import SEARCH_FOLDER

SHORT = {"search_epochs": 1, "freeze": "stage3", "cached_views": 1, "search_only": True}
TRIALS = 6
FINISHED = ("COMPLETE", "PRUNED")
Joining = Callable[..., list[str]]
PATIENCE = 120  # seconds, for a machine with other work
SECRET = "correct-horse"


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'trials.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield sqlite(tmp_path)
    else:
        server: PostgresServer = request.getfixturevalue("postgresql")
        yield server.new_database()


@cache
def opened(storage: str) -> optuna.storages.RDBStorage:
    """Opened once, since a server has a hundred connections."""
    return optuna.storages.RDBStorage(storage)


def study_of(storage: str) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=opened(storage))


def states(storage: str) -> list[str]:
    return [trial.state.name for trial in study_of(storage).get_trials(deepcopy=False)]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / SEARCH_FOLDER / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- its address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("trials.db", "is no address of a database. Give sqlite:///FILE"),
        (f"postgresql://me:{SECRET}@host/trials", "a password comes from the environment variable PGPASSWORD"),
        (f"postgresql+psycopg://me@host/trials?password={SECRET}", "Leave it out of the address"),
        (f"postgresql://me:{SECRET}@with-at@host/trials", "Leave it out of the address"),
        (f"postgresql://me@host:{SECRET}/trials", "is no address of a database"),
        ("mysql://me@host/trials", r"mysql://…: is not one of sqlite:///FILE"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://me@host", "names no database"),
        ("sqlite:////no/such/folder/trials.db", "the database cannot be used .unable to open database file"),
        ("postgresql://me@127.0.0.1:1/trials", "the database cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
):
    monkeypatch.setattr(search_storage, "_ATTEMPTS", 1)
    with pytest.raises(WbcError, match=said) as caught:
        search_storage.connect(address)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("words", ["--search_storage=sqlite:///trials.db", "--search_only"])
def test_arguments_of_a_search_need_one(words: str):
    with pytest.raises(WbcError, match="goes with --search N"):
        parse([words])


def test_no_record_holds_the_address(tmp_path: Path):
    arguments = parse(["--search=2", f"--search_storage={sqlite(tmp_path)}"])
    assert str(tmp_path) not in json.dumps(arguments.to_dict())
    assert str(tmp_path) not in arguments.training.to_json_string()


def test_a_password_comes_from_the_environment(postgresql: PostgresServer, monkeypatch: pytest.MonkeyPatch):
    url = postgresql.new_database()
    monkeypatch.setattr(search_storage, "_ATTEMPTS", 1)
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(WbcError, match="password authentication failed") as caught:
        search_storage.connect(url)
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    storage = search_storage.connect(url)
    assert storage.get_all_studies() == []
    storage.engine.dispose()


# ---- joining a study


@pytest.fixture
def joining(command: Command, tmp_path: Path, undrawn: None) -> Joining:
    """`joining("one", storage)`: the words of a process with a folder of its own."""

    def words(name: str, storage: str, **changes: object) -> list[str]:
        return command(tmp_path / name, **({"search": TRIALS, "search_storage": storage} | SHORT | changes))

    return words


@pytest.fixture(scope="module")
def first(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a process ran the first trial of a study; `trials.db` is the database. Not to be changed."""
    folder = tmp_path_factory.mktemp("first")
    with figures_undrawn():
        train.main(command(folder / "one", search=1, search_storage=sqlite(folder), **SHORT))
    return folder


@pytest.fixture
def begun(first: Path, tmp_path: Path) -> str:
    """The address of a database with the first trial of a study."""
    shutil.copy(first / "trials.db", tmp_path)
    return sqlite(tmp_path)


def test_what_is_missing_is_run_and_nothing_twice(
    begun: str, first: Path, joining: Joining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train.main(joining("two", begun, search=2))
    assert states(begun) == ["COMPLETE", "COMPLETE"]
    assert rows(tmp_path / "two")[:1] == rows(first / "one")
    assert rows(tmp_path / "two")[0]["learning_rate"] == "0.003"
    (best,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("The best of 2")]
    # Whoever comes when all is done has the same table, and the same best.
    train.main(joining("three", begun, search=2))
    assert states(begun) == ["COMPLETE", "COMPLETE"]
    assert rows(tmp_path / "three") == rows(tmp_path / "two")
    assert best in capsys.readouterr().out
    assert not (tmp_path / "three" / "model.safetensors").exists()
    assert {path.name for path in (tmp_path / "three" / SEARCH_FOLDER).iterdir()} == {
        "arguments.json",
        "trials.csv",
        "history.png",
        "hyperparameters.png",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.5}, "--learning_rate was 0.003, now 0.5. Give the same ones to join it, or another"),
        ({"split_seed": 1}, "these are other images than it began with"),
        ({"metric_for_best_model": "loss"}, "--metric_for_best_model was 'macro_f1', now 'loss'"),
    ],
)
def test_another_search_is_not_joined(
    begun: str, joining: Joining, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, said: str
):
    with pytest.raises(SystemExit, match="2"):
        train.main(joining("two", begun, **changes))
    error = capsys.readouterr().err
    assert said in error
    assert "--search_study search: its trials have other arguments" in error
    assert states(begun) == ["COMPLETE"]
    assert not (tmp_path / "two" / SEARCH_FOLDER / "arguments.json").exists()


def test_trials_of_another_program_are_left_alone(
    joining: Joining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    storage = sqlite(tmp_path)
    optuna.create_study(storage=opened(storage), study_name="search").add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(SystemExit, match="2"):
        train.main(joining("two", storage))
    assert "--search_study search: holds trials of another program" in capsys.readouterr().err
    assert states(storage) == ["COMPLETE"]


def test_folders_of_several_machines_may_have_other_paths(begun: str, first: Path):
    """The fingerprint of the images tells whether they are the same."""
    claimed = json.loads((first / "one" / SEARCH_FOLDER / "arguments.json").read_text())
    here = Manifest(first / "none", claimed | {"dataset": ["/mnt/cells"]})
    search_storage.claim(study_of(begun), here)
    with pytest.raises(WbcError, match="search_epochs"):
        search_storage.claim(study_of(begun), Manifest(first / "none", claimed | {"search_epochs": 9}))


def test_a_path_does_not_say_which_weights_are_searched_for(begun: str, first: Path):
    claimed = json.loads((first / "one" / SEARCH_FOLDER / "arguments.json").read_text())
    recorded = study_of(begun).user_attrs["arguments"]
    assert "model_version" in recorded
    with pytest.raises(WbcError, match="model_version was"):
        search_storage.claim(study_of(begun), Manifest(first / "none", claimed | {"model_version": "other"}))


def test_who_was_overwritten_in_the_same_moment_runs_no_trial(
    begun: str, joining: Joining, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def overwritten(study: optuna.Study, *_: object) -> None:
        study.set_user_attr("arguments", study.user_attrs["arguments"] | {"search_epochs": 9})

    monkeypatch.setattr(search, "_enqueue_given", overwritten)
    with pytest.raises(SystemExit, match="2"):
        train.main(joining("two", begun, search=2))
    assert "search_epochs was 9, now 1" in capsys.readouterr().err
    assert states(begun) == ["COMPLETE"]


# ---- several processes


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def search_hastily(words: list[str]) -> None:
    search_storage.BEAT_SECONDS, search_storage.PATIENCE_SECONDS, search._POLL_SECONDS = 0.2, 5.0, 0.1
    train.main(words)


def share(words: list[str], barrier: Barrier) -> None:
    """Search, with the first trial begun when every process has one."""
    run_trial, ran = search._run_trial, []

    def wait_first(*arguments: object) -> None:
        if not ran:
            barrier.wait(PATIENCE)
        ran.append(True)
        run_trial(*arguments)

    search._run_trial = wait_first
    search_hastily(words)


def hang(words: list[str]) -> None:
    """Search, with a first trial that does not end."""
    search.TrialTrainers.build = lambda self, arguments: time.sleep(300)
    search_hastily(words)


@pytest.mark.long
def test_two_processes_share_the_number_of_trials(storage: str, joining: Joining, tmp_path: Path):
    barrier = PROCESSES.Barrier(2)
    processes = [new_process(share, joining(name, storage), barrier) for name in ("one", "two")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len([state for state in states(storage) if state in FINISHED]) == TRIALS
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert one == two
    assert [row["trial"] for row in one] == [str(number) for number in range(1, TRIALS + 1)]
    # The values that were given once, and none twice.
    assert [row["learning_rate"] for row in one].count("0.003") == 1
    assert len({row["learning_rate"] for row in one}) == TRIALS


@pytest.mark.long
def test_the_trial_of_a_killed_process_is_run_by_another(storage: str, joining: Joining, tmp_path: Path):
    optuna.create_study(storage=opened(storage), study_name="search", direction="maximize")
    victim = new_process(hang, joining("one", storage, search=3))
    victim.start()
    wait_for(lambda: states(storage) == ["RUNNING"], victim)
    other = new_process(search_hastily, joining("two", storage, search=3))
    other.start()
    wait_for(lambda: len([state for state in states(storage) if state in FINISHED]) == 2, other)
    assert states(storage)[0] == "RUNNING"  # nobody takes it from a process that lives
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    other.join(PATIENCE)
    assert other.exitcode == 0
    trials = study_of(storage).trials
    assert [trial.state.name for trial in trials].count("FAIL") == 1
    assert trials[0].state.name == "FAIL"
    # The values that were given, which were those of the first trial, are tried after all.
    assert [row["learning_rate"] for row in rows(tmp_path / "two")].count("0.003") == 1
    assert len(rows(tmp_path / "two")) == 3


def test_a_trial_counts_as_killed_when_it_is_silent_for_long(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(search_storage.time, "monotonic", lambda: now)
    study = optuna.create_study()
    beats, silent = study.ask(), study.ask()
    watch = search_storage.Watch(10)

    def found() -> list[int]:
        return [trial.number for trial in watch.silent(study.get_trials(states=(TrialState.RUNNING,)))]

    assert found() == []
    now = 9.0
    beats.set_user_attr("beat", 1)
    assert found() == []
    now = 10.0
    assert found() == [silent.number]
    now = 19.0
    assert found() == [beats.number, silent.number]


@pytest.mark.long
def test_a_trial_that_was_given_to_another_changes_nothing(
    begun: str, joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """This process was silent for too long, and comes back."""
    run_trial, ran = search._run_trial, []

    def late(study: optuna.Study, trial: optuna.Trial, *arguments: object) -> None:
        if not ran:
            study.tell(trial.number, state=TrialState.FAIL)
        ran.append(trial.number)
        run_trial(study, trial, *arguments)

    monkeypatch.setattr(search, "_run_trial", late)
    train.main(joining("two", begun, search=2))
    assert "A trial was not heard of for too long" in capsys.readouterr().out
    assert states(begun) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert ran == [1, 2]
    assert len(rows(tmp_path / "two")) == 2
