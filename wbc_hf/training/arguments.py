"""Arguments of a training run: three dataclasses with their defaults and help."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import TrainingArguments

from wbc_hf.errors import WbcError
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.modeling import DEFAULT_MODEL, FREEZE_DEPTHS

DEFAULT_DATASET = "kaggle:brikwerk/bccd-white-blood-cell"


def _argument(default: Any, description: str, **metadata: Any) -> Any:
    """A dataclass field with its help, as transformers' `HfArg`, which type checkers do not take for the default."""
    return field(default=default, metadata={"help": description, **metadata})


@dataclass
class DataArguments:
    """The images, and their augmentation."""

    _argument_group_name = "images"

    dataset: list[str] = field(
        default_factory=lambda: [DEFAULT_DATASET],
        metadata={
            "help": "A folder (class sub-folders, a table of labels, photographs with boxes …: see docs/data.md), "
            "'kaggle:owner/name', a Hub data set id, or 'synthetic' (painted cells; 'synthetic:N' for N cells a "
            "class). Several are several laboratories."
        },
    )
    streaming: bool = _argument(False, "Read a Hub data set while training instead of storing it; needs --max_steps.")
    other_classes: Literal["refuse", "leave_out", "none_of_these"] = _argument(
        "refuse", "Images of others than the five (docs/data.md)."
    )
    split_seed: int = _argument(0, "Seed of the split, where the set brings none.")
    augmentation: float = _argument(1.0, "Strength of the augmentation; 0 leaves the images as they are.")
    laboratories: Literal["one", "many"] = _argument(
        "one",
        "Augment as images of one laboratory vary, or of many: framing, stain, focus …; several sets also exchange "
        "stains and backgrounds.",
    )
    balance: float = _argument(0.0, "From 0, each image once an epoch, to 1, each class of each laboratory alike.")
    left_out: list[str] = field(
        default_factory=list,
        metadata={"help": "RUN=SET …: runs like this one without a set; confidence is fitted on those."},
    )
    painted: int = _argument(0, "Painted cells of each class to train on beside the images.")
    unlabelled: list[str] = field(
        default_factory=list,
        metadata={"help": "With --teacher: folders of single cells without labels, to train on beside the images."},
    )

    @property
    def left_out_runs(self) -> list[tuple[Path, str]]:
        """The folders in `left_out`, and for each the set that its run did without; "" where none is named."""
        pairs = [pair.partition("=") for pair in self.left_out]
        return [(Path(run), spec) for run, _, spec in pairs]


