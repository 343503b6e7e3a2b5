import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import torch

import train
from wbc_hf import hardware
from wbc_hf.errors import WbcError
from wbc_hf.training import DataArguments, LeucocyteTrainingArguments, ModelArguments, arguments, parse

OWN = [
    *(field.name for field in fields(DataArguments)),
    *(field.name for field in fields(ModelArguments)),
    *LeucocyteTrainingArguments.__annotations__,
]
NOT_TO_BE_CHANGED = {"remove_unused_columns", "restore_callback_states_from_checkpoint"}


@pytest.fixture(autouse=True)
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the arguments must be said before any image is looked for."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("images were loaded")

    # The package exports the function of the same name.
    monkeypatch.setattr(import_module("wbc_hf.training.run"), "load_leucocytes", fail)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What `train.py` says as it stops, which has to be one line and no traceback."""
    with pytest.raises(SystemExit) as stopped:
        train.main(words)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("train.py: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "freeze: stage2\nlearning_rate: 2e-3\nstreaming: true\nimage_size: null\n"),
        ("run.yml", "freeze: 'stage2'\nlearning_rate: 0.002\nstreaming: yes\n"),
        ("run.json", json.dumps({"freeze": "stage2", "learning_rate": 2e-3, "streaming": True})),
    ],
)
def test_a_file_of_arguments(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    data, model, training = parse([str(path)])
    assert (model.freeze, training.learning_rate, data.streaming, model.image_size) == ("stage2", 2e-3, True, None)
    assert data.augmentation == 1.0


def test_the_command_line_wins_over_the_file(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("freeze: stage2\nload_best_model_at_end: true\nlabel_names: [labels]\nseed: 1\n")
    _, model, training = parse([str(path), "--freeze", "all", "--no_load_best_model_at_end"])
    assert (model.freeze, training.load_best_model_at_end, training.seed) == ("all", False, 1)
    assert training.label_names == ["labels"]


@pytest.mark.parametrize("text", ["dataset: [a, b]\n", "dataset: b\n"])
def test_several_sets(tmp_path: Path, text: str):
    (tmp_path / "run.yaml").write_text(text)
    assert parse([str(tmp_path / "run.yaml")])[0].dataset == (["a", "b"] if "[" in text else ["b"])
    assert parse([str(tmp_path / "run.yaml"), "--dataset", "c", "d"])[0].dataset == ["c", "d"]


@pytest.mark.parametrize(
    "config", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_files_of_this_project_are_understood(config: Path):
    _, model, _ = parse([str(config)])
    # None of them needs a Hub.
    assert model.from_scratch or model.model == "runs/backbone"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.yaml", "frieze: all\nwidht: 1\n", "frieze, widht: no such argument"),
        ("run.yaml", "warmup_ratio: 0.1\n", "run.yaml: warmup_ratio: there is no such argument; give --warmup_steps"),
        ("run.yaml", "freeze: [all\n", "is not valid YAML"),
        ("run.json", "{", "is not valid JSON"),
        ("run.yaml", "just words", "lines of the form 'argument: value' are expected"),
        ("run.yaml", "freeze: stage9\n", "argument --freeze: invalid choice: 'stage9'"),
        ("run.yaml", "class_weights: balancd\n", "argument --class_weights: invalid choice: 'balancd'"),
        ("run.yaml", "precision: fp8\n", "argument --precision: invalid choice: 'fp8'"),
        ("run.yaml", "num_train_epochs: many\n", "argument --num_train_epochs: invalid float value: 'many'"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str):
    (tmp_path / name).write_text(text)
    assert said in refusal([str(tmp_path / name)], capsys)


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "none.yaml: the file of arguments could not be read (No such file" in refusal(["none.yaml"], capsys)
    (tmp_path / "latin.yaml").write_bytes("dataset: Zellen-für-alle".encode("latin-1"))
    assert "is not a text file in UTF-8" in refusal([str(tmp_path / "latin.yaml")], capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--freeze stage9", "argument --freeze: invalid choice: 'stage9' (choose from"),
        ("--precision fp8", "argument --precision: invalid choice: 'fp8'"),
        ("--class_weights yes", "argument --class_weights: invalid choice"),
        ("--width wide", "argument --width: invalid float value: 'wide'"),
        ("--from_scratch --width 9", "--width 9.0: between 0.0625 and 2 is allowed"),
        ("--from_scratch --image_size 1000", "--image_size 1000: between 32 and 383 pixels"),
        ("--augmentation -1", "--augmentation -1.0: 0 or more"),
        ("--balance 1.5", "--balance 1.5: 0 to 1"),
        ("--streaming --max_steps 9 --balance 0.5", "--balance: counts laboratories and classes first"),
        ("--dataset cells synthetic --painted 9", "--painted: are the same cells as those of --dataset synthetic"),
        ("--frieze all", "--frieze all: no such argument"),
        ("stray", "stray: no such argument"),
        ("--lr_scheduler_type wavy", "wavy"),
        ("--eval_strategy sometimes", "sometimes"),
        ("--eval_strategy no", "--load_best_model_at_end requires the save and eval strategy to match"),
        ("--save_total_limit 1", "--save_total_limit: at least 2"),
        ("--early_stopping_patience -1", "--early_stopping_patience -1: 0 or more"),
        ("--search 2 --search_only --push_to_hub --hub_model_id me/cells", "which --search_only leaves out"),
        ("--early_stopping_patience 2 --no_load_best_model_at_end", "goes with --load_best_model_at_end"),
        ("--search -1", "--search -1: 0 or more trials"),
        ("--search 3 --search_epochs 0", "--search_epochs 0: 1 or more"),
        ("--search 3 --learning_rate 0", "--learning_rate 0: --search tries a tenth to ten times of it"),
        ("--search 3 --metric_for_best_model f2", "--metric_for_best_model f2: is not one of accuracy, "),
        ("--search 3 --streaming --max_steps 9", "--search: every trial goes over all images"),
        ("--evaluation_strategy epoch", "--evaluation_strategy: there is no such argument; give --eval_strategy."),
        ("--warmup_ratio=0.1", "give --warmup_steps, which below 1 is a share of all steps."),
        ("--model-name-or-path x", "--model_name_or_path: there is no such argument; give --model."),
        ("--lr 0.1", "--lr: there is no such argument; give --learning_rate."),
        ("--gradient_checkpointing", "--gradient_checkpointing: a ResNet has none."),
        ("--activation_checkpointing", "--gradient_checkpointing: a ResNet has none."),
        ("--resume --save_only_model", "--save_only_model: leaves out of checkpoints what --resume needs."),
        ("--report_to papyrus", "--report_to papyrus: is not installed. Available are tensorboard"),
        ("--neftune_noise_alpha 5", "--neftune_noise_alpha: is not for classifiers of images."),
        ("--use_cpu --fp16", "--fp16: needs a GPU."),
        ("--optim adamw_bnb_8bit", "--optim adamw_bnb_8bit: You need to install"),
        ("--metric_for_best_model f2", "--metric_for_best_model f2: is not one of accuracy, "),
        ("--per_device_train_batch_size 0", "--per_device_train_batch_size 0: 1 or more."),
        ("--label_smoothing_factor 2", "--label_smoothing_factor 2.0: 0 to 1."),
        ("--learning_rate -1", "--learning_rate -1.0: 0 or more."),
        ("--num_train_epochs 0", "--num_train_epochs 0: above 0."),
        ("--seed -1", "--seed -1: 0 to 4294967295."),
        ("--other_classes drop", "argument --other_classes: invalid choice: 'drop'"),
        ("--streaming --max_steps 9 --other_classes leave_out", "--other_classes: goes over the images once"),
        ("--hub_token hf_secret", "--hub_token: tokens come from the environment alone"),
        ("--resume_from_checkpoint x", "say --resume"),
        ("--push_to_hub", "--push_to_hub: where to? Give --hub_model_id owner/name"),
        ("--push_to_hub --hub_model_id a/b/c", "--hub_model_id a/b/c: not a name for a model on the Hub"),
        ("--streaming", "--streaming: a stream has no length, so say how long to train, with --max_steps N"),
        ("--streaming --max_steps 9 --class_weights balanced", "--class_weights balanced: counts the classes first"),
        ("--model no/such/model", "no/such/model: no such folder, and not a Hub id"),
    ],
)
def test_mistakes_on_the_command_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    message = refusal([*words.split(), f"--output_dir={tmp_path / 'run'}"], capsys)
    assert said in message
    assert "hf_" not in message


def test_a_missing_token_is_noticed_before_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    words = ["--from_scratch", "--push_to_hub", "--hub_model_id=me/cells", f"--output_dir={tmp_path / 'run'}"]
    message = refusal(words, capsys)
    assert "--push_to_hub: no token" in message
    assert "HF_TOKEN" in message
    assert not (tmp_path / "run").exists()


def test_publishing_is_kept_from_trainer():
    _, _, training = parse(["--push_to_hub", "--hub_model_id", "me/cells"])
    assert training.publish
    assert not training.push_to_hub
    assert not parse([])[2].publish


def test_precision(monkeypatch: pytest.MonkeyPatch):
    for fast in (False, True):
        monkeypatch.setattr(arguments, "has_fast_bf16", lambda fast=fast: fast)
        assert parse([])[2].bf16 is fast
        assert parse(["--precision", "fp32"])[2].bf16 is False
        assert parse(["--precision", "bf16"])[2].bf16 is True


def test_bf16_is_fast_where_the_processor_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    for flags, fast in (("fpu avx2", False), ("fpu avx512_bf16", True), ("fpu amx_bf16", True)):
        monkeypatch.setattr(hardware, "processor_says", lambda _, known=flags: known)
        assert arguments.has_fast_bf16() is fast
    monkeypatch.setattr(hardware, "processor_says", lambda _: "")  # not Linux: torch is asked
    for capabilities, fast in (({}, False), ({"avx2": True}, False), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known)
        assert arguments.has_fast_bf16() is fast


def test_several_gpus_in_one_process_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LeucocyteTrainingArguments, "n_gpu", 2)
    with pytest.raises(WbcError, match="2 GPUs, but one process: `accelerate launch"):
        parse([])


def test_help_explains_every_argument_of_this_project(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    explained = text[: text.index("transformers' other TrainingArguments")]
    for name in set(OWN) - NOT_TO_BE_CHANGED:
        entry = explained[explained.index(f"\n  --{name}") + 1 :]
        entry = " ".join(entry[: entry.index("(default")].split()[1:])
        assert len(entry) > 20, name
    assert "--adam_beta1" not in explained
    assert "adam_beta1" in text
    assert max(map(len, explained.splitlines())) <= 100
    assert len(explained.splitlines()) <= 150


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wbc_hf.training.run", interrupt)
    with pytest.raises(SystemExit) as stopped:
        train.main([])
    assert stopped.value.code == 130
    assert "--resume" in capsys.readouterr().err
