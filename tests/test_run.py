"""Whole runs: what they write, how they resume after a kill, and the same run in two processes."""

import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainerState
from typer.testing import CliRunner

import train
from tests.conftest import Command, TinyRun
from wbc_hf.cli import app
from wbc_hf.data import paint_cells
from wbc_hf.evaluation import render_card
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.training.checkpoints import last_complete_checkpoint
from wbc_hf.training.trainer import LeucocyteTrainer

ROOT = Path(__file__).parents[1]
RESULTS = ("README.md", "config.json", "metrics.json", "model.safetensors", "preprocessor_config.json", "run.json")
LINE = re.compile(
    r"epoch +\d+\.\d\d   loss +\d\.\d{3}   "
    r"validation: loss +\d\.\d{3}  accuracy \d\.\d{3}  macro F1 \d\.\d{3} +\d+ images/s"
)

# Forked from a process that has imported everything: a start takes no time, and a kill hits a process of its own.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train", "wbc_hf.training.search", "wbc_hf.training.run"])


def new_process(target: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    """A process with this one's environment: the one that it is forked from has that of its own first use."""
    return PROCESSES.Process(target=_call_in, args=(dict(os.environ), target, *arguments))


def _call_in(environment: dict[str, str], target: Callable[..., object], *arguments: object) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def start(words: list[str]) -> multiprocessing.Process:
    process = new_process(train.main, words)
    process.start()
    return process


def finish(words: list[str]) -> None:
    process = start(words)
    process.join(120)
    assert process.exitcode == 0


def wait_for(condition: Callable[[], bool], process: multiprocessing.Process) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def kill_at(words: list[str], moment: Callable[[], bool]) -> None:
    """Start the run, and SIGKILL it when the moment has come."""
    process = start(words)
    wait_for(moment, process)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def copied_run(tiny_run: TinyRun, command: Command, tmp_path: Path) -> tuple[Path, list[str]]:
    """The finished run as it was before its report: checkpoints alone. And the words that resume it."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run.folder, folder, ignore=shutil.ignore_patterns(*RESULTS, "figures", "predictions.csv"))
    for checkpoint in tiny_run.folder.glob("checkpoint-*"):
        shutil.copytree(checkpoint, folder / checkpoint.name, dirs_exist_ok=True)
    return folder, command(folder, resume=True)


def test_a_run_writes_a_model_with_its_report(tiny_run: TinyRun):
    assert {path.name for path in tiny_run.folder.iterdir()} >= {*RESULTS, "figures", "predictions.csv"}
    predictor = Predictor.from_pretrained(tiny_run.folder)
    assert predictor.labels == CLASS_NAMES
    metrics = json.loads((tiny_run.folder / "metrics.json").read_text())
    assert metrics["count"] == 10


def test_the_record_makes_the_card(tiny_run: TinyRun, folder_of_cells: Path, untrained_folder: Path):
    record = json.loads((tiny_run.folder / "run.json").read_text())
    metrics = json.loads((tiny_run.folder / "metrics.json").read_text())
    card = (tiny_run.folder / "README.md").read_text()
    assert render_card(record, metrics) == card
    for folder in (folder_of_cells, tiny_run.folder, untrained_folder):
        assert str(folder) not in card

    assert record["base_model"] == str(untrained_folder)
    assert record["width"] is None
    assert record["image_size"] == 32
    assert record["steps"] == 15
    assert record["data"]["splits"]["train"] == dict.fromkeys(CLASS_NAMES, 8)
    state = TrainerState.load_from_json(str(tiny_run.folder / "checkpoint-15" / "trainer_state.json"))
    assert record["best_step"] == state.best_global_step
    assert_calibrated(tiny_run.folder, tiny_run.folder / f"checkpoint-{state.best_global_step}")


def assert_calibrated(folder: Path, checkpoint: Path) -> None:
    """The folder holds the weights of a checkpoint, its classifier divided by the temperature that was fitted."""
    temperature = json.loads((folder / "wbc.json").read_text())["temperature"]
    final, trained = (load_file(path / "model.safetensors") for path in (folder, checkpoint))
    assert set(final) == set(trained)
    for name, tensor in trained.items():
        expected = tensor / temperature if name.startswith("classifier.") else tensor
        torch.testing.assert_close(final[name], expected)


def test_the_best_checkpoint_has_the_highest_macro_f1(tiny_run: TinyRun):
    history = TrainerState.load_from_json(str(tiny_run.folder / "checkpoint-15" / "trainer_state.json")).log_history
    found = {entry["step"]: entry["eval_macro_f1"] for entry in history if "eval_macro_f1" in entry}
    assert list(found) == [5, 10, 15]
    best = json.loads((tiny_run.folder / "run.json").read_text())["best_step"]
    assert found[best] == max(found.values())


def test_a_run_prints_a_line_per_evaluation(tiny_run: TinyRun):
    lines = tiny_run.output.splitlines()
    assert len([line for line in lines if LINE.fullmatch(line)]) == 3
    assert not [line for line in lines if "{" in line]
    assert tiny_run.output.count(f"The model, its report and its card are in {tiny_run.folder}") == 1


def test_curves_are_written_for_tensorboard(tiny_run: TinyRun):
    events = list((tiny_run.folder / "runs").rglob("events.out.tfevents.*"))
    assert len(events) == 1
    assert events[0].stat().st_size > 1000


# ---- resuming


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]):
    before = weights(tiny_run.folder)
    with pytest.raises(SystemExit, match="2"):
        train.main(tiny_run.command)
    assert "holds a run already. Go on with it: --resume" in capsys.readouterr().err
    assert weights(tiny_run.folder) == before


def test_a_folder_that_holds_something_else_is_left_alone(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for folder, said in ((tmp_path, "holds a config.json that no run wrote"), (tmp_path / "file", "cannot be made")):
        with pytest.raises(SystemExit, match="2"):
            train.main(command(folder, resume=True))
        assert said in capsys.readouterr().err


def test_a_diverged_run_stops_at_once_and_leaves_no_weights(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = command(tmp_path / "run", freeze="none", learning_rate=1e30, max_grad_norm=0, lr_scheduler_type="constant")
    with pytest.raises(SystemExit) as caught:
        train.main(words)
    message = str(caught.value) + capsys.readouterr().err
    found = re.search(r"after (\d+) steps the (loss|weights) of the training", message)
    assert found and int(found.group(1)) <= 2
    assert "smaller --learning_rate than 1e+30" in message
    assert "Traceback" not in message
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_run_that_diverges_later_keeps_the_checkpoint_before(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the second epoch of five steps, at its last step: the loss was finite, and the weights are not."""

    def spoil(trainer: LeucocyteTrainer, *arguments: object, **keywords: object) -> torch.Tensor:
        loss = step(trainer, *arguments, **keywords)
        if trainer.state.global_step == 9:
            trainer.model.classifier[-1].bias.grad.fill_(np.nan)
        return loss

    step = LeucocyteTrainer.training_step
    monkeypatch.setattr(LeucocyteTrainer, "training_step", spoil)
    with pytest.raises(SystemExit):
        train.main(command(tmp_path / "run", max_grad_norm=0))
    assert [path.parent.name for path in (tmp_path / "run").rglob("model.safetensors")] == ["checkpoint-5"]
    weights = load_file(tmp_path / "run" / "checkpoint-5" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.5}, "--learning_rate was 0.003, now 0.5"),
        ({"freeze": "all", "seed": 1000}, "--freeze was 'none', now 'all'; --seed was "),
        ({"early_stopping_patience": 1}, "--early_stopping_patience was 0, now 1"),
        ({"split_seed": 1}, "other images than it began with"),
    ],
)
def test_resuming_with_other_arguments_is_refused(
    copied_run: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], changes: dict, said: str
):
    _, words = copied_run
    with pytest.raises(SystemExit, match="2"):
        train.main([*words, *(f"--{name}={value}" for name, value in changes.items())])
    assert said in capsys.readouterr().err


