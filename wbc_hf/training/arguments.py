"""What a run can be told: three dataclasses, from the command line, a YAML or JSON file, or both."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from wbc_hf.errors import WbcError
from wbc_hf.modeling import DEFAULT_MODEL, FREEZE_DEPTHS

DEFAULT_DATASET = "kaggle:brikwerk/bccd-white-blood-cell"
PRECISIONS = ("auto", "fp32", "bf16")
CLASS_WEIGHTS = ("none", "balanced")


@dataclass
class DataArguments:
    """Which pictures, and how they are varied."""

    dataset: str = field(
        default=DEFAULT_DATASET,
        metadata={
            "help": "A folder of class sub-folders (with or without split folders), 'kaggle:owner/name', a Hub data "
            "set id, or 'synthetic' (painted cells)."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read a Hub data set while training instead of storing it; needs --max_steps."},
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the split, where the set brings none."})
    augmentation: float = field(
        default=1.0, metadata={"help": "Strength of the augmentation; 0 is none, 1 suits one laboratory."}
    )


@dataclass
class ModelArguments:
    """Which network, and what of it is trained."""

    model: str = field(
        default=DEFAULT_MODEL, metadata={"help": "Where fine-tuning starts: a folder or Hub id of the ResNet family."}
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Start from untrained weights, where no trained ones can be had."}
    )
    width: float = field(
        default=1.0,
        metadata={"help": "With --from_scratch: 1.0 is ResNet-50, 0.25 the same layers with a quarter of the channels."},
    )
    image_size: int | None = field(
        default=None,
        metadata={"help": "Side of the square that the network sees, in pixels. Default: the checkpoint's, or 224."},
    )
    freeze: str = field(
        default="none",
        metadata={
            "help": "Freeze the layers up to and including this one: weights and batch-norm statistics. "
            "'all' trains the head alone.",
            "choices": FREEZE_DEPTHS,
        },
    )


@dataclass
class LeucocyteTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults, and a few of its own.

    Adam is AdamW without decay: `--weight_decay 0`. The best checkpoint is the one with the highest macro F1 on
    validation.
    """

    output_dir: str = field(
        default="runs/leucocytes", metadata={"help": "Folder of the run: checkpoints, model, report, card."}
    )
    num_train_epochs: float = field(default=15.0, metadata={"help": "Passes over the training images."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of AdamW; 0 makes it Adam."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Course of the learning rate."})
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Steps of warm-up; below 1 it is a share of all steps, and 1.0 is one step."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Images per step and device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images per evaluation step and device."})
    label_smoothing_factor: float = field(default=0.1, metadata={"help": "Label smoothing."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: 'epoch', 'steps' or 'no'."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint; as --eval_strategy."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints to keep; 2 or more."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(default="macro_f1", metadata={"help": "What best means."})
    logging_steps: float = field(default=20, metadata={"help": "Steps between two log lines."})
    report_to: str = field(default="tensorboard", metadata={"help": "Where the curves go; 'none' for nowhere."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Leave as it is: images are read lazily."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Leave as it is: early stopping must not forget when a run is resumed."}
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
    precision: str = field(
        default="auto",
        metadata={"help": "Arithmetic: 'auto' is bf16 where the machine has it in hardware.", "choices": PRECISIONS},
    )
    channels_last: bool = field(
        default=True, metadata={"help": "Store images channels-last, which convolutions prefer nearly everywhere."}
    )
    resume: bool = field(default=False, metadata={"help": "Go on from the last checkpoint in --output_dir."})

    def __post_init__(self):
        if self.hub_token is not None:
            raise WbcError("--hub_token: tokens come from the environment alone, as HF_TOKEN, and are never written.")
        if self.save_total_limit is not None and self.save_total_limit < 2:
            raise WbcError("--save_total_limit: at least 2, the best checkpoint and the one before a kill.")
        # Trainer itself would publish every checkpoint with a pickle beside it: the run does it at its end instead.
        self.publish = self.push_to_hub
        self.push_to_hub = False
        if self.publish and not self.hub_model_id:
            raise WbcError("--push_to_hub: where to? Give --hub_model_id owner/name.")
        if not has_accelerator():
            self.use_cpu = True
        self.bf16 = self.bf16 or self.precision == "bf16" or (self.precision == "auto" and has_fast_bf16())
        super().__post_init__()


def has_accelerator() -> bool:
    """Whether there is anything faster than the processor."""
    return torch.accelerator.is_available()


def has_fast_bf16() -> bool:
    """Whether the machine multiplies bf16 in hardware. Without it bf16 is emulated, and slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def make_parser() -> HfArgumentParser:
    """The parser of `train.py`."""
    return HfArgumentParser((DataArguments, ModelArguments, LeucocyteTrainingArguments), prog="train.py")


def parse(argv: Sequence[str]) -> tuple[DataArguments, ModelArguments, LeucocyteTrainingArguments]:
    """Parse a command line whose first word may be a YAML or JSON file of arguments; later words win over the file.

    Raises:
        WbcError: The file cannot be read or names an argument that does not exist.
    """
    parser = make_parser()
    argv = list(argv)
    if argv and Path(argv[0]).suffix in {".yaml", ".yml", ".json"}:
        parser.set_defaults(**_read_file(Path(argv.pop(0)), {action.dest for action in parser._actions}))
    return parser.parse_args_into_dataclasses(argv)


def _read_file(path: Path, known: set[str]) -> dict:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WbcError(f"{path}: the file of arguments could not be read ({error.strerror}).") from None
    try:
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise WbcError(f"{path}: is not valid {path.suffix[1:].upper()} ({error}).") from None
    if not isinstance(values, dict):
        raise WbcError(f"{path}: lines of the form 'argument: value' are expected.")
    unknown = sorted(set(values) - known)
    if unknown:
        raise WbcError(f"{path}: {', '.join(unknown)}: no such argument. `python train.py --help` lists them all.")
    return values
