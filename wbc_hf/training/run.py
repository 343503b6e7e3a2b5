"""One training run, from its arguments to a model folder with its report and card."""

import copy
import dataclasses
import json
import logging
import os
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import IterableDataset, IterableDatasetDict
from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from transformers import ResNetForImageClassification, TrainerState, set_seed
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from wbc_hf import __version__
from wbc_hf.data import (
    Leucocytes,
    audit,
    format_audit,
    leaked_test_images,
    load_leucocytes,
    with_painted,
)
from wbc_hf.distributed import on_first_process
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import format_metrics, render_card
from wbc_hf.files import write_json
from wbc_hf.hub import push_folder
from wbc_hf.inference import BATCH_SIZE, Predictor, evaluate_predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.memory import keep_freed_memory
from wbc_hf.modeling import (
    build_from_pretrained,
    build_from_scratch,
    fetch_pretrained,
    freeze,
    skip_frozen,
)
from wbc_hf.training.arguments import DataArguments, LeucocyteTrainingArguments, ModelArguments
from wbc_hf.training.caches import Caches, Trunk, cache_images, cache_trunk
from wbc_hf.training.calibrate import calibrate
from wbc_hf.training.search import SEARCH_FOLDER, Arguments, Found, TrainerMaker, check_search, search
from wbc_hf.training.trainer import LeucocyteTrainer, balanced_weights
from wbc_hf.training.transforms import EvaluationTransform, TrainingTransform, build_augmentation, training_edge

logger = logging.getLogger(__name__)

START_FILE = "arguments.json"
CACHE_FOLDER = "cache"
_DEFAULT_IMAGE_SIZE = 224
_SHUFFLE_BUFFER = 1000
_LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "accelerate")
# Changing one of these half-way would make a run that no arguments describe.
_FIXED = (
    *(field.name for field in dataclasses.fields(DataArguments)),
    *(field.name for field in dataclasses.fields(ModelArguments)),
    "seed",
    "data_seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "weight_decay",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "label_smoothing_factor",
    "class_weights",
    "early_stopping_patience",
    "eval_strategy",
    "eval_steps",
    "metric_for_best_model",
    "search",
    "bf16",
)


