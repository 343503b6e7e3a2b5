"""The folder of a run: opening it, and refusing to resume one that was begun with other arguments or images."""

import dataclasses
from pathlib import Path

from datasets import IterableDatasetDict
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from wbc_hf.data import Leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.files import make_folder
from wbc_hf.manifest import Manifest
from wbc_hf.training.arguments import Arguments, DataArguments, ModelArguments

MANIFEST_FILE = "arguments.json"
CACHE_FOLDER = "cache"
SEARCH_FOLDER = "search"
# Changed half-way, these would make a run that no arguments describe.
_FIXED = (
    *(field.name for field in dataclasses.fields(DataArguments)),
    *(field.name for field in dataclasses.fields(ModelArguments)),
    *("seed", "data_seed", "num_train_epochs", "max_steps", "learning_rate", "weight_decay"),
    *("optim", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "lr_scheduler_type", "warmup_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "label_smoothing_factor", "class_weights"),
    *("early_stopping_patience", "eval_strategy", "eval_steps", "metric_for_best_model", "search", "bf16"),
)
_MESSAGES = dict.fromkeys((*_FIXED, "search_epochs", "search_study"), "--{name} was {before!r}, now {now!r}") | {
    "data_fingerprint": "these are other images than it began with",
    "model_version": "their network was version {before}, this one's is {now}",
    "teacher_version": "its teacher was version {before}, now {now}",
    "processes": "it ran in {before} processes, now in {now}",
}


def open_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a run, or check that it may be used.

    Raises:
        WbcError: It holds a run and `resume` is false, or something else, or it cannot be written to.
    """
    if (folder / MANIFEST_FILE).exists():
        if not resume:
            raise WbcError(f"{folder}: holds a run already. Go on with it: --resume. Or give another --output_dir.")
        return
    taken = [name for name in (CONFIG_NAME, SAFE_WEIGHTS_NAME) if (folder / name).exists()]
    if taken:
        raise WbcError(f"{folder}: holds a {taken[0]} that no run wrote. Give another --output_dir.")
    make_folder(folder, "Give another --output_dir.")


def run_manifest(
    folder: Path, arguments: Arguments, leucocytes: Leucocytes | IterableDatasetDict, teacher: str | None = None
) -> Manifest:
    """The manifest of a run: images, version of the teacher, and every argument that determines the weights."""
    values = arguments.to_dict()
    entries = {name: values[name] for name in _FIXED}
    entries["data_fingerprint"] = leucocytes.provenance.fingerprint if isinstance(leucocytes, Leucocytes) else None
    entries["teacher_version"] = teacher
    entries["processes"] = arguments.training.world_size
    return Manifest(folder / MANIFEST_FILE, entries, _MESSAGES)


def search_manifest(folder: Path, arguments: Arguments, leucocytes: Leucocytes) -> Manifest:
    """The manifest of a search: as that of a run, but for the number of trials, which may grow."""
    manifest = run_manifest(folder, arguments, leucocytes)
    training = arguments.training
    entries = dict(manifest.entries) | {"search_epochs": training.search_epochs}
    entries["search_study"] = training.search_study if training.search_storage else None
    del entries["search"]
    return dataclasses.replace(manifest, entries=entries)


def check_same_run(manifest: Manifest) -> None:
    """Raises WbcError where the folder has been claimed by another run than this one."""
    if manifest.exists() and (changes := manifest.changes()):
        raise WbcError(f"{manifest.path.parent}: --resume continues the same run, but {'; '.join(changes)}.")
