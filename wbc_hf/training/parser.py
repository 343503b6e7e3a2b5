"""The command line of a training run: words, a YAML or JSON file of arguments, or both."""

import argparse
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments

from wbc_hf.errors import WbcError
from wbc_hf.training.arguments import Arguments, DataArguments, LeucocyteTrainingArguments, ModelArguments

# Arguments of transformers that are worth a reader's time; the other hundred are named at the end of the help.
_ALSO_EXPLAINED = ("help", "max_steps", "gradient_accumulation_steps", "eval_steps", "save_steps", "seed")
_NOT_TO_BE_CHANGED = ("remove_unused_columns", "restore_callback_states_from_checkpoint")
# What arguments are called elsewhere, or were in earlier versions of transformers, and what to give here.
_OTHER_NAMES = {
    "evaluation_strategy": "--eval_strategy",
    "warmup_ratio": "--warmup_steps, which below 1 is a share of all steps",
    "model_name": "--model",
    "model_name_or_path": "--model",
    "dataset_name": "--dataset",
    "data_dir": "--dataset",
    "train_dir": "--dataset",
    "epochs": "--num_train_epochs",
    "lr": "--learning_rate",
    "batch_size": "--per_device_train_batch_size",
    "train_batch_size": "--per_device_train_batch_size",
    "eval_batch_size": "--per_device_eval_batch_size",
    "per_gpu_train_batch_size": "--per_device_train_batch_size",
    "per_gpu_eval_batch_size": "--per_device_eval_batch_size",
    "patience": "--early_stopping_patience",
    "no_cuda": "--use_cpu",
    "overwrite_output_dir": "another --output_dir, or --resume",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "push_to_hub_model_id": "--hub_model_id",
    "push_to_hub_token": "the environment variable HF_TOKEN",
}
_HELP_WIDTH = 100
_DATACLASSES = (DataArguments, ModelArguments, LeucocyteTrainingArguments)


def parse(argv: Sequence[str]) -> Arguments:
    """Parse a command line whose first word may be a YAML or JSON file of arguments; later words win over the file.

    Raises:
        WbcError: The file cannot be read, an argument does not exist, or its value is not allowed.
    """
    parser = make_parser()
    argv = list(argv)
    if argv and Path(argv[0]).suffix in {".yaml", ".yml", ".json"}:
        known = {action.dest for action in parser._actions}
        # As words of a command line, so that the file's values go through the same checks.
        argv = [*_words(_read_file(Path(argv[0]), known)), *argv[1:]]
    for word in argv:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        if word.startswith("--") and name in _OTHER_NAMES:
            raise WbcError(f"--{name}: there is no such argument; give {_OTHER_NAMES[name]}.")
    try:
        *arguments, unknown = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, RuntimeError, ImportError) as error:
        # TrainingArguments' own checks, which name the argument, or a package that it needs.
        raise WbcError(" ".join(str(error).split())) from error
    if unknown:
        parser.error(f"{' '.join(unknown)}: no such argument")
    return Arguments(*arguments)


def make_parser() -> HfArgumentParser:
    """Make the parser of `train.py`, whose help explains this project's arguments and names those of transformers."""
    parser = _Parser(
        _DATACLASSES,  # type: ignore[arg-type]
        prog="train.py",
        usage="train.py [arguments.yaml] [--argument value …]",
        formatter_class=_HelpFormatter,
        description="Fine-tune a ResNet to classify leucocytes, evaluate it on the test split, and publish it.\n"
        "A YAML or JSON file may hold the same arguments; what follows it on the line wins.\n"
        "--no_NAME turns off what is on by default.",
    )
    own = {name for each in _DATACLASSES for name in each.__annotations__} - {*_NOT_TO_BE_CHANGED}
    others = []
    for action in parser._actions:
        explained = action.dest in own or action.dest in _ALSO_EXPLAINED
        if not explained:
            others.append(action.dest)
        elif action.help is None:  # only the default is another
            action.help = TrainingArguments.__dataclass_fields__[action.dest].metadata["help"]
        if not explained or (action.nargs == 0 and action.dest != "help"):  # --no_NAME
            action.help = argparse.SUPPRESS
    names = textwrap.fill(", ".join(dict.fromkeys(others)), _HELP_WIDTH, initial_indent="  ", subsequent_indent="  ")
    parser.epilog = (
        "transformers' other TrainingArguments are understood too (what they do: "
        f"https://huggingface.co/docs/transformers/main_classes/trainer):\n{names}"
    )
    return parser


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^(argument --\w+)/\S+:", r"\1:", message)  # without the spelling with dashes
        raise WbcError(f"{message}. `python train.py --help` lists what there is.")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows one spelling of each argument, where HfArgumentParser makes a second with dashes."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=_HELP_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        name = action.option_strings[-1] if action.dest == "help" else action.option_strings[0]
        if action.choices is not None:
            return f"{name} {{{','.join(map(str, action.choices))}}}"
        return name if action.nargs in (0, "?") else f"{name} {str(action.metavar or action.dest).upper()}"


def _read_file(path: Path, known: set[str]) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WbcError(f"{path}: the file of arguments could not be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise WbcError(f"{path}: is not a text file in UTF-8.") from None
    try:
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise WbcError(f"{path}: is not valid {path.suffix[1:].upper()} ({' '.join(str(error).split())}).") from None
    if not isinstance(values, dict):
        raise WbcError(f"{path}: lines of the form 'argument: value' are expected.")
    unknown = sorted(str(name) for name in values if name not in known)
    if renamed := [name for name in unknown if name in _OTHER_NAMES]:
        raise WbcError(f"{path}: {renamed[0]}: there is no such argument; give {_OTHER_NAMES[renamed[0]]}.")
    if unknown:
        raise WbcError(
            f"{path}: {', '.join(unknown)}: no such argument. `python train.py --help` lists what there is."
        )
    return values


def _words(values: dict[str, object]) -> Iterator[str]:
    """`{"freeze": "all", "streaming": True}` → `--freeze=all`, `--streaming=true`; None leaves the default."""
    for name, value in values.items():
        if isinstance(value, list):
            yield from (f"--{name}", *map(str, value))
        elif isinstance(value, (bool, dict)):
            yield f"--{name}={json.dumps(value)}"
        elif value is not None:
            yield f"--{name}={value}"