def run(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> Path:
    """Load, fine-tune, judge on the test split, write the folder, and publish it if asked.

    Returns:
        The folder: an ordinary transformers model with `metrics.json`, `run.json`, `predictions.csv`, `figures/` and
        a card as `README.md`.

    Raises:
        WbcError: Something in the arguments or the data cannot be used.
    """
    started = time.time()
    _check(data, model, training)
    keep_freed_memory()
    folder = Path(training.output_dir)
    # Before the images, which take longer: what is wrong here is said at once.
    on_first_process(lambda: _open_folder(folder, training.resume))
    if training.search:
        _open_folder(folder / SEARCH_FOLDER, training.resume)
    network, processor = build_network(model, training)
    with training.main_process_first(desc="loading the images"):
        leucocytes = load_leucocytes(data.dataset, streaming=data.streaming, seed=data.split_seed)
    seen_in_training = with_painted(leucocytes, data.painted, data.split_seed) if data.painted else leucocytes
    found = None
    if training.search:
        found = _search(seen_in_training, network, processor, (data, model, training))
        data, model, training = found.arguments
        freeze(network, model.freeze)
    arguments = _as_dict(data, model, training)
    start = _start(arguments, seen_in_training, training)
    checkpoint = on_first_process(lambda: _claim(folder, start))
    # Who goes on has seen the audit; it opens every image.
    seen = checkpoint is not None or found is not None
    if not seen and isinstance(leucocytes, Leucocytes) and training.process_index == 0:
        print(f"{format_audit(audit(leucocytes))}\n", flush=True)

    caches = None
    if checkpoint is None or not _has_ended(checkpoint):
        with _unclaimed_after_error(folder, fresh=checkpoint is None):
            caches = build_caches(seen_in_training, network, processor, data, model, training)
    trainer = build_trainer(seen_in_training, network, processor, data, training, caches)
    train_to_end(trainer, checkpoint)
    trainer.accelerator.wait_for_everyone()
    # The other processes are done: nothing below waits for them, and an error here leaves none of them waiting.
    if trainer.is_world_process_zero():
        shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        processor.save_pretrained(folder)
        calibrate(folder, leucocytes, _title(leucocytes, data), training.seed)
        # What anybody gets who loads the folder; an export in it would be of the run before.
        predictor = Predictor.from_pretrained(folder, fresh=True)
        # Nobody looks for near-duplicates in a stream.
        leaked = leaked_test_images(leucocytes) if isinstance(leucocytes, Leucocytes) else None
        metrics = evaluate_predictor(
            predictor, leucocytes["test"], folder, leaked=leaked, log_history=trainer.state.log_history
        ).metrics
        record = _record(leucocytes, data, model, arguments, trainer, metrics, time.time() - started)
        record["answered_by"] = predictor.backend.name
        if found is not None:
            record["search"] = found.record
        write_json(folder / "run.json", record)
        (folder / "README.md").write_text(render_card(record, metrics, training.hub_model_id), encoding="utf-8")
        print(f"\n{format_metrics(metrics)}\n\nThe model, its report and its card are in {folder}")
        if training.publish:
            print(f"Published: {push_folder(folder, training.hub_model_id, private=bool(training.hub_private_repo))}")
    return folder


def build_network(
    model: ModelArguments, training: LeucocyteTrainingArguments
) -> tuple[ResNetForImageClassification, BaseImageProcessor]:
    """The network of a run with its frozen layers, and its image processor.

    Raises:
        WbcError: No such model, or a width, size or depth that it cannot have.
    """
    set_seed(training.seed)
    if model.from_scratch:
        network, processor = build_from_scratch(model.width, image_size=model.image_size or _DEFAULT_IMAGE_SIZE)
    else:
        with training.main_process_first(desc="fetching the model"):
            source = fetch_pretrained(model.model)
        network, processor = build_from_pretrained(source, image_size=model.image_size)
    freeze(network, model.freeze)
    return network, processor


def build_caches(
    leucocytes: Leucocytes | IterableDatasetDict,
    network: ResNetForImageClassification,
    processor: BaseImageProcessor,
    data: DataArguments,
    model: ModelArguments,
    training: LeucocyteTrainingArguments,
) -> Caches | None:
    """What need not be computed in every epoch, in the run's folder; None for streams, and where the disk is too full.

    Raises:
        WbcError: The disk has no room for what --cached_views asks for.
    """
    if isinstance(leucocytes, IterableDatasetDict):
        return None
    folder = Path(training.output_dir) / CACHE_FOLDER
    # The first process computes, the others read.
    edge = training_edge(processor, data.laboratories)
    with training.main_process_first(desc="caching what the run computes once"):
        if not model.cached_views:
            return cache_images(leucocytes, processor, edge, folder)
        dtype = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else torch.float32
        return cache_trunk(
            leucocytes,
            Trunk(network, processor, model.freeze, training.device, dtype),
            build_augmentation(processor, data.laboratories, data.augmentation),
            edge,
            folder,
            views=model.cached_views,
            seed=training.seed,
        )


def build_trainer(
    leucocytes: Leucocytes | IterableDatasetDict,
    network: ResNetForImageClassification,
    processor: BaseImageProcessor,
    data: DataArguments,
    training: LeucocyteTrainingArguments,
    caches: Caches | None = None,
) -> LeucocyteTrainer:
    """The trainer of a run: rows, augmentation and class weights in place.

    Args:
        caches: As `build_caches` gives them; without, images are read and decoded as they are needed. Where layers
            are computed already, `network` skips them from now on.
    """
    train_transform = TrainingTransform(training_edge(processor, data.laboratories))
    evaluation_transform = EvaluationTransform(processor)
    weights = None
    if isinstance(leucocytes, IterableDatasetDict):
        stream = leucocytes["train"].shuffle(seed=training.seed, buffer_size=_SHUFFLE_BUFFER)
        train = _map(stream, train_transform)
        validation = _map(leucocytes["validation"], evaluation_transform)
    else:
        if caches is None:
            train = leucocytes["train"].with_transform(train_transform)
            validation = leucocytes["validation"].with_transform(evaluation_transform)
        else:
            if caches.depth != "none":
                skip_frozen(network, caches.depth)
            train, validation = caches.train, caches.validation
        if training.class_weights == "balanced":
            weights = balanced_weights(leucocytes["train"]["label"], len(CLASS_NAMES))
    return LeucocyteTrainer(
        network,
        training,
        processor=processor,
        augmentation=build_augmentation(processor, data.laboratories, data.augmentation),
        class_weights=weights,
        train_dataset=train,
        eval_dataset=validation,
    )


def _search(
    leucocytes: Leucocytes, network: ResNetForImageClassification, processor: BaseImageProcessor, given: Arguments
) -> Found:
    """Search from this network, whose weights stay as they are; the folder remembers which search it holds."""
    training = given[-1]
    folder = Path(training.output_dir)
    # Once the run itself has begun, further trials could only contradict it.
    if (folder / START_FILE).exists():
        before = json.loads((folder / START_FILE).read_text(encoding="utf-8")).get("search", 0)
        if before != training.search:
            raise WbcError(
                f"{folder}: --resume goes on with the same run, but --search was {before}, now {training.search}."
            )
    fresh = not (folder / SEARCH_FOLDER / START_FILE).exists()
    start = _start(_as_dict(*given), leucocytes, training) | {"search_epochs": training.search_epochs}
    del start["search"]  # a search may be taken up again for more trials
    _claim(folder / SEARCH_FOLDER, start)
    if fresh:
        print(f"{format_audit(audit(leucocytes))}\n", flush=True)

    def prepare() -> TrainerMaker:
        with _unclaimed_after_error(folder / SEARCH_FOLDER, fresh=fresh):
            return trial_trainers(leucocytes, network, processor, given)

    return search(*given, prepare)


def trial_trainers(
    leucocytes: Leucocytes, network: ResNetForImageClassification, processor: BaseImageProcessor, given: Arguments
) -> TrainerMaker:
    """Compute once what all trials share; what this returns makes a trainer for the arguments of one.

    Args:
        network: With the layers frozen that `given` says. Each trainer has a copy, with no fewer layers frozen.
    """
    caches = build_caches(leucocytes, network, processor, *given)

    def make_trainer(
        data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments
    ) -> LeucocyteTrainer:
        tried = copy.deepcopy(network)
        freeze(tried, model.freeze)
        return build_trainer(leucocytes, tried, processor, data, training, caches)

    return make_trainer


def _map(stream: IterableDataset, transform: TrainingTransform | EvaluationTransform) -> IterableDataset:
    return stream.map(transform, batched=True, batch_size=BATCH_SIZE, remove_columns=list(stream.features))


def _check(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> None:
    """What can be said without looking at model or images."""
    if model.cached_views < 0:
        raise WbcError(f"--cached_views {model.cached_views}: 0 or more.")
    if model.cached_views and model.freeze == "none":
        raise WbcError("--cached_views: keeps what frozen layers give, so say which: --freeze stage3, for one.")
    if model.cached_views and data.streaming:
        raise WbcError("--cached_views: goes over the images once before training, which a stream does not allow.")
    if model.cached_views and training.dataloader_persistent_workers:
        raise WbcError(
            "--dataloader_persistent_workers: with --cached_views they would show the views of the first epoch for "
            "ever. Leave it out."
        )
    if data.laboratories == "many" and not data.augmentation:
        raise WbcError("--laboratories many: is an augmentation, so --augmentation has to be above 0.")
    if data.painted < 0 or (data.painted and data.streaming):
        raise WbcError(f"--painted {data.painted}: 0 or more, and 0 with --streaming.")
    if data.painted and data.dataset.split(":")[0] == "synthetic":
        raise WbcError(
            "--painted: are the same cells as those of --dataset synthetic, also as its test split. Leave it."
        )
    if data.augmentation < 0:
        raise WbcError(f"--augmentation {data.augmentation}: 0 or more.")
    if data.streaming and training.max_steps <= 0:
        raise WbcError("--streaming: a stream has no length, so say how long to train, with --max_steps N.")
    if data.streaming and training.class_weights != "none":
        raise WbcError("--class_weights balanced: counts the classes first, which a stream does not allow.")
    if training.search:
        check_search(data, model, training)
    if training.publish:
        _check_publishing(training.hub_model_id)


def _check_publishing(repo_id: str) -> None:
    """What would otherwise be noticed after hours of training."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise WbcError(f"--hub_model_id {repo_id}: not a name for a model on the Hub ({error})") from None
    if get_token() is None:
        raise WbcError(
            "--push_to_hub: no token for the Hub. Make one with write permission on "
            "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN."
        )


# ---- starting and going on


def _as_dict(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> dict:
    return dataclasses.asdict(data) | dataclasses.asdict(model) | training.to_dict()


def _start(
    arguments: dict, leucocytes: Leucocytes | IterableDatasetDict, training: LeucocyteTrainingArguments
) -> dict[str, object]:
    """What must be the same when a run is taken up again."""
    fingerprint = leucocytes.provenance.fingerprint if isinstance(leucocytes, Leucocytes) else None
    fixed = {name: arguments[name] for name in _FIXED}
    return fixed | {"data_fingerprint": fingerprint, "processes": training.world_size}


def _open_folder(folder: Path, resume: bool) -> None:
    if (folder / START_FILE).exists():
        if not resume:
            raise WbcError(f"{folder}: holds a run already. Go on with it: --resume. Or give another --output_dir.")
        return
    taken = [name for name in (CONFIG_NAME, SAFE_WEIGHTS_NAME) if (folder / name).exists()]
    if taken:
        raise WbcError(f"{folder}: holds a {taken[0]} that no run wrote. Give another --output_dir.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WbcError(f"{folder}: the folder of the run cannot be made ({error.strerror}).") from None
    if not os.access(folder, os.W_OK):
        raise WbcError(f"{folder}: the folder of the run may not be written to. Give another --output_dir.")


def _claim(folder: Path, start: dict[str, object]) -> Path | None:
    """Note in the folder what run it holds, or check that it holds this one; where to go on from, if anywhere."""
    start_file = folder / START_FILE
    if not start_file.exists():
        write_json(start_file, start)
        return None
    before = json.loads(start_file.read_text(encoding="utf-8"))
    # A name that only one side knows is one that another version of this project has.
    changed = {name: value for name, value in before.items() if name in start and start[name] != value}
    if changed.pop("data_fingerprint", None):
        raise WbcError(f"{folder}: --resume goes on with the same run, but these are other images than it began with.")
    if changed:
        each = "; ".join(f"--{name} was {value!r}, now {start[name]!r}" for name, value in changed.items())
        raise WbcError(f"{folder}: --resume goes on with the same run, but {each}.")
    return last_complete_checkpoint(folder)


@contextmanager
def _unclaimed_after_error(folder: Path, *, fresh: bool) -> Iterator[None]:
    """Where a new run cannot begin, its folder is free again for other arguments."""
    try:
        yield
    except WbcError:
        if fresh:
            (folder / START_FILE).unlink(missing_ok=True)
        raise


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; one warning for each that was not."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        if _is_complete(checkpoint):
            return checkpoint
        logger.warning("%s was not written to its end; going on from the one before.", checkpoint)
    return None


def _is_complete(checkpoint: Path) -> bool:
    """Whether every file can be read to its end.

    Trainer's first process writes weights, optimiser, schedule, random state and `trainer_state.json`, in this order;
    other processes write their random state at the same time, and a rotation may have been deleting the folder.
    """
    try:
        TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        with safe_open(checkpoint / SAFE_WEIGHTS_NAME, framework="pt"):
            pass
    except (OSError, ValueError, TypeError, SafetensorError):
        return False
    # torch's files are zip archives, whose table of contents is written last.
    archives = [checkpoint / OPTIMIZER_NAME, checkpoint / SCHEDULER_NAME, *checkpoint.glob("rng_state*.pth")]
    return len(archives) > 2 and all(map(zipfile.is_zipfile, archives))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def train_to_end(trainer: LeucocyteTrainer, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint if there is one; the best weights are in the model afterwards."""
    if checkpoint is None:
        trainer.train()
        return
    if not _has_ended(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    # Trainer would go on after an early stop, and train past the weights that were the best.
    trainer.state = state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    best = checkpoint.with_name(f"checkpoint-{state.best_global_step}") if state.best_global_step else checkpoint
    load_model(trainer.model, best / SAFE_WEIGHTS_NAME)


def _has_ended(checkpoint: Path) -> bool:
    """Whether nothing was left to be trained after it."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]


# ---- the record


def _record(
    leucocytes: Leucocytes | IterableDatasetDict,
    data: DataArguments,
    model: ModelArguments,
    arguments: dict,
    trainer: LeucocyteTrainer,
    metrics: dict,
    seconds: float,
) -> dict:
    """What `run.json` says: enough to repeat the run and to write its card. Seconds count from the last resumption."""
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    return {
        "base_model": None if model.from_scratch else model.model,
        "width": model.width if model.from_scratch else None,
        "image_size": trainer.processing_class.size["shortest_edge"],
        "parameters": trainer.model.num_parameters(),
        "freeze": model.freeze,
        "arguments": arguments,
        "versions": {"wbc_hf": __version__} | {name: version(name) for name in _LIBRARIES},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "steps": trainer.state.global_step,
        "best_step": best,
        "data": _describe(leucocytes, data, metrics),
    }


def _title(leucocytes: Leucocytes | IterableDatasetDict, data: DataArguments) -> str:
    return leucocytes.provenance.title if isinstance(leucocytes, Leucocytes) else data.dataset


def _describe(leucocytes: Leucocytes | IterableDatasetDict, data: DataArguments, metrics: dict) -> dict:
    if isinstance(leucocytes, IterableDatasetDict):
        tested = {name: figures["support"] for name, figures in metrics["per_class"].items()}
        known = {"spec": data.dataset, "title": data.dataset, "splits": {"test": tested}, "skipped": []}
        return dict.fromkeys(("licence", "homepage", "fingerprint", "given_splits", "groups_across")) | known
    provenance = dataclasses.asdict(dataclasses.replace(leucocytes.provenance, skipped=()))
    images, distinct = {}, {}
    for name, split in leucocytes.items():
        labels, groups = split["label"], split["group"]
        images[name] = _by_class(Counter(labels))
        distinct[name] = _by_class(Counter(label for label, _ in set(zip(labels, groups, strict=True))))
    groups = {group for split in leucocytes.values() for group in split["group"]}
    audit = {
        "distinct_cells": distinct,
        "near_duplicates": sum(map(len, leucocytes.values())) - len(groups),
        "contradictions": provenance["contradictions"],
        "across": provenance["groups_across"],
    }
    skipped = [{"name": error.name, "reason": error.reason} for error in leucocytes.provenance.skipped]
    looked = {} if provenance["near_duplicates"] is None else {"audit": audit}
    return provenance | {"splits": images, "skipped": skipped} | looked


def _by_class(counts: Counter) -> dict[str, int]:
    return {name: counts[index] for index, name in enumerate(CLASS_NAMES)}
