"""Hyperparameter search: the search space, how trials end, the run with the best values, and resuming."""

import csv
import json
import math
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch

import train
from tests.conftest import Command
from tests.test_run import finish, kill_at
from wbc_hf.data import load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.training import Arguments, LeucocyteTrainingArguments, build_network, parse
from wbc_hf.training.run_folder import SEARCH_FOLDER
from wbc_hf.training.search import TrialTrainers, run_trials
from wbc_hf.training.search_space import check_search, search_space, trial_arguments
from wbc_hf.training.trainer import LeucocyteTrainer

SHORT = {"search": 3, "search_epochs": 2, "num_train_epochs": 2, "freeze": "stage3", "cached_views": 1}
MakeArguments = Callable[..., Arguments]
MakeTrainers = Callable[..., TrialTrainers]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / SEARCH_FOLDER / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run after a search of three trials. Not to be changed."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    train.main(command(folder, **SHORT))
    return folder


@pytest.fixture
def given(command: Command, tmp_path: Path) -> MakeArguments:
    """`given(search=4)`: arguments of a tiny run, whose folder is there."""

    def make(**changes: object) -> Arguments:
        (tmp_path / SEARCH_FOLDER).mkdir(exist_ok=True)
        return parse(command(tmp_path, **(SHORT | changes)))

    return make


@pytest.fixture
def trainers(folder_of_cells: Path) -> MakeTrainers:
    """`trainers(arguments, broken={2})`: for trials on the painted cells, of which the second cannot learn."""

    def make(arguments: Arguments, broken: set[int] = frozenset()) -> TrialTrainers:
        network, processor = build_network(arguments.model, arguments.training)
        return BrokenTrainers(load_leucocytes(folder_of_cells), network, processor, arguments, broken)

    return make


class BrokenTrainers(TrialTrainers):
    """Trials of these numbers begin with weights that are not numbers, which no training mends."""

    def __init__(self, leucocytes, network, processor, arguments: Arguments, broken: set[int]):
        super().__init__(leucocytes, network, processor, arguments)
        self.broken, self.built = broken, 0

    def build(self, arguments: Arguments) -> LeucocyteTrainer:
        trainer = super().build(arguments)
        self.built += 1
        if self.built in self.broken:
            torch.nn.init.constant_(trainer.model.classifier[-1].weight, math.nan)
        return trainer


# ---- the search space


def test_what_was_given_is_space_the_space():
    words = "--learning_rate 0.5 --weight_decay 0.7 --label_smoothing_factor 0.3 --augmentation 3 --freeze stage2"
    data, model, training = parse([*words.split(), "--per_device_train_batch_size=3"])
    space = search_space(Arguments(data, model, training))
    known = vars(data) | vars(model) | vars(training)
    for name, distribution in space.items():
        value = distribution.to_internal_repr(known[name])
        assert distribution._contains(value), name
    assert space["freeze"].choices == ("stage2", "stage3", "stage4")
    assert space["per_device_train_batch_size"].choices == (1, 3)
    assert space["learning_rate"].low < 0.5 < space["learning_rate"].high


@pytest.mark.parametrize(
    ("words", "fixed"),
    [
        ("", set()),
        ("--freeze all", {"freeze"}),
        ("--freeze stage4", {"freeze"}),
        ("--freeze stage3 --cached_views 2", {"augmentation"}),
        ("--per_device_train_batch_size 1", {"per_device_train_batch_size"}),
        ("--metric_for_best_model eval_loss", {"label_smoothing_factor"}),
    ],
)
def test_what_is_not_varied(words: str, fixed: set[str]):
    everything = {"learning_rate", "per_device_train_batch_size", "freeze", "weight_decay"}
    everything |= {"label_smoothing_factor", "augmentation"}
    assert set(search_space(parse(words.split()))) == everything - fixed


def test_fresh_arguments_differ_in_what_was_set_alone():
    before = parse(["--push_to_hub", "--hub_model_id=me/cells", "--report_to=tensorboard", "--search=5"])
    after = before.with_values({"learning_rate": 0.25, "freeze": "stage1", "augmentation": 0.5})
    assert (after[0].augmentation, after[1].freeze, after[2].learning_rate) == (0.5, "stage1", 0.25)
    assert (before[0].augmentation, before[1].freeze, before[2].learning_rate) == (1.0, "none", 1e-3)
    assert after[2].publish and not after[2].push_to_hub
    one, other = before[2].to_dict(), after[2].to_dict()
    assert {name for name in one if one[name] != other[name]} == {"learning_rate"}


