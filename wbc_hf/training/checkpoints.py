"""Checkpoints: finding the last one that was written completely, and training on from it."""

import json
import logging
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from wbc_hf.training.trainer import LeucocyteTrainer

logger = logging.getLogger(__name__)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, and warn of each newer one that is incomplete."""
    steps = {it.name.removeprefix("checkpoint-"): it for it in folder.glob("checkpoint-*")}
    numbers = sorted((step for step in steps if step.isdecimal()), key=int, reverse=True)  # not what somebody copied
    for checkpoint in (steps[number] for number in numbers):
        if _is_complete(checkpoint):
            return checkpoint
        logger.warning("%s is incomplete; resuming from the checkpoint before it.", checkpoint)
    return None


def has_ended(checkpoint: Path) -> bool:
    """Whether training was over when the checkpoint was written."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    return state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


def train_to_end(trainer: LeucocyteTrainer, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint if there is one; the best weights are in the model afterwards."""
    if checkpoint is None:
        trainer.train()
        return
    if not has_ended(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    # Trainer would go on after an early stop, and train past the best weights.
    trainer.state = state = _load_state(checkpoint)
    best = checkpoint.with_name(f"checkpoint-{state.best_global_step}") if state.best_global_step else checkpoint
    load_model(trainer.model, best / SAFE_WEIGHTS_NAME)


def _is_complete(checkpoint: Path) -> bool:
    """Whether every file can be read to its end.

    Trainer's first process writes weights, optimiser, schedule, random state and `trainer_state.json`, in this order;
    other processes write their random state at the same time, and a rotation may have been deleting the folder.
    """
    try:
        _load_state(checkpoint)
        with safe_open(checkpoint / SAFE_WEIGHTS_NAME, framework="pt"):
            pass
    except (OSError, ValueError, TypeError, SafetensorError):
        return False
    # torch's files are zip archives, whose table of contents is written last.
    archives = [checkpoint / OPTIMIZER_NAME, checkpoint / SCHEDULER_NAME, *checkpoint.glob("rng_state*.pth")]
    return len(archives) > 2 and all(map(zipfile.is_zipfile, archives))


def _load_state(checkpoint: Path) -> TrainerState:
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