def test_resuming_with_other_images_is_refused(
    copied_run: tuple[Path, list[str]], folder_of_cells: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder, words = copied_run
    moved = tmp_path / "cells"
    shutil.copytree(folder_of_cells, moved)
    start_file = folder / "arguments.json"
    start_file.write_text(start_file.read_text().replace(str(folder_of_cells), str(moved)))
    next(moved.glob("basophil/*.png")).unlink()
    with pytest.raises(SystemExit, match="2"):
        train.main([*words, f"--dataset={moved}"])
    assert "these are other images than it began with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("trainer_state.json", None),
        ("trainer_state.json", 0),
        ("trainer_state.json", 200),
        ("model.safetensors", None),
        ("model.safetensors", 100),
        ("model.safetensors", -1),
        ("optimizer.pt", None),
        ("optimizer.pt", -1),
        ("scheduler.pt", -1),
        ("rng_state.pth", None),
        ("rng_state.pth", -1),
    ],
)
def test_an_incomplete_checkpoint_is_skipped(copied_run: tuple[Path, list[str]], name: str, length: int | None):
    """Each file missing, or cut to so many bytes (-1: all but the last)."""
    folder, _ = copied_run
    newest, before = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    for copy in ("checkpoint-copy", f"{newest.name}-copy"):  # made by hand: no step of the run
        (folder / copy).mkdir()
    assert last_complete_checkpoint(folder) == newest
    content = (newest / name).read_bytes()
    (newest / name).unlink()
    if length is not None:
        (newest / name).write_bytes(content[:length])
    assert last_complete_checkpoint(folder) == before
    shutil.rmtree(before)
    assert last_complete_checkpoint(folder) is None


