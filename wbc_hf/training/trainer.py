"""transformers' Trainer for leucocytes: images in, augmented on the device, with a loss that adds up."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    ResNetForImageClassification,
    Trainer,
)
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, read_image
from wbc_hf.evaluation import LeucocyteMetrics, headline
from wbc_hf.modeling import keep_frozen_in_eval
from wbc_hf.training.arguments import LeucocyteTrainingArguments
from wbc_hf.training.progress import EvaluationLines


@dataclass(frozen=True)
class TrainingTransform:
    """Rows of a data set → small uint8 tensors with a margin for rotation, which the trainer augments in batches.

    Attributes:
        edge: Side of the square, in pixels: what the processor resizes to before it crops.
    """

    edge: int

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return {
            "pixels": [self._pixels(read_image(image)) for image in rows["image"]],
            "labels": rows["label"],
            # The file's name, as a number: which image this is, whatever the order.
            "index": [zlib.crc32(source.encode()) for source in rows["source"]],
        }

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        box = (left, top, left + side, top + side)
        # `reducing_gap` shrinks in two steps: nearly the same picture in a fraction of the time.
        image = image.resize((self.edge, self.edge), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class EvaluationTransform:
    """Rows of a data set → what the saved processor makes of them."""

    processor: BaseImageProcessor

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        images = [read_image(image) for image in rows["image"]]
        pixel_values = self.processor(images, return_tensors="pt").pixel_values
        return {"pixel_values": list(pixel_values), "labels": rows["label"]}


class LeucocyteTrainer(Trainer):
    """A Trainer that augments on the device, keeps frozen layers frozen, and scales its loss by what it counts.

    Args:
        model: With the layers to freeze already frozen.
        args: Arguments of the run.
        processor: Saved beside every checkpoint; gives mean and deviation to normalise augmented images with.
        augmentation: What training images go through before they are normalised.
        class_weights: One weight a class, mean 1 over the training images.
        kwargs: As for `Trainer`; training rows come from `TrainingTransform`, others from `EvaluationTransform`.
    """

    def __init__(
        self,
        model: ResNetForImageClassification,
        args: LeucocyteTrainingArguments,
        *,
        processor: BaseImageProcessor,
        augmentation: Augmentation,
        class_weights: Sequence[float] | None = None,
        **kwargs,
    ):
        if args.channels_last:
            model = model.to(memory_format=torch.channels_last)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        patience = args.early_stopping_patience
        super().__init__(
            model,
            args,
            processing_class=processor,
            compute_metrics=_headline_metrics,
            compute_loss_func=partial(summed_loss, weights=weights, label_smoothing=args.label_smoothing_factor),
            callbacks=[EvaluationLines(), *([EarlyStoppingCallback(patience)] if patience else [])],
            **kwargs,
        )
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        self.augmentation = augmentation
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(processor.image_mean, device=args.device).view(shape)
        self._deviation = torch.tensor(processor.image_std, device=args.device).view(shape)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if "pixels" in inputs:
            inputs = {"pixel_values": self._augmented(inputs["pixels"], inputs["index"]), "labels": inputs["labels"]}
        if self.args.channels_last:
            inputs["pixel_values"] = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
        if model.training:
            keep_frozen_in_eval(self.accelerator.unwrap_model(model))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _augmented(self, pixels: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        # The seed holds what says which image in which step this is, and nothing of how the step was cut up.
        steps = np.full(len(indices), self.state.global_step)
        seeds = np.stack([np.full(len(indices), self.args.seed), steps, indices.cpu().numpy()], axis=1)
        return (self.augmentation(pixels, seeds) - self._mean) / self._deviation


def summed_loss(
    outputs: dict,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy, summed and divided by the images of the whole step, however that was cut up.

    ResNet's own loss is a mean over its part of the step, while Trainer takes it for already divided: with
    accumulation or several processes it would come out too large by their number.

    Args:
        outputs: With `logits`, float (n, classes).
        labels: int64 (n,).
        num_items_in_batch: Images in the whole step; None, in evaluation, gives the plain mean.
        weights: float (classes,), mean 1 over the training images.
        label_smoothing: Share of the target that is spread over all classes.
    """
    logits = outputs["logits"].float()
    loss = F.cross_entropy(
        logits,
        labels,
        weight=None if weights is None else weights.to(logits.device),
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """Inverse class frequencies with mean 1 over the images; 0 for a class without images.

    Args:
        labels: Class index of each training image.
        classes: Number of classes.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.tolist()


def _headline_metrics(prediction: EvalPrediction) -> dict[str, float]:
    references = prediction.label_ids
    return headline(LeucocyteMetrics().compute(predictions=prediction.predictions.argmax(1), references=references))
