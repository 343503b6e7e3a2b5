"""One training run, from its arguments to a model folder with its report and card."""

import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datasets import IterableDatasetDict
from tqdm.auto import tqdm
from transformers import set_seed
from transformers.trainer_callback import TrainerState

from wbc_hf import __version__
from wbc_hf.data import Augmentation, Leucocytes, load_leucocytes, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import format_metrics, render_card, write_json, write_report
from wbc_hf.hub import push_folder
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_pretrained, build_from_scratch, fetch_pretrained, freeze
from wbc_hf.serving import BATCH_SIZE, Predictor
from wbc_hf.training.arguments import DataArguments, LeucocyteTrainingArguments, ModelArguments
from wbc_hf.training.trainer import EvaluationTransform, LeucocyteTrainer, TrainingTransform, balanced_weights

logger = logging.getLogger(__name__)

START_FILE = "arguments.json"
_DEFAULT_IMAGE_SIZE = 224
_SHUFFLE_BUFFER = 1000
_THUMBNAIL = (160, 160)
_LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "accelerate")
# Changing one of these half-way would make a run that no arguments describe.
_FIXED = (
    *(field.name for field in dataclasses.fields(DataArguments)),
    *(field.name for field in dataclasses.fields(ModelArguments)),
    "seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "label_smoothing_factor",
    "class_weights",
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
    folder = Path(training.output_dir)
    started = time.time()
    leucocytes = load_leucocytes(data.dataset, streaming=data.streaming, seed=data.split_seed)
    _check_streaming(data, training)
    arguments = _arguments(data, model, training)
    checkpoint = _find_checkpoint(folder, arguments, _fingerprint(leucocytes), training)

    trainer = build_trainer(leucocytes, data, model, training)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
        metrics = _judge(folder, leucocytes, trainer.state)
        record = _record(leucocytes, data, model, arguments, trainer, metrics, time.time() - started)
        write_json(folder / "run.json", record)
        (folder / "README.md").write_text(render_card(record, metrics, training.hub_model_id), encoding="utf-8")
        print(f"\n{format_metrics(metrics)}\n\nThe model, its report and its card are in {folder}")
        if training.publish:
            print(f"Published: {push_folder(folder, training.hub_model_id, private=bool(training.hub_private_repo))}")
    trainer.accelerator.wait_for_everyone()
    return folder


def build_trainer(
    leucocytes: Leucocytes | IterableDatasetDict,
    data: DataArguments,
    model: ModelArguments,
    training: LeucocyteTrainingArguments,
) -> LeucocyteTrainer:
    """The trainer of a run: network, frozen layers, transforms and augmentation in place."""
    set_seed(training.seed)
    if model.from_scratch:
        network, processor = build_from_scratch(model.width, image_size=model.image_size or _DEFAULT_IMAGE_SIZE)
    else:
        with training.main_process_first(desc="fetching the model"):
            source = fetch_pretrained(model.model)
        network, processor = build_from_pretrained(source, image_size=model.image_size)
    freeze(network, model.freeze)

    size = processor.size["shortest_edge"]
    train_transform = TrainingTransform(edge=int(size / processor.crop_pct))
    evaluation_transform = EvaluationTransform(processor)
    if isinstance(leucocytes, IterableDatasetDict):
        stream = leucocytes["train"].shuffle(seed=training.seed, buffer_size=_SHUFFLE_BUFFER)
        columns = list(stream.features)
        train = stream.map(train_transform, batched=True, batch_size=BATCH_SIZE, remove_columns=columns)
        validation = leucocytes["validation"].map(
            evaluation_transform, batched=True, batch_size=BATCH_SIZE, remove_columns=columns
        )
        weights = None
    else:
        train = leucocytes["train"].with_transform(train_transform)
        validation = leucocytes["validation"].with_transform(evaluation_transform)
        balanced = training.class_weights == "balanced"
        weights = balanced_weights(leucocytes["train"]["label"], len(CLASS_NAMES)) if balanced else None
    return LeucocyteTrainer(
        network,
        training,
        processor=processor,
        augmentation=Augmentation(size, data.augmentation),
        class_weights=weights,
        train_dataset=train,
        eval_dataset=validation,
    )


def _check_streaming(data: DataArguments, training: LeucocyteTrainingArguments) -> None:
    if not data.streaming:
        return
    if training.max_steps <= 0:
        raise WbcError("--streaming: a stream has no length, so say how long to train, with --max_steps N.")
    if training.class_weights != "none":
        raise WbcError("--class_weights balanced: counts the classes first, which a stream does not allow.")


def _arguments(data: DataArguments, model: ModelArguments, training: LeucocyteTrainingArguments) -> dict:
    return dataclasses.asdict(data) | dataclasses.asdict(model) | training.to_dict()


def _fingerprint(leucocytes: Leucocytes | IterableDatasetDict) -> str | None:
    return leucocytes.provenance.fingerprint if isinstance(leucocytes, Leucocytes) else None


# ---- starting and going on


def _find_checkpoint(
    folder: Path, arguments: dict, fingerprint: str | None, training: LeucocyteTrainingArguments
) -> Path | None:
    """Where to go on from; None at the beginning. Notes in the folder what run it holds."""
    start = {name: arguments[name] for name in _FIXED} | {"data_fingerprint": fingerprint}
    with training.main_process_first(desc="looking for an earlier run"):
        if training.process_index == 0:
            _claim(folder, start, training.resume)
        return last_complete_checkpoint(folder)


def _claim(folder: Path, start: dict, resume: bool) -> None:
    start_file = folder / START_FILE
    if not start_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(start_file, start)
        return
    if not resume:
        raise WbcError(f"{folder}: holds a run already. Go on with it: --resume. Or give another --output_dir.")
    before = json.loads(start_file.read_text(encoding="utf-8"))
    changed = [f"{name} was {before.get(name)!r}, now {now!r}" for name, now in start.items() if before.get(name) != now]
    if changed:
        raise WbcError(f"{folder}: --resume goes on with the same run, but {'; '.join(changed)}.")


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end.

    Trainer writes `trainer_state.json` after weights, optimiser and random state: one that cannot be read belongs to a
    checkpoint whose writing was killed.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        except (OSError, ValueError, TypeError):
            logger.warning("%s was not written to its end; going on from the one before.", checkpoint)
            continue
        return checkpoint
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


# ---- judging


def _judge(folder: Path, leucocytes: Leucocytes | IterableDatasetDict, state: TrainerState) -> dict:
    """Answer the test split through the saved folder, as anyone who loads it will, and write the report."""
    predictor = Predictor.from_pretrained(folder)
    labels, names, probabilities, mistakes = [], [], [], {}
    for rows in tqdm(_batches(leucocytes["test"]), desc="Test split", unit="batch", delay=2):
        images = [read_image(row["image"]) for row in rows]
        answers = predictor.probabilities(images)
        for row, image, answer in zip(rows, images, answers, strict=True):
            if answer.argmax() != row["label"]:
                image.thumbnail(_THUMBNAIL)
                mistakes[len(labels)] = image
            labels.append(row["label"])
            names.append(row["source"])
        probabilities.append(answers)
    return write_report(
        folder,
        references=np.array(labels),
        probabilities=np.concatenate(probabilities),
        names=names,
        image_at=mistakes.__getitem__,
        log_history=state.log_history,
    )


def _batches(rows: Iterable[dict]) -> Iterable[list[dict]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _record(
    leucocytes: Leucocytes | IterableDatasetDict,
    data: DataArguments,
    model: ModelArguments,
    arguments: dict,
    trainer: LeucocyteTrainer,
    metrics: dict,
    seconds: float,
) -> dict:
    """What `run.json` says: enough to repeat the run and to write its card."""
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
        "best_checkpoint": Path(trainer.state.best_model_checkpoint).name if trainer.state.best_model_checkpoint else None,
        "data": _describe(leucocytes, data, metrics),
    }


def _describe(leucocytes: Leucocytes | IterableDatasetDict, data: DataArguments, metrics: dict) -> dict:
    if isinstance(leucocytes, IterableDatasetDict):
        tested = {name: figures["support"] for name, figures in metrics["per_class"].items()}
        return {"spec": data.dataset, "title": data.dataset, "licence": None, "homepage": None, "fingerprint": None,
                "given_splits": None, "groups_across": None, "splits": {"test": tested}, "skipped": []}
    provenance = dataclasses.asdict(dataclasses.replace(leucocytes.provenance, skipped=()))
    counts = {}
    for name, split in leucocytes.items():
        by_label = Counter(split["label"])
        counts[name] = {class_name: by_label[index] for index, class_name in enumerate(CLASS_NAMES)}
    skipped = [{"name": error.name, "reason": error.reason} for error in leucocytes.provenance.skipped]
    return provenance | {"splits": counts, "skipped": skipped}
