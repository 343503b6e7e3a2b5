"""Arguments, trainer and the run."""

from wbc_hf.training.arguments import (
    DataArguments,
    LeucocyteTrainingArguments,
    ModelArguments,
    make_parser,
    parse,
)
from wbc_hf.training.run import run

__all__ = ["DataArguments", "LeucocyteTrainingArguments", "ModelArguments", "make_parser", "parse", "run"]