def test_a_trial_publishes_and_saves_nothing():
    given = parse(["--push_to_hub", "--hub_model_id=me/cells", "--early_stopping_patience=2", "--max_steps=9000"])
    _, _, training = trial_arguments({"weight_decay": 0.0}, given)
    assert not training.publish
    assert training.report_to == []
    assert (training.save_strategy, training.eval_strategy, training.max_steps) == ("no", "epoch", -1)
    assert (training.num_train_epochs, training.early_stopping_patience, training.weight_decay) == (3, 0, 0.0)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LeucocyteTrainingArguments, "world_size", 2)
    with pytest.raises(WbcError, match="--search: trials run in one process"):
        check_search(parse(["--search=3"]))


# ---- a search and its run


def test_a_search_writes_table_figure_and_record(searched: Path):
    found = rows(searched)
    assert [row["trial"] for row in found] == ["1", "2", "3"]
    first = found[0]
    assert (first["learning_rate"], first["freeze"], first["weight_decay"]) == ("0.003", "stage3", "0.05")
    assert len({row["learning_rate"] for row in found}) == 3
    assert {path.name for path in (searched / SEARCH_FOLDER).iterdir()} == {
        "arguments.json",
        "study.db",
        "trials.csv",
        "history.png",
        "hyperparameters.png",
    }
    record = json.loads((searched / "run.json").read_text())
    best = max(found, key=lambda row: float(row["macro_f1"]))
    assert record["search"]["trials"] == 3
    assert record["search"]["best"]["trial"] == int(best["trial"])
    assert record["search"]["space"]["freeze"] == ["stage3", "stage4"]
    for name in record["search"]["space"]:
        assert str(record["arguments"][name]) == best[name]
    assert record["freeze"] == best["freeze"]


@pytest.mark.usefixtures("undrawn")
def test_the_run_is_the_one_that_the_best_values_give(searched: Path, command: Command, tmp_path: Path):
    """Trials leave nothing behind: weights, random state and caches are as if there had been none."""
    best = json.loads((searched / "run.json").read_text())["search"]["best"]
    values = {name: value for name, value in best.items() if name not in ("trial", "value")}
    train.main(command(tmp_path / "run", **(SHORT | values | {"search": 0})))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (searched / "model.safetensors").read_bytes()


@pytest.mark.long
def test_the_same_seed_tries_the_same_values_in_a_line_each(
    searched: Path, given: MakeArguments, trainers: MakeTrainers, capsys: pytest.CaptureFixture[str]
):
    arguments = given(search=2)
    run_trials(arguments, trainers(arguments))
    for row, again in zip(rows(searched)[:2], rows(Path(arguments.training.output_dir)), strict=True):
        assert row | {"seconds": ""} == again | {"seconds": ""}
    output = capsys.readouterr().out
    assert len([line for line in output.splitlines() if line.endswith("finished")]) == 2
    assert "The best of 2 trials is number" in output
    assert "epoch " not in output


def test_a_draw_leaves_what_was_given(given: MakeArguments, trainers: MakeTrainers):
    arguments = given(search=2)
    folder = Path(arguments.training.output_dir) / SEARCH_FOLDER
    study = optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="search", direction="maximize")
    space = search_space(arguments)
    for rate in (3e-3, 1e-3):
        values = {"learning_rate": rate, "per_device_train_batch_size": 8, "freeze": "stage3"}
        values |= {"weight_decay": 0.05, "label_smoothing_factor": 0.1}
        study.add_trial(
            optuna.create_trial(params=values, distributions=space, value=0.5, intermediate_values={1: 0.5})
        )
    best, _ = run_trials(arguments, trainers(arguments))
    assert best.training.learning_rate == 3e-3


@pytest.mark.long
def test_a_trial_that_fails_is_a_bad_one(
    given: MakeArguments, trainers: MakeTrainers, capsys: pytest.CaptureFixture[str]
):
    arguments = given()
    _, record = run_trials(arguments, trainers(arguments, broken={2}))
    assert "failed  loss not finite" in capsys.readouterr().out
    assert (record["trials"], record["failed"], record["pruned"]) == (3, 1, 0)
    _, failed, _ = rows(Path(arguments.training.output_dir))
    assert (failed["state"], failed["epochs"], failed["macro_f1"]) == ("failed", "1", "")
    assert record["best"]["trial"] != 2


def test_no_trial_finishes(given: MakeArguments, trainers: MakeTrainers):
    arguments = given(search=2)
    with pytest.raises(WbcError, match=r"none of 2 trials finished\. Give a smaller --learning_rate"):
        run_trials(arguments, trainers(arguments, broken={1, 2}))


