"""transformers' Trainer for leucocytes: augmentation on the device, and a loss scaled by the images of a step."""

from collections.abc import Sequence
from functools import partial
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
)
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Augmentation, OtherLaboratories
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import LeucocyteMetrics, headline
from wbc_hf.modeling import Normalise, keep_frozen_in_eval, training_memory_format
from wbc_hf.training.arguments import LeucocyteTrainingArguments
from wbc_hf.training.caches import CachedRows
from wbc_hf.training.callbacks import EvaluationLines
from wbc_hf.training.sampling import BalancedSampler
from wbc_hf.training.transforms import augment, collate, view_seeds


class DivergedError(WbcError):
    """A training whose loss or weights are no numbers any more, which nothing mends."""


class LeucocyteTrainer(Trainer):
    """A Trainer that augments on the device, keeps frozen layers frozen, and scales its loss by the images of a step.

    Args:
        model: With its frozen layers.
        args: Arguments of the run.
        processor: Saved beside every checkpoint; its mean and standard deviation normalise the augmented images.
        augmentation: Of training images, before they are normalised.
        class_weights: One weight a class, mean 1 over the training images.
        sampler: Draws the training images; by default each is drawn once an epoch.
        kwargs: As for `Trainer`; rows hold `pixels` from `TrainingTransform`, which are augmented, `crops` from
            `EvaluationTransform`, or `hidden`, the output of frozen layers for either.
    """

    args: LeucocyteTrainingArguments
    model: PreTrainedModel
    processing_class: BaseImageProcessor

    def __init__(
        self,
        model: PreTrainedModel,
        args: LeucocyteTrainingArguments,
        *,
        processor: BaseImageProcessor,
        augmentation: Augmentation | OtherLaboratories,
        class_weights: Sequence[float] | None = None,
        sampler: BalancedSampler | None = None,
        **kwargs,
    ):
        self._memory_format = training_memory_format(model) if args.channels_last else torch.contiguous_format
        model = model.to(memory_format=self._memory_format)  # type: ignore[call-arg]
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        patience = args.early_stopping_patience
        super().__init__(
            model,
            args,
            processing_class=processor,
            compute_metrics=_headline_metrics,
            compute_loss_func=partial(summed_loss, weights=weights, label_smoothing=args.label_smoothing_factor),
            callbacks=[EvaluationLines(), StartEpoch(), *([EarlyStoppingCallback(patience)] if patience else [])],
            data_collator=collate,
            **kwargs,
        )
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        self.augmentation = augmentation
        self._sampler = sampler
        self._normalise = Normalise(processor, args.device)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        return self._sampler or super()._get_train_sampler(train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = self._network_inputs(inputs, model.training)
        if model.training:
            keep_frozen_in_eval(self.accelerator.unwrap_model(model))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Trainer would leave it out of what it logs, and train to the end.
        if not loss.isfinite():
            self._stop("loss")
        return loss

    def _save_checkpoint(self, model, trial):
        self.check_weights()
        super()._save_checkpoint(model, trial)

    def check_weights(self) -> None:
        """Check that all weights are finite.

        Raises:
            DivergedError: They are not.
        """
        if not all(tensor.isfinite().all() for tensor in self.model.state_dict().values()):
            self._stop("weights")

    def _stop(self, what: str) -> NoReturn:
        raise DivergedError(
            f"{self.args.output_dir}: after {self.state.global_step} steps the {what} of the training "
            f"{'is' if what == 'loss' else 'are'} not finite any more, so it was stopped. Begin again in another "
            f"folder with a smaller --learning_rate than {self.args.learning_rate:g}"
            f"{' or with --precision fp32' if self.args.bf16 else ''}."
        )

    def _network_inputs(self, inputs: dict[str, torch.Tensor], training: bool) -> dict:
        """What the network and the loss get for a batch, which is of training images or not."""
        if "hidden" in inputs:
            values = inputs["hidden"]
        else:
            values = self._normalised(self._augmented(inputs) if "pixels" in inputs else inputs["crops"])
        return {"pixel_values": values, "labels": inputs["labels"]}

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        return self._normalise(images).contiguous(memory_format=self._memory_format)

    def _augmented(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        seeds = view_seeds(self.args.seed, self.state.global_step, inputs["index"].cpu().numpy())
        return augment(self.augmentation, inputs, seeds)


class StartEpoch(TrainerCallback):
    """Shows the views of each epoch, also in a resumed run."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        rows = kwargs["train_dataloader"].dataset
        if isinstance(rows, CachedRows):
            rows.start_epoch(int(state.epoch))


def summed_loss(
    outputs: dict,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy, summed and divided by the images of the whole step, however that is divided.

    ResNet's own loss is a mean over its part of the step, while Trainer takes it for already scaled: with gradient
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


def _headline_metrics(prediction: EvalPrediction) -> dict[str, float]:
    predictions = np.asarray(prediction.predictions).argmax(1)
    return headline(LeucocyteMetrics().compute(predictions=predictions, references=prediction.label_ids))
