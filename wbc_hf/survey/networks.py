"""Networks of the survey: layers they share, and training by the project's own trainer."""

import logging
import sys
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ResNetForImageClassification, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes
from wbc_hf.errors import HubUnreachableError
from wbc_hf.hardware import has_fast_bf16
from wbc_hf.hub import fetch_model
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import (
    DEFAULT_MODEL,
    Normalise,
    Preprocessing,
    build_from_pretrained,
    build_from_scratch,
    build_processor,
)
from wbc_hf.survey.system import System
from wbc_hf.training import DataArguments, LeucocyteTrainingArguments, ModelArguments, train_network

logger = logging.getLogger(__name__)

_BATCH_SIZE = 64
_FINE_TUNING_RATE = 1e-4


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of training.

    What they do not say is alike for all: AdamW with a cosine schedule, cross-entropy with label smoothing of 0.1, the
    augmentation for one laboratory, the best epoch on validation.

    Attributes:
        image_size: Side of a network's input in pixels.
        epochs: Passes over the training cells.
        batch_size: Images per step.
        learning_rate: Its peak.
        weight_decay: That of AdamW.
        width: Channels of networks made for ImageNet, as a multiple of the published ones. From scratch on two cores
            the whole width takes hours, and a few thousand cells do not need it.
    """

    image_size: int = 96
    epochs: float = 12
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    width: float = 0.25


def fine_tuning(recipe: Recipe) -> Recipe:
    """Adapt a recipe to a network from ImageNet, whose weights large steps would undo."""
    return replace(recipe, learning_rate=_FINE_TUNING_RATE)


class Logits(PreTrainedModel):
    """Wrap a plain torch network as a transformers model, which the trainer expects."""

    config_class = PreTrainedConfig

    def __init__(self, body: nn.Module):
        super().__init__(PreTrainedConfig())
        self.body = body

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return {"logits": self.body(pixel_values)}


class Classifier:
    """A network with its preprocessing and training.

    Args:
        network: From `pixel_values`, float (n, 3, side, side), to `logits`, (n, classes): a transformers image
            classifier, or a torch network within `Logits`.
        recipe: Hyperparameters.
        folder: For checkpoints.
        seed: Random seed of the order and the augmentation of the images.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, folder: Path, seed: int = 0):
        self.network, self.recipe, self.folder, self.seed = network, recipe, folder, seed
        self.processor: BaseImageProcessor = build_processor(recipe.image_size)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._preprocessing = Preprocessing(self.processor)
        self._normalise = Normalise(self.processor, self.device)

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.network.parameters())

    def fit(self, leucocytes: Leucocytes) -> None:
        """Train on "train" and keep the epoch with the highest macro F1 on "validation"; resume from a checkpoint."""
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
        network = cast(ResNetForImageClassification, self.network)  # any image classifier will do
        train_network(leucocytes, network, self.processor, DataArguments(), ModelArguments(), training)
        self.network.to(self.device).eval()

    def probabilities(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Compute class probabilities of RGB images, float32 (n, classes)."""
        return torch.from_numpy(self._logits(images)).softmax(1).numpy()

    def features(self, images: Sequence[Image.Image], layer: str) -> np.ndarray:
        """Compute the outputs of one of the network's layers, by its name, for RGB images: float32 (n, d)."""
        kept: list[torch.Tensor] = []
        with self.network.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output: kept.append(output.flatten(1).float().cpu())
        ):
            self._logits(images)
        return torch.cat(kept).numpy()

    @torch.inference_mode()
    def _logits(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        logits = []
        for start in range(0, len(images), _BATCH_SIZE):
            crops = np.stack([self._preprocessing.crop(image) for image in images[start : start + _BATCH_SIZE]])
            pixel_values = self._normalise(torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bf16()):
                outputs = self.network(pixel_values=pixel_values)
            logits.append(outputs["logits"].float().cpu().numpy())
        return np.concatenate(logits)


class NetworkSystem(System):
    """A system of networks.

    Attributes:
        default_recipe: Hyperparameters where none are given.

    Args:
        folder, seed: As for `System`.
        recipe: Hyperparameters.
    """

    default_recipe: ClassVar[Recipe]

    def __init__(self, folder: Path, seed: int = 0, recipe: Recipe | None = None):
        super().__init__(folder, seed)
        self.recipe = recipe or self.default_recipe
        self._classifiers: list[Classifier] = []

    @property
    def parameters(self) -> int:
        return sum(classifier.parameters for classifier in self._classifiers)


class OneNetwork(NetworkSystem):
    """A system that is one network, trained from scratch."""

    start = "from scratch"

    def fit(self, leucocytes: Leucocytes) -> None:
        set_seed(self.seed)
        network = Logits(self.build(self.recipe))
        self._classifiers = [Classifier(network, self.recipe, self.folder / "network", self.seed)]
        self._classifiers[0].fit(leucocytes)

    @staticmethod
    @abstractmethod
    def build(recipe: Recipe) -> nn.Module:
        """Build the network: float (n, 3, side, side) → logits (n, classes)."""

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self._classifiers[0].probabilities(images)


def build_resnet(recipe: Recipe, folder: Path, seed: int) -> tuple[Classifier, str]:
    """Build a ResNet-50 from ImageNet where the Hub can be reached, else from scratch.

    Returns:
        Its classifier, and where the weights of a system begin whose other networks start from scratch.
    """
    weights = imagenet_weights(DEFAULT_MODEL)
    if weights is None:
        network, _ = build_from_scratch(recipe.width, image_size=recipe.image_size)
        return Classifier(network, recipe, folder / "resnet", seed), "from scratch"
    network, _ = build_from_pretrained(weights, image_size=recipe.image_size)
    # A folder of its own, since checkpoints of one do not fit the other.
    classifier = Classifier(network, fine_tuning(recipe), folder / "resnet-imagenet", seed)
    return classifier, "ImageNet (ResNet-50), from scratch (the others)"


def convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, activation: Callable[[], nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Build a convolution with batch normalisation and an activation, by default ReLU; None leaves that out."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def pass_on(block: nn.Module) -> None:
    """Zero the last scale of a residual block, so that it first passes on its input: Goyal et al. 2017, 1706.02677."""
    *_, last = (layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d))
    nn.init.zeros_(last.weight)


class FeatureNetwork(nn.Sequential):
    """Layers that compute features, (n, channels), and a linear head for the classes."""

    features: nn.Sequential
    head: nn.Linear

    def __init__(self, *layers: nn.Module, channels: int):
        head = nn.Linear(channels, len(CLASS_NAMES))
        super().__init__(OrderedDict(features=nn.Sequential(*layers), head=head))


class Residual(nn.Module):
    """Two convolutions whose result is added to their input (He et al. 2016, arXiv:1512.03385).

    Args:
        inputs, outputs: Channels.
        stride: Of the first convolution. The shortcut is a convolution of 1 x 1 where channels or stride need one.
        activation: After the first convolution and after the sum.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, activation: Callable[[], nn.Module] = nn.ReLU):
        super().__init__()
        self.body = nn.Sequential(
            convolution(inputs, outputs, stride=stride, activation=activation),
            convolution(outputs, outputs, activation=None),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride, activation=None)
        self.activation = activation()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.activation(self.body(hidden) + self.shortcut(hidden))


def imagenet_weights(model: str) -> Path | None:
    """Fetch a model trained on ImageNet by its Hub id; None, with one warning, where no Hub can be reached."""
    try:
        return fetch_model(model)
    except HubUnreachableError as error:
        logger.warning("%s: training from scratch (%s)", model, error)
        return None