def test_a_trial_without_hope_is_stopped(given: MakeArguments, trainers: MakeTrainers):
    """After four trials that were right in every case from the first epoch on."""
    arguments = given(search=5)
    folder = Path(arguments.training.output_dir) / SEARCH_FOLDER
    study = optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="search", direction="maximize")
    sampler = optuna.samplers.RandomSampler(seed=0)
    for _ in range(4):
        study.sampler = sampler
        trial = study.ask(search_space(arguments))
        for epoch in (1, 2):
            trial.report(1.0, epoch)
        study.tell(trial, 1.0)
    _, record = run_trials(arguments, trainers(arguments))
    assert (record["trials"], record["pruned"]) == (5, 1)
    last = rows(Path(arguments.training.output_dir))[-1]
    assert (last["state"], last["epochs"]) == ("pruned", "1")
    assert float(last["macro_f1"]) < 1


# ---- resuming


@pytest.mark.long
def test_more_trials_may_be_asked_for(given: MakeArguments, trainers: MakeTrainers):
    """And where none is missing, nothing is computed."""
    arguments = given(search=1, cached_views=0)
    run_trials(arguments, trainers(arguments))
    arguments = given(search=3, cached_views=0)
    folder = Path(arguments.training.output_dir)
    before = rows(folder)
    _, record = run_trials(arguments, trainers(arguments))
    assert rows(folder)[:1] == before
    assert len({row["learning_rate"] for row in rows(folder)}) == 3
    idle = trainers(arguments)
    assert run_trials(arguments, idle)[1] == record
    assert idle.built == 0


def test_a_folder_with_unusual_letters(given: MakeArguments, trainers: MakeTrainers, tmp_path: Path):
    folder = tmp_path / "a?b #c%20ö"
    (folder / SEARCH_FOLDER).mkdir(parents=True)
    arguments = given(search=1).with_values({"output_dir": str(folder)})
    run_trials(arguments, trainers(arguments))
    assert (folder / SEARCH_FOLDER / "study.db").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "holds a run already. Go on with it: --resume"),
        ({"resume": True, "search": 4}, "--search was 3, now 4"),
        ({"resume": True, "search": 0}, "--search was 3, now 0"),
        (
            {"resume": True, "learning_rate": 0.5},
            "search: --resume continues the same run, but --learning_rate",
        ),
        ({"resume": True, "search_epochs": 1}, "--search_epochs was 2, now 1"),
        ({"resume": True, "split_seed": 1}, "these are other images than it began with"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(
    searched: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, said: str
):
    folder = tmp_path / "copy"
    shutil.copytree(searched, folder)
    with pytest.raises(SystemExit, match="2"):
        train.main(command(folder, **(SHORT | changes)))
    assert said in capsys.readouterr().err
    assert (folder / SEARCH_FOLDER / "study.db").read_bytes() == (searched / SEARCH_FOLDER / "study.db").read_bytes()


def test_a_search_without_its_run_is_not_begun_anew(
    searched: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(searched / SEARCH_FOLDER, tmp_path / SEARCH_FOLDER)
    with pytest.raises(SystemExit, match="2"):
        train.main(command(tmp_path, **SHORT))
    assert "search: holds a run already. Go on with it: --resume" in capsys.readouterr().err


def trials_in_state(folder: Path, state: str) -> list[int]:
    """Numbers of trials, from 0, as the study has them; none before it is there."""
    path = folder / SEARCH_FOLDER / "study.db"
    if not path.exists():
        return []
    with sqlite3.connect(path) as study:
        if not study.execute("select 1 from sqlite_master where name = 'trials'").fetchall():
            return []
        return [number for (number,) in study.execute("select number from trials where state = ?", [state])]


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_search_goes_on(command: Command, tmp_path: Path):
    """SIGKILL in the first and in the second trial, which are both done again; and once the run itself has begun."""
    folder = tmp_path / "run"
    words = command(folder, **SHORT, resume=True)
    moments = [
        lambda: trials_in_state(folder, "RUNNING") == [0],
        lambda: trials_in_state(folder, "COMPLETE") == [1] and trials_in_state(folder, "RUNNING") == [2],
        lambda: list(folder.glob("checkpoint-*")) != [],
    ]
    for moment in moments:
        kill_at(words, moment)
    before = rows(folder)
    assert [row["trial"] for row in before] == ["1", "2", "3"]
    assert before[0]["learning_rate"] == "0.003"
    finish(words)
    assert rows(folder) == before
    assert trials_in_state(folder, "FAIL") == [0, 2]
    assert trials_in_state(folder, "RUNNING") == []
    study = optuna.load_study(storage=f"sqlite:///{folder / SEARCH_FOLDER / 'study.db'}", study_name="search")
    # Where the kill came before all values were drawn, the others are drawn anew.
    assert study.trials[2].params.items() <= study.trials[3].params.items()
    assert study.trials[1].params["learning_rate"] == 0.003
    assert json.loads((folder / "run.json").read_text())["search"]["trials"] == 3
