"""The baseline of the training benchmarks: transformers' Trainer as its own example uses it."""

from collections.abc import Callable

from datasets import Dataset
from transformers import ResNetForImageClassification, Trainer, TrainingArguments
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import read_image


def plain_trainer(
    network: ResNetForImageClassification, processor: BaseImageProcessor, train: Dataset, **settings: object
) -> Trainer:
    """Build a Trainer with defaults but for `settings`: images are decoded and preprocessed in every epoch.

    Args:
        network: With its layers already frozen.
        processor: Of the network.
        train: Rows as `load_leucocytes` gives them.
        settings: Of TrainingArguments.
    """
    quiet = {"remove_unused_columns": False, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    return Trainer(
        network, TrainingArguments(**(quiet | settings)), train_dataset=train.with_transform(processed(processor))
    )


def processed(processor: BaseImageProcessor) -> Callable[[dict[str, list]], dict[str, list]]:
    """Return the transform that preprocesses the images of rows."""

    def transform(rows: dict[str, list]) -> dict[str, list]:
        images = [read_image(image) for image in rows["image"]]
        return {"pixel_values": processor(images, return_tensors="pt").pixel_values, "labels": rows["label"]}

    return transform
