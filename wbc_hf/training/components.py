"""What a run is put together from: network, caches and trainer."""

import shutil
from functools import partial
from pathlib import Path

import torch
from datasets import IterableDataset, IterableDatasetDict
from transformers import ResNetForImageClassification, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import HubUnreachableError
from wbc_hf.inference import BATCH_SIZE
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_pretrained, build_from_scratch, fetch_pretrained, freeze, skip_frozen
from wbc_hf.training.arguments import DataArguments, LeucocyteTrainingArguments, ModelArguments
from wbc_hf.training.caches import Caches, FrozenLayers, cache_frozen_layers, cache_images
from wbc_hf.training.checkpoints import last_complete_checkpoint, train_to_end
from wbc_hf.training.distillation import DistillationTrainer, Teacher
from wbc_hf.training.run_folder import CACHE_FOLDER
from wbc_hf.training.sampling import BalancedSampler, balanced_weights, expected_draws
from wbc_hf.training.trainer import LeucocyteTrainer
from wbc_hf.training.transforms import (
    EvaluationTransform,
    TrainingTransform,
    build_augmentation,
    find_styles,
    training_edge,
)

_DEFAULT_IMAGE_SIZE = 224
_SHUFFLE_BUFFER = 1000


def build_network(
    model: ModelArguments, training: LeucocyteTrainingArguments
) -> tuple[ResNetForImageClassification, BaseImageProcessor]:
    """Build the network of a run with its frozen layers, and its image processor.

    Raises:
        WbcError: There is no such model, or it cannot have that width, size or depth.
    """
    set_seed(training.seed)
    if model.from_scratch:
        network, processor = build_from_scratch(model.width, image_size=model.image_size or _DEFAULT_IMAGE_SIZE)
    else:
        with training.main_process_first(desc="fetching the model"):
            source = _fetch(model.model)
        network, processor = build_from_pretrained(source, image_size=model.image_size)
    freeze(network, model.freeze)
    return network, processor


def _fetch(model: str) -> Path:
    """As `fetch_pretrained`; where no Hub can be reached, the error names what else training can start from."""
    try:
        return fetch_pretrained(model)
    except HubUnreachableError as error:
        ships = f"--model {DEFAULT_MODEL_FOLDER}, the model that ships, or " if DEFAULT_MODEL_FOLDER.is_dir() else ""
        raise HubUnreachableError(f"{error} What training can start from here: {ships}--from_scratch.") from error


def build_caches(
    leucocytes: Leucocytes | IterableDatasetDict,
    network: ResNetForImageClassification,
    processor: BaseImageProcessor,
    data: DataArguments,
    model: ModelArguments,
    training: LeucocyteTrainingArguments,
    teacher: Teacher | None = None,
) -> Caches | None:
    """Cache decoded images, or the output of frozen layers, in the run's folder.

    Training images are as large as the network or its teacher needs them.

    Returns:
        The caches; None for streams, and where the disk has no room for decoded images.

    Raises:
        WbcError: The disk has no room for what --cached_views asks for.
    """
    if isinstance(leucocytes, IterableDatasetDict):
        return None
    folder = Path(training.output_dir) / CACHE_FOLDER
    views = processor if teacher is None else teacher.view_processor(processor)
    edge = training_edge(views, data.laboratories)
    # The first process computes, the others read.
    with training.main_process_first(desc="caching"):
        styles = find_styles(leucocytes, views, data.laboratories, data.split_seed)
        if not model.cached_views:
            return cache_images(leucocytes, processor, edge, folder, styles)
        dtype = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else torch.float32
        return cache_frozen_layers(
            leucocytes,
            FrozenLayers(network, processor, model.freeze, training.device, dtype),
            build_augmentation(processor, data.laboratories, data.augmentation, styles),
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
    teacher: Teacher | None = None,
) -> LeucocyteTrainer:
    """Build the trainer of a run, with its rows, augmentation and class weights.

    Args:
        caches: From `build_caches`; without, images are read and decoded in every epoch. Where they hold the output
            of frozen layers, `network` skips these layers from now on.
        teacher: Whose predictions the network learns, if any.
    """
    views = processor if teacher is None else teacher.view_processor(processor)
    edge, evaluation_transform = training_edge(views, data.laboratories), EvaluationTransform(processor)
    weights = sampler = styles = None
    if isinstance(leucocytes, IterableDatasetDict):
        stream = leucocytes["train"].shuffle(seed=training.seed, buffer_size=_SHUFFLE_BUFFER)
        train = _map(stream, TrainingTransform(edge))
        validation = _map(leucocytes["validation"], evaluation_transform)
    else:
        if caches is None:
            styles = find_styles(leucocytes, views, data.laboratories, data.split_seed)
            train_transform = TrainingTransform(edge, styles.laboratories if styles else ())
            train = leucocytes["train"].with_transform(train_transform)
            validation = leucocytes["validation"].with_transform(evaluation_transform)
        else:
            if caches.depth != "none":
                skip_frozen(network, caches.depth)
            train, validation, styles = caches.train, caches.validation, caches.styles
        labels = leucocytes["train"]["label"]
        draws = expected_draws(labels, leucocytes["train"]["laboratory"], data.balance)
        if data.balance:
            sampler = BalancedSampler(draws, training.seed)
        if training.class_weights == "balanced":
            weights = balanced_weights(labels, len(CLASS_NAMES), draws)
    kind = LeucocyteTrainer if teacher is None else partial(DistillationTrainer, teacher=teacher)
    return kind(
        network,
        training,
        processor=processor,
        augmentation=build_augmentation(views, data.laboratories, data.augmentation, styles),
        class_weights=weights,
        sampler=sampler,
        train_dataset=train,
        eval_dataset=validation,
    )


def train_network(
    leucocytes: Leucocytes,
    network: ResNetForImageClassification,
    processor: BaseImageProcessor,
    data: DataArguments,
    model: ModelArguments,
    training: LeucocyteTrainingArguments,
) -> LeucocyteTrainer:
    """Train a network in the folder of its run, or resume there; it then has the best weights."""
    checkpoint = last_complete_checkpoint(Path(training.output_dir))
    caches = build_caches(leucocytes, network, processor, data, model, training)
    trainer = build_trainer(leucocytes, network, processor, data, training, caches)
    train_to_end(trainer, checkpoint)
    shutil.rmtree(Path(training.output_dir) / CACHE_FOLDER, ignore_errors=True)
    return trainer


def _map(stream: IterableDataset, transform: TrainingTransform | EvaluationTransform) -> IterableDataset:
    return stream.map(transform, batched=True, batch_size=BATCH_SIZE, remove_columns=list(stream.features))
