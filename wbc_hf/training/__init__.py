"""Arguments, trainer and the run."""

from wbc_hf.training.arguments import (
    DataArguments,
    LeucocyteTrainingArguments,
    ModelArguments,
    make_parser,
    parse,
)
from wbc_hf.training.calibrate import calibrate
from wbc_hf.training.run import (
    build_caches,
    build_network,
    build_trainer,
    last_complete_checkpoint,
    run,
    train_to_end,
)

__all__ = [
    "DataArguments",
    "LeucocyteTrainingArguments",
    "ModelArguments",
    "build_caches",
    "build_network",
    "build_trainer",
    "calibrate",
    "last_complete_checkpoint",
    "make_parser",
    "parse",
    "run",
    "train_to_end",
]
