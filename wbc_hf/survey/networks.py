"""The survey's networks: trained by the project's own trainer, on the same pictures, by one kind of recipe."""

import logging
import shutil
import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes
from wbc_hf.errors import HubUnreachableError
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.hub import fetch_model
from wbc_hf.modeling import Normalise, Preprocessing, build_processor
from wbc_hf.survey.system import System
from wbc_hf.training import (
    DataArguments,
    LeucocyteTrainingArguments,
    ModelArguments,
    build_caches,
    build_trainer,
    last_complete_checkpoint,
    train_to_end,
)

logger = logging.getLogger(__name__)

_BATCH_SIZE = 64
_FINE_TUNING_RATE = 1e-4


@dataclass(frozen=True)
class Recipe:
    """How networks are trained: AdamW, a cosine, the augmentation for one laboratory, the best epoch on validation.

    The loss is the trainer's own: cross-entropy, a tenth of the target spread over all classes.

    Attributes:
        image_size: Side of what a network sees, in pixels.
        epochs: Passes over the training cells.
        batch_size: Images a step.
        learning_rate: The highest.
        weight_decay: Of AdamW.
        width: Channels of networks that were made for ImageNet, in relation to the published ones. From scratch on
            two cores the whole width takes hours, and a few thousand cells do not need it.
    """

    image_size: int = 96
    epochs: float = 12
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    width: float = 0.25


def fine_tuning(recipe: Recipe) -> Recipe:
    """The same for a network that begins from ImageNet, whose weights large steps would undo."""
    return replace(recipe, learning_rate=_FINE_TUNING_RATE)


class Logits(PreTrainedModel):
    """A plain torch network in the form that the trainer expects: that of a transformers model."""

    config_class = PreTrainedConfig

    def __init__(self, body: nn.Module):
        super().__init__(PreTrainedConfig())
        self.body = body

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return {"logits": self.body(pixel_values)}


class Classifier:
    """A network, and what it takes to train it and to have it look at pictures.

    Args:
        network: Takes `pixel_values`, float (n, 3, side, side), gives `logits`, (n, classes): a transformers image
            classifier, or a torch network within `Logits`.
        recipe: How it is trained, and what it sees.
        folder: For its checkpoints.
        seed: Of the order and the views of the images.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, folder: Path, seed: int = 0):
        self.network, self.recipe, self.folder, self.seed = network, recipe, folder, seed
        self.processor: BaseImageProcessor = build_processor(recipe.image_size)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._preparation = Preprocessing(self.processor)
        self._normalise = Normalise(self.processor, self.device)

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.network.parameters())

    def fit(self, leucocytes: Leucocytes) -> None:
        """Train on "train", keep the epoch with the highest macro F1 on "validation"; takes up what it began."""
        data = DataArguments()
        training = LeucocyteTrainingArguments(
            output_dir=str(self.folder),
            num_train_epochs=self.recipe.epochs,
            learning_rate=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
            per_device_train_batch_size=self.recipe.batch_size,
            report_to="none",
            seed=self.seed,
            disable_tqdm=not sys.stderr.isatty(),
        )
        checkpoint = last_complete_checkpoint(self.folder)
        caches = build_caches(leucocytes, self.network, self.processor, data, ModelArguments(), training)
        trainer = build_trainer(leucocytes, self.network, self.processor, data, training, caches)
        train_to_end(trainer, checkpoint)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self.network.to(self.device).eval()

    def probabilities(self, images: Sequence[Image.Image]) -> np.ndarray:
        """float32 (n, classes) for RGB images."""
        return torch.from_numpy(self._look(images)).softmax(1).numpy()

    def features(self, images: Sequence[Image.Image], layer: nn.Module) -> np.ndarray:
        """What one of the network's layers gives for RGB images, each as one row: float32 (n, d)."""
        kept: list[torch.Tensor] = []
        hook = layer.register_forward_hook(
            lambda _module, _inputs, output: kept.append(output.flatten(1).float().cpu())
        )
        try:
            self._look(images)
        finally:
            hook.remove()
        return torch.cat(kept).numpy()

    @torch.inference_mode()
    def _look(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.network.to(self.device, memory_format=torch.channels_last).eval()
        logits = []
        for start in range(0, len(images), _BATCH_SIZE):
            crops = np.stack([self._preparation.crop(image) for image in images[start : start + _BATCH_SIZE]])
            pixel_values = self._normalise(torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bf16()):
                outputs = self.network(pixel_values=pixel_values)
            logits.append(outputs["logits"].float().cpu().numpy())
        return np.concatenate(logits)


class OneNetwork(System):
    """A system that is one network, from scratch, and nothing else.

    Args:
        folder, seed: As for `System`.
        recipe: How it is trained, and what it sees.
    """

    start = "from scratch"

    def __init__(self, folder: Path, seed: int, recipe: Recipe):
        super().__init__(folder, seed)
        set_seed(seed)
        self._classifier = Classifier(Logits(self._build(recipe)), recipe, folder / "network", seed)

    @staticmethod
    @abstractmethod
    def _build(recipe: Recipe) -> nn.Module:
        """The network: float (n, 3, side, side) → logits (n, classes)."""

    def fit(self, leucocytes: Leucocytes) -> None:
        self._classifier.fit(leucocytes)

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._classifier.probabilities(images)

    @property
    def parameters(self) -> int:
        return self._classifier.parameters


def imagenet_weights(model: str) -> Path | None:
    """The folder of a model trained on ImageNet; None, with one warning, where no Hub can be reached.

    Args:
        model: Its id on the Hub.
    """
    try:
        return fetch_model(model)
    except HubUnreachableError as error:
        logger.warning("%s: training from scratch (%s)", model, error)
        return None
