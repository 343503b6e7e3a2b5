"""Knowledge distillation: a small student learns the predictions of a fine-tuned teacher.

Hinton et al. 2015 (arXiv:1503.02531): the student's softened probabilities approach the teacher's. Beyer et al. 2022
(arXiv:2106.05237): both see the same augmented view, and training is long.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from datasets import IterableDatasetDict
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import columns_of_classes
from wbc_hf.inference import MAX_FALL, Predictor, evaluate_predictor, read_training_data
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import cropped_edge, fetch_pretrained
from wbc_hf.training.arguments import ModelArguments
from wbc_hf.training.trainer import LeucocyteTrainer


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned model whose predictions a student learns.

    Attributes:
        predictor: Runs it, on what everybody gets: OpenVINO on processors.
        columns: Bring its classes into the order of `CLASS_NAMES`, (k, 5).
        temperature: Divides the logits of both before they are compared.
        weight: Of the teacher's predictions in the loss, 0 to 1; the labels have the rest.
    """

    predictor: Predictor
    columns: np.ndarray
    temperature: float
    weight: float

    @classmethod
    def load(cls, model: ModelArguments) -> "Teacher":
        """Load the teacher of a run.

        Raises:
            WbcError: There is no such model, it is no ResNet, or lacks one of the five classes.
        """
        assert model.teacher is not None
        fetch_pretrained(model.teacher)
        predictor = Predictor.from_pretrained(model.teacher)
        columns = columns_of_classes(predictor.labels)
        if lacking := [name for name, column in zip(CLASS_NAMES, columns.T, strict=True) if not column.any()]:
            raise WbcError(f"--teacher {model.teacher}: does not know {', '.join(lacking)}, and cannot teach it.")
        return cls(predictor, columns, model.temperature, model.teacher_weight)

    def check_data(self, leucocytes: Leucocytes | IterableDatasetDict) -> None:
        """Check that the teacher has not learned what the student is judged by.

        Raises:
            WbcError: It was trained on the same set in other splits.
        """
        folder = self.predictor.folder
        data = None if folder is None else read_training_data(folder)
        if data is None or not isinstance(leucocytes, Leucocytes):
            return
        provenance = leucocytes.provenance
        shared = [origin.spec for origin in provenance.origins if origin.spec in data.specs]
        if shared and data.fingerprint != provenance.fingerprint:
            raise WbcError(
                f"{self.predictor.name}: was trained on {' '.join(shared)} in other splits, so it has learned test "
                f"images of the student. Give --dataset {data.spec}, and --split_seed of its run."
            )

    def view_processor(self, processor: BaseImageProcessor) -> BaseImageProcessor:
        """The processor of student or teacher that has the larger images: views are made for it, and shrunk."""
        return max(processor, self.predictor.processor, key=cropped_edge)

    def answer(self, views: torch.Tensor) -> torch.Tensor:
        """Logits for augmented views, float32 (n, 3, size, size) of 0 to 1: float32 (n, 5) on their device."""
        pixels = resize_views(views, cropped_edge(self.predictor.processor)).mul(255).round().clamp(0, 255)
        crops = pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        logits, _ = self.predictor.backend.run(crops)
        return torch.from_numpy(logits @ self.columns).to(views.device)


class Targets(NamedTuple):
    """What a batch is trained on: labels int64 (n,), below 0 where there is none, and the teacher's logits (n, 5)."""

    labels: torch.Tensor
    answers: torch.Tensor


class DistillationTrainer(LeucocyteTrainer):
    """A `LeucocyteTrainer` that also learns a teacher's predictions for the views that it trains on.

    Args:
        teacher: The teacher.
        args, kwargs: As for `LeucocyteTrainer`; the augmentation makes views of the size of `view_processor`.
    """

    def __init__(self, *args, teacher: Teacher, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = teacher
        self._size = cropped_edge(self.processing_class)
        assert self.compute_loss_func is not None  # the parent's
        of_labels, temperature, weight = self.compute_loss_func, teacher.temperature, teacher.weight
        self.compute_loss_func = partial(distilled_loss, of_labels=of_labels, temperature=temperature, weight=weight)

    def _network_inputs(self, inputs, training):
        if not training:
            return super()._network_inputs(inputs, training)
        views = self._augmented(inputs)
        targets = Targets(inputs["labels"], self.teacher.answer(views))
        return {"pixel_values": self._normalised(resize_views(views, self._size)), "labels": targets}


def resize_views(views: torch.Tensor, edge: int) -> torch.Tensor:
    """Resize float32 images (n, 3, height, width) to squares, smoothly."""
    if views.shape[-1] == edge:
        return views
    return F.interpolate(views, size=(edge, edge), mode="bilinear", antialias=True)


def distilled_loss(
    outputs: dict,
    targets: Targets | torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    of_labels: Callable[..., torch.Tensor],
    temperature: float,
    weight: float,
) -> torch.Tensor:
    """Weighted sum of the divergence from the teacher's predictions and of the loss on the labels.

    The divergence is that of Kullback and Leibler between probabilities at the temperature, times its square, which
    keeps the size of the gradients (Hinton et al. 2015).

    Args:
        outputs: With `logits`, float (n, 5).
        targets: In training `Targets`; in evaluation labels alone, whose loss is returned.
        num_items_in_batch: Images in the whole step.
        of_labels: As `summed_loss`.
        temperature: Above 0.
        weight: Of the divergence, 0 to 1.
    """
    if isinstance(targets, torch.Tensor):
        return of_labels(outputs, targets, num_items_in_batch)
    labels, answers = targets
    count = len(labels) if num_items_in_batch is None else num_items_in_batch
    logits = outputs["logits"].float()
    ours, theirs = (F.log_softmax(each / temperature, dim=1) for each in (logits, answers.float()))
    divergence = F.kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2 / count
    known = labels >= 0
    return weight * divergence + (1 - weight) * of_labels({"logits": logits[known]}, labels[known], count)


def compare_with_teacher(
    network: PreTrainedModel, processor: BaseImageProcessor, teacher: Teacher, rows: Iterable[Mapping], folder: str
) -> dict[str, float]:
    """Macro F1 of teacher and student on the validation images.

    Args:
        network, processor: Of the trained student.
        teacher: Its teacher.
        rows: The validation split.
        folder: Of the run, for the message.

    Raises:
        WbcError: The student's is lower by more than `MAX_FALL`.
    """
    student = Predictor(network, processor, folder)
    before, after = (evaluate_predictor(each, rows).metrics["macro_f1"] for each in (teacher.predictor, student))
    if before - after > MAX_FALL:
        raise WbcError(
            f"{folder}: macro F1 on validation falls from {before:.4f} of the teacher to {after:.4f} of the student; "
            f"{MAX_FALL} is allowed. Only checkpoints were written. Train longer (--num_train_epochs), with a larger "
            "--image_size or --width, or on more cells (--unlabelled), in another --output_dir."
        )
    return {"macro_f1": before, "student_macro_f1": after}
