"""Training runs: arguments, caches, trainer, hyperparameter search, and the run itself."""

from wbc_hf.training.arguments import Arguments, DataArguments, LeucocyteTrainingArguments, ModelArguments
from wbc_hf.training.calibrate import calibrate, calibrate_on_left_out
from wbc_hf.training.components import build_caches, build_network, build_trainer, train_network
from wbc_hf.training.parser import parse
from wbc_hf.training.run import run

__all__ = [
    "Arguments",
    "DataArguments",
    "LeucocyteTrainingArguments",
    "ModelArguments",
    "build_caches",
    "build_network",
    "build_trainer",
    "calibrate",
    "calibrate_on_left_out",
    "parse",
    "run",
    "train_network",
]