@dataclass
class ModelArguments:
    """The network, and which of its layers are trained."""

    _argument_group_name = "network"

    model: str = _argument(DEFAULT_MODEL, "Where fine-tuning starts: a folder or Hub id of the ResNet family.")
    from_scratch: bool = _argument(False, "Start from random weights, where no pretrained ones are available.")
    width: float = _argument(1.0, "With --from_scratch: share of the channels of ResNet-50, for example 0.25.")
    image_size: int | None = _argument(
        None, "Side of the square input, in pixels; by default the checkpoint's, or 224."
    )
    freeze: str = _argument(
        "none",
        "Freeze the layers up to and including this one: weights and batch-norm statistics. 'all' trains the head "
        "alone.",
        choices=FREEZE_DEPTHS,
    )
    cached_views: int = _argument(
        0,
        "With --freeze: compute the output of the frozen layers once, for this many augmented views of each image, "
        "and train the others on it, each epoch on the next view. Many times faster; with --augmentation 0 one view "
        "gives the same result. 0 computes it anew in every step.",
    )
    teacher: str | None = _argument(
        None, "A fine-tuned model whose predictions are learned, folder or Hub id: `wbc-hf distil`."
    )
    temperature: float = _argument(2.0, "With --teacher: softens the predictions of both; 1 leaves them.")
    teacher_weight: float = _argument(0.9, "With --teacher: its weight in the loss, 0 to 1; labels have the rest.")


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

    output_dir: str = _argument("runs/leucocytes", "Folder of the run: checkpoints, model, report, card.")
    num_train_epochs: float = 15.0
    learning_rate: float = _argument(1e-3, "Peak learning rate of AdamW.")
    weight_decay: float = _argument(0.05, "Weight decay of AdamW; 0 makes it Adam.")
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.05
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    label_smoothing_factor: float = 0.1
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = _argument(2, "Maximum number of checkpoints; at least 2.")
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = _argument(
        "macro_f1", "Validation metric: 'macro_f1', 'accuracy', 'balanced_accuracy', 'loss' …"
    )
    logging_steps: float = 20
    report_to: str = _argument("tensorboard", "Where the training curves go, besides the report; or 'none'.")
    remove_unused_columns: bool = False  # images are read lazily, from columns that no network knows
    restore_callback_states_from_checkpoint: bool = True  # a resumed run continues the count of early stopping
    push_to_hub: bool = _argument(False, "Publish the finished model; the token is HF_TOKEN or of `hf auth login`.")
    hub_model_id: str | None = _argument(None, "With --push_to_hub: where to, owner/name.")
    hub_private_repo: bool | None = _argument(None, "With --push_to_hub: true makes a new repository private.")
    class_weights: Literal["none", "balanced"] = _argument(
        "none", "'balanced' weighs each class by the inverse of its share of the images."
    )
    early_stopping_patience: int = _argument(
        0, "Stop after this many evaluations without a better one; 0 never stops early."
    )
    search: int = _argument(
        0,
        "First run this many short trials of other hyperparameters, compared on validation, poor ones pruned; then "
        "train with the best. Varied: learning rate, batch (or half), --freeze (no less), weight decay, label "
        "smoothing, and augmentation unless --cached_views fixes it. The first trial has the values given here. Table "
        "and plots: OUTPUT_DIR/search. Cheapest with --freeze and --cached_views.",
    )
    search_epochs: int = _argument(3, "With --search: epochs of a trial, with the whole schedule within them.")
    search_storage: str | None = _argument(
        None,
        "With --search: a database whose trials several processes share: sqlite:///FILE on one machine, or "
        "postgresql+psycopg://USER@HOST/DATABASE (docs/scale.md).",
    )
    search_study: str = _argument("search", "With --search_storage: name of the search there.")
    search_only: bool = _argument(False, "With --search: leave out the run that follows.")
    precision: Literal["auto", "fp32", "bf16"] = _argument(
        "auto", "Arithmetic: 'auto' is bf16 where the hardware computes it."
    )
    channels_last: bool = _argument(True, "Store images channels-last, which convolutions prefer nearly everywhere.")
    resume: bool = _argument(False, "Resume from the last checkpoint in --output_dir, or start if there is none.")

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
        if not self.search and (self.search_storage or self.search_only):
            name = "search_storage" if self.search_storage else "search_only"
            raise WbcError(f"--{name}: goes with --search N, the number of trials.")
        if self.search_only and self.push_to_hub:
            raise WbcError("--push_to_hub: publishes the model of a run, which --search_only leaves out. Drop one.")
        self.publish = self.push_to_hub
        self.push_to_hub = False
        if self.publish and not self.hub_model_id:
            raise WbcError("--push_to_hub: where to? Give --hub_model_id owner/name.")
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
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

    def to_dict(self) -> dict[str, Any]:
        """All values by name, but for the address of a database, which no record or log needs."""
        return super().to_dict() | {"search_storage": None}


class Arguments(NamedTuple):
    """All arguments of a run."""

    data: DataArguments
    model: ModelArguments
    training: LeucocyteTrainingArguments

    def to_dict(self) -> dict[str, object]:
        """All values by name, as they go into JSON."""
        return dataclasses.asdict(self.data) | dataclasses.asdict(self.model) | self.training.to_dict()

    def with_values(self, values: Mapping[str, Any]) -> "Arguments":
        """Replace some values, each in a fresh copy of the dataclass that has it."""
        data, model, training = ({name: values[name] for name in values if hasattr(each, name)} for each in self)
        # It had become `publish`, and will again.
        training = {"push_to_hub": self.training.publish} | training
        return Arguments(
            dataclasses.replace(self.data, **data),
            dataclasses.replace(self.model, **model),
            dataclasses.replace(self.training, **training),
        )