@pytest.mark.long
def test_resuming_from_the_checkpoint_before_an_incomplete_one(copied_run: tuple[Path, list[str]], tiny_run: TinyRun):
    folder, words = copied_run
    (folder / "checkpoint-15" / "trainer_state.json").write_text('{"best_global_step": 1')
    train.main(words)
    assert_same_run(folder, tiny_run.folder)


def test_a_kill_before_the_report_costs_no_training(
    copied_run: tuple[Path, list[str]], tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
):
    folder, words = copied_run
    train.main(words)
    output = capsys.readouterr().out
    assert "epoch" not in output
    assert "The model, its report and its card are in" in output
    assert_same_run(folder, tiny_run.folder)


@pytest.mark.long
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(tiny_run: TinyRun, command: Command, tmp_path: Path):
    """SIGKILL as a checkpoint begins to be written, as one is whole, in mid-training, and as the model is written."""
    folder = tmp_path / "run"
    words = command(folder, resume=True)  # there is nothing yet: it starts
    moments = [
        lambda: (folder / "checkpoint-5").exists(),
        lambda: (folder / "checkpoint-5" / "trainer_state.json").exists(),
        lambda: (folder / "checkpoint-10" / "model.safetensors").exists(),
        lambda: (folder / "config.json").exists(),
    ]
    for moment in moments:
        kill_at(words, moment)
        assert not (folder / "run.json").exists()
    finish(words)
    assert_same_run(folder, tiny_run.folder)


