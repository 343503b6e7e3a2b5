"""What a run can be told: three dataclasses, from the command line, a YAML or JSON file, or both."""

import argparse
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from wbc_hf.errors import WbcError
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.modeling import DEFAULT_MODEL, FREEZE_DEPTHS

DEFAULT_DATASET = "kaggle:brikwerk/bccd-white-blood-cell"
PRECISIONS = ("auto", "fp32", "bf16")
CLASS_WEIGHTS = ("none", "balanced")
LABORATORIES = ("one", "many")

# Arguments of transformers that are worth a reader's time; the other hundred are named at the end of the help.
_ALSO_EXPLAINED = (
    "eval_steps",
    "save_steps",
    "dataloader_num_workers",
    "seed",
)
_NOT_TO_BE_CHANGED = ("remove_unused_columns", "restore_callback_states_from_checkpoint")
_HELP_WIDTH = 100


@dataclass
class DataArguments:
    """Which pictures, and how they are varied."""

    _argument_group_name = "pictures"

    dataset: str = field(
        default=DEFAULT_DATASET,
        metadata={
            "help": "A folder of class sub-folders (with or without split folders), 'kaggle:owner/name', a Hub data "
            "set id, or 'synthetic' (painted cells; 'synthetic:N' for N cells a class)."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read a Hub data set while training instead of storing it; needs --max_steps."},
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the split, where the set brings none."})
    augmentation: float = field(
        default=1.0,
        metadata={"help": "Strength of the augmentation: 1 is the default, 0 takes the pictures as they are."},
    )
    laboratories: str = field(
        default="one",
        metadata={
            "help": "Vary pictures as those of one laboratory differ, or as those of many do: framing, stain, focus …",
            "choices": LABORATORIES,
        },
    )
    painted: int = field(
        default=0,
        metadata={"help": "Painted cells of each class to train on beside the pictures."},
    )


@dataclass
class ModelArguments:
    """Which network, and what of it is trained."""

    _argument_group_name = "network"

    model: str = field(
        default=DEFAULT_MODEL, metadata={"help": "Where fine-tuning starts: a folder or Hub id of the ResNet family."}
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Start from untrained weights, where no trained ones can be had."}
    )
    width: float = field(
        default=1.0,
        metadata={"help": "With --from_scratch: 1.0 is ResNet-50, 0.25 the same with a quarter of the channels."},
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the square that the network sees, in pixels; if not given, the checkpoint's, or 224."
        },
    )
    freeze: str = field(
        default="none",
        metadata={
            "help": "Freeze the layers up to and including this one: weights and batch-norm statistics. "
            "'all' trains the head alone.",
            "choices": FREEZE_DEPTHS,
        },
    )
    cached_views: int = field(
        default=0,
        metadata={
            "help": "With --freeze: compute the frozen layers once, for this many augmented views of each image, and "
            "train the others on what they gave, each epoch on the next view. Many times faster; with --augmentation "
            "0 one view gives just the same. 0 computes them anew in every step."
        },
    )


@dataclass
class LeucocyteTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults, and a few of its own.

    Adam is AdamW without decay: `--weight_decay 0`. The best checkpoint is the one with the highest macro F1 on
    validation.

    Attributes:
        publish: Whether the run publishes its folder at the end. `push_to_hub` itself is always False: Trainer would
            upload every checkpoint with a pickle beside it.
    """

    _argument_group_name = "training"

    output_dir: str = field(
        default="runs/leucocytes", metadata={"help": "Folder of the run: checkpoints, model, report, card."}
    )
    num_train_epochs: float = field(default=15.0, metadata={"help": "Passes over the training images."})
    max_steps: int = field(default=-1, metadata={"help": "Steps to train for, instead of epochs, where above 0."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of AdamW; 0 makes it Adam."})
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "Course of the learning rate: 'cosine', 'linear', 'constant' …"}
    )
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Steps of warm-up; below 1 it is a share of all steps, and 1.0 is one step."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Images per step and device."})
    gradient_accumulation_steps: int = field(
        default=1,
        metadata={
            "help": "Parts of a step, each of --per_device_train_batch_size images, where memory is short: 4 times 8 "
            "images learn as 32 at once, but for batch norm."
        },
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images per evaluation step and device."})
    label_smoothing_factor: float = field(
        default=0.1,
        metadata={"help": "Share of the target that is spread over all classes; 0 is plain cross-entropy."},
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: 'epoch', 'steps' or 'no'."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint; as --eval_strategy."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints to keep; 2 or more."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(
        default="macro_f1", metadata={"help": "What best means: 'macro_f1', 'accuracy', 'balanced_accuracy', 'loss' …"}
    )
    logging_steps: float = field(default=20, metadata={"help": "Steps between two points of the training curve."})
    report_to: str = field(
        default="tensorboard", metadata={"help": "Where the curves go, besides the report; 'none' for nowhere."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Leave as it is: images are read lazily."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Leave as it is: early stopping must not forget when a run is resumed."}
    )
    push_to_hub: bool = field(
        default=False,
        metadata={"help": "Publish the finished model; the token comes from HF_TOKEN or `hf auth login`."},
    )
    hub_model_id: str | None = field(default=None, metadata={"help": "With --push_to_hub: where to, owner/name."})
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "With --push_to_hub: true makes a new repository private."}
    )
    class_weights: str = field(
        default="none",
        metadata={
            "help": "'balanced' weighs each class by the inverse of its share, for sets where some are rare.",
            "choices": CLASS_WEIGHTS,
        },
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after this many evaluations without a better one; 0 never stops early."}
    )
    search: int = field(
        default=0,
        metadata={
            "help": "First run this many short trials, judged on validation, poor ones stopped early; then train "
            "with the values of the best. Varied: learning rate, batch (or half), --freeze (no less), weight decay, "
            "label smoothing, and augmentation unless --cached_views fixes it. The first trial has the values given "
            "here. Table and plot: OUTPUT_DIR/search. Cheapest with --freeze and --cached_views."
        },
    )
    search_epochs: int = field(
        default=3,
        metadata={"help": "With --search: epochs of a trial, the learning rate's whole course within them."},
    )
    precision: str = field(
        default="auto",
        metadata={"help": "Arithmetic: 'auto' is bf16 where the machine has it in hardware.", "choices": PRECISIONS},
    )
    channels_last: bool = field(
        default=True, metadata={"help": "Store images channels-last, which convolutions prefer nearly everywhere."}
    )
    resume: bool = field(
        default=False,
        metadata={"help": "Go on from the last checkpoint in --output_dir; start where there is nothing yet."},
    )

    def __post_init__(self):
        if self.hub_token is not None:
            raise WbcError("--hub_token: tokens come from the environment alone, as HF_TOKEN, and are never written.")
        if self.resume_from_checkpoint is not None:
            raise WbcError("--resume_from_checkpoint: say --resume, which takes the last whole checkpoint itself.")
        if self.save_total_limit is not None and self.save_total_limit < 2:
            raise WbcError("--save_total_limit: at least 2, the best checkpoint and the one before a kill.")
        if self.early_stopping_patience < 0:
            raise WbcError(f"--early_stopping_patience {self.early_stopping_patience}: 0 or more evaluations.")
        if self.early_stopping_patience and not self.load_best_model_at_end:
            raise WbcError("--early_stopping_patience: goes with --load_best_model_at_end, which says what better is.")
        if self.search < 0:
            raise WbcError(f"--search {self.search}: 0 or more trials.")
        if self.search_epochs < 1:
            raise WbcError(f"--search_epochs {self.search_epochs}: 1 or more.")
        self.publish = self.push_to_hub
        self.push_to_hub = False
        if self.publish and not self.hub_model_id:
            raise WbcError("--push_to_hub: where to? Give --hub_model_id owner/name.")
        if not has_accelerator():
            self.use_cpu = True
        wants_bf16 = self.precision == "bf16" or (self.precision == "auto" and not self.fp16 and has_fast_bf16())
        self.bf16 = self.bf16 or wants_bf16
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False  # a ResNet uses all; looking for some costs time and warns
        super().__post_init__()
        if self.n_gpu > 1:
            # torch's DataParallel, which Trainer would use, multiplies a loss of our own by the number of GPUs.
            raise WbcError(
                f"{self.n_gpu} GPUs, but one process: `accelerate launch train.py …` uses all of them, "
                "CUDA_VISIBLE_DEVICES=0 the first."
            )


def has_accelerator() -> bool:
    """Whether there is anything faster than the processor."""
    return torch.accelerator.is_available()


def parse(argv: Sequence[str]) -> tuple[DataArguments, ModelArguments, LeucocyteTrainingArguments]:
    """Parse a command line whose first word may be a YAML or JSON file of arguments; later words win over the file.

    Raises:
        WbcError: The file cannot be read, an argument does not exist, or its value is none that it can have.
    """
    parser = make_parser()
    argv = list(argv)
    if argv and Path(argv[0]).suffix in {".yaml", ".yml", ".json"}:
        known = {action.dest for action in parser._actions}
        # As words of a command line, so that the file's values go through the same checks.
        argv = [*_words(_read_file(Path(argv[0]), known)), *argv[1:]]
    try:
        *arguments, unknown = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        # TrainingArguments' own checks, which name the argument.
        raise WbcError(" ".join(str(error).split())) from error
    if unknown:
        parser.error(f"{' '.join(unknown)}: no such argument")
    return tuple(arguments)


def make_parser() -> HfArgumentParser:
    """The parser of `train.py`, whose help explains what this project adds and names the rest."""
    parser = _Parser(
        (DataArguments, ModelArguments, LeucocyteTrainingArguments),
        prog="train.py",
        usage="train.py [arguments.yaml] [--argument value …]",
        formatter_class=_HelpFormatter,
        description="Fine-tune a ResNet to tell leucocytes apart, judge it on the test split, and publish it.\n"
        "A YAML or JSON file may hold the same arguments; what follows it on the line wins.\n"
        "--no_NAME turns off what is on by default.",
    )
    explained = {*LeucocyteTrainingArguments.__annotations__, *DataArguments.__annotations__}
    explained |= {"help", *ModelArguments.__annotations__, *_ALSO_EXPLAINED}
    explained -= set(_NOT_TO_BE_CHANGED)
    others = []
    for action in parser._actions:
        if action.dest in explained:
            if action.nargs == 0 and action.dest != "help":  # --no_NAME
                action.help = argparse.SUPPRESS
        else:
            action.help = argparse.SUPPRESS
            others.append(action.dest)
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
        return name if action.nargs in (0, "?") else f"{name} {(action.metavar or action.dest).upper()}"


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