@pytest.mark.long
@pytest.mark.usefixtures("undrawn")
def test_early_stopping_is_remembered(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A learning rate of 0 makes no evaluation better than the first, so the third of six epochs is the last."""
    changes = {"learning_rate": 0.0, "early_stopping_patience": 2, "num_train_epochs": 6, "freeze": "all"}
    changes["save_total_limit"] = 3
    whole = tmp_path / "whole"
    train.main(command(whole, **changes))
    assert len(LINE.findall(capsys.readouterr().out)) == 3
    assert json.loads((whole / "run.json").read_text())["best_step"] == 5

    # Killed after the second evaluation: one more without a better one has to be enough.
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoint-15")
    train.main(command(killed, resume=True, **changes))
    assert len(LINE.findall(capsys.readouterr().out)) == 1
    assert_same_run(killed, whole)

    # Killed after the end: nothing is left to train.
    ended = tmp_path / "ended"
    shutil.copytree(whole, ended)
    train.main(command(ended, resume=True, **changes))
    assert not LINE.findall(capsys.readouterr().out)
    assert_same_run(ended, whole)


def assert_same_run(folder: Path, reference: Path) -> None:
    assert weights(folder) == weights(reference)
    first, second = (json.loads((path / "run.json").read_text()) for path in (folder, reference))
    assert first["best_step"] == second["best_step"]
    assert first["steps"] == second["steps"]
    assert (folder / "metrics.json").read_text() == (reference / "metrics.json").read_text()
    assert (folder / "predictions.csv").read_text() == (reference / "predictions.csv").read_text()
    assert training_curve(folder) == training_curve(reference)


def training_curve(folder: Path) -> list[tuple[int, float]]:
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


# ---- two processes


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_learn_as_one(command: Command, tmp_path: Path):
    """`accelerate launch` with gloo, 2 x 4 images a step, against one process with 8.

    Batch norm is frozen, since in training it normalises by the images of its own process: with it, two processes
    compute another function. What is left has to agree, loss and weights. `--multi_gpu` stands for several processes,
    which find no GPU here; with `--cpu --num_processes 2`, accelerate 1.15 silently starts a single one.
    """
    changes = {"freeze": "all", "max_steps": 4, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 4}
    changes |= {"save_strategy": "steps", "save_steps": 4}
    train.main(command(tmp_path / "one", **changes))
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --main_process_port 0 train.py"
    words = command(tmp_path / "two", per_device_train_batch_size=4, **changes)
    launched = [sys.executable, "-m", *launch.split(), *words]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(launched, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The model, its report and its card are in") == 1
    assert len(LINE.findall(done.stdout)) == 1

    one, two = (training_curve(tmp_path / name) for name in ("one", "two"))
    assert [step for step, _ in one] == [1, 2, 3, 4]
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in two], abs=1e-3)
    weights_one, weights_two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in weights_one.items():
        assert (tensor - weights_two[name]).abs().max() < 1e-3, name
    record = json.loads((tmp_path / "two" / "arguments.json").read_text())
    assert record["processes"] == 2


def _as_process(rank: int, port: int, words: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train.main(words)


def run_in_two_processes(words: list[str]) -> list[int | None]:
    """Exit statuses of both processes; None for one that hung."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [PROCESSES.Process(target=_as_process, args=(rank, port, words)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(180)
    statuses = [process.exitcode for process in both]
    for process in both:
        process.kill()
    return statuses


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_write_one_whole_folder(command: Command, tmp_path: Path):
    """Nothing frozen. Then, on the same folder: an error ends both processes, neither waits for the other."""
    folder = tmp_path / "run"
    words = command(folder, per_device_train_batch_size=4, num_train_epochs=1)
    assert run_in_two_processes(words) == [0, 0]
    assert {path.name for path in folder.iterdir()} >= {*RESULTS, "figures", "predictions.csv"}
    assert not list(folder.rglob("*.tmp"))
    assert Predictor.from_pretrained(folder).labels == CLASS_NAMES
    assert sorted(path.name for path in (folder / "checkpoint-5").glob("rng_state*")) == [
        "rng_state_0.pth",
        "rng_state_1.pth",
    ]
    assert run_in_two_processes(words) == [2, 2]


# ---- several laboratories


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_other_classes_are_calibrated_on_alone(
    command: Command, folder_of_cells: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    shutil.copytree(folder_of_cells, tmp_path / "cells")
    (tmp_path / "cells" / "artefact").mkdir()
    for index, noise in enumerate(np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(noise).save(tmp_path / "cells" / "artefact" / f"{index}.png")
    words = {"dataset": tmp_path / "cells", "num_train_epochs": 1}
    caplog.set_level(logging.INFO, "wbc_hf.training.calibrate")
    train.main(command(tmp_path / "run", **words, other_classes="none_of_these"))
    assert "12 images of other classes are kept as none of these, for the calibration alone: artefact" in caplog.text
    assert "% of 12 images of other classes are unfamiliar to the model" in caplog.text
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["splits"] == {
        "train": dict.fromkeys(CLASS_NAMES, 8),
        "validation": dict.fromkeys(CLASS_NAMES, 2),
        "test": dict.fromkeys(CLASS_NAMES, 2),
    }


@pytest.mark.usefixtures("undrawn")
def test_one_class_alone_is_said(
    command: Command, folder_of_cells: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "monocyte").symlink_to(folder_of_cells / "monocyte")
    train.main(command(tmp_path / "run", dataset=tmp_path / "cells", num_train_epochs=1))
    assert "has images of monocyte only, so the model will call every cell one of these." in caplog.text


def leaves(value: object, place: str = "") -> dict[str, object]:
    """The values within dictionaries and lists, by place."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        return {place: value}
    return {name: leaf for key, part in parts for name, leaf in leaves(part, f"{place}/{key}").items()}


@pytest.mark.long
def test_sets_of_two_laboratories(command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Trained together, with exchanged stains and balanced; each has its row in the figures and in the card."""
    labels = np.repeat(np.arange(len(CLASS_NAMES)), 12)
    for seed, name in enumerate(("north", "south")):
        for index, (label, cell) in enumerate(zip(labels, paint_cells(labels, size=48, seed=seed), strict=True)):
            folder = tmp_path / name / CLASS_NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cell // (seed + 1)).save(folder / f"{index:03d}.png")
    sets = [str(tmp_path / name) for name in ("north", "south")]
    folder = tmp_path / "run"
    words = [word for word in command(folder, laboratories="many", num_train_epochs=1) if "--dataset" not in word]
    train.main([*words, "--dataset", *sets, "--balance", ".5"])

    record = json.loads((folder / "run.json").read_text())
    assert [origin["laboratory"] for origin in record["data"]["origins"]] == ["north", "south"]
    assert record["arguments"]["dataset"] == sets
    assert record["arguments"]["balance"] == 0.5
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {name: figures["count"] for name, figures in metrics["laboratories"].items()} == {"north": 10, "south": 10}
    card = (folder / "README.md").read_text()
    assert len(re.findall(r"^\| (?:north|south) \|", card, re.MULTILINE)) == 4
    assert str(tmp_path) not in card

    again = CliRunner().invoke(app, ["evaluate", str(folder), *sets, "--output", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    # Not to the last digit: one of the two answers is computed by another library, where that is faster.
    assert leaves(json.loads((tmp_path / "again" / "metrics.json").read_text())) == pytest.approx(
        leaves(metrics), abs=1e-6
    )
    assert "in other splits" not in caplog.text
    assert CliRunner().invoke(app, ["evaluate", str(folder), sets[1]]).exit_code == 0
    assert f"{sets[1]}: {folder} was trained on images of this set, in other splits" in caplog.text
