"""From images to answers: the one way in which evaluation, the command line and the page ask a model."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf import __version__
from wbc_hf.data import ImageSource, may_be_stained_cell, read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.hub import fetch_model
from wbc_hf.modeling import Trust, load_classifier, load_processor, look

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        label: The most likely class.
        probability: Of that class, 0 to 1.
        alternatives: The other classes with their probabilities, the likeliest first.
        status: "confident"; "review", a person should look; "unfamiliar", unlike the training images; "not_a_cell",
            nothing that looks like a stained nucleus; or "uncalibrated", where the model folder does not say when to
            trust it.
    """

    label: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    status: str


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered, for whoever reads its answers later.

    Attributes:
        name: Name of its folder, or its Hub id.
        version: The first twelve hexadecimal digits of the SHA-256 of its weights.
        trained_on: Title of its training set, or None where its folder does not say.
        software: Name and version of this package.
    """

    name: str
    version: str
    trained_on: str | None
    software: str


@dataclass(frozen=True)
class _Prepared:
    """What is kept of an image until its batch is full: the image itself may have 50 million pixels.

    pixels float32 (3, height, width), as the processor gives them.
    """

    pixels: torch.Tensor
    may_be_cell: bool


class Predictor:
    """A classifier with its own image processor, ready to answer.

    Attributes:
        labels: Names of the classes, in the order of the probabilities.
        name: The folder or Hub id it came from.
        trust: When to trust the model; None where its folder does not say.
        folder: Where its files lie; None for one that was built in memory.
    """

    def __init__(self, model: torch.nn.Module, processor: BaseImageProcessor, name: str, trust: Trust | None = None):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)
        self.processor = processor
        self.name = name
        self.trust = trust
        self.folder: Path | None = None
        self.labels = tuple(model.config.id2label[index] for index in range(model.config.num_labels))

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "Predictor":
        """Load a model folder or a Hub id.

        Raises:
            WbcError: No such model, or it is not to be had in safetensors.
            HubUnreachableError: The Hub did not answer and the model is not in the cache.
        """
        folder = fetch_model(model)
        predictor = cls(load_classifier(folder), load_processor(folder), str(model), Trust.load(folder))
        predictor.folder = folder
        return predictor

    @cached_property
    def identity(self) -> ModelIdentity:
        """Name and version of the model, for exports."""
        name = self.name
        if self.folder is not None and Path(name).is_dir():
            name = self.folder.resolve().name
        trained_on = None if self.trust is None else self.trust.trained_on
        return ModelIdentity(name, self._version(), trained_on, f"wbc_hf {__version__}")

    def _version(self) -> str:
        """From the weights as they are in memory: the same for every copy of a model, wherever it lies."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def probabilities(self, images: Iterable[Image.Image]) -> np.ndarray:
        """Probabilities of each class for RGB images as `read_image` gives them.

        Returns:
            float32 (n, classes), 0 to 1, rows sum to 1.
        """
        return self.answer(images)[0]

    def look(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of a ResNet for RGB images, one at least: float32 (n, classes) and (n, d).

        See `wbc_hf.modeling.look`.

        Raises:
            WbcError: The model is no ResNet.
        """
        with torch.inference_mode():
            logits, features = look(self.resnet, self.pixels(images))
        return logits.cpu().numpy(), features.cpu().numpy()

    @property
    def resnet(self) -> ResNetForImageClassification:
        """The model, for what looks into it.

        Raises:
            WbcError: It is no ResNet.
        """
        if not isinstance(self.model, ResNetForImageClassification):
            raise WbcError(
                f"{self.name}: is a {self.model.config.model_type!r} model. It gives answers, but features and heat "
                "maps are to be had of the ResNet family alone."
            )
        return self.model

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """What the model gets of RGB images, one at least: float32 (n, 3, height, width) on its device."""
        return self._batch([self._prepare(image) for image in images])

    def answer(self, images: Iterable[Image.Image]) -> tuple[np.ndarray, list[str]]:
        """Probabilities and status of RGB images: float32 (n, classes) and n of the words in `Prediction`."""
        return self._answer([self._prepare(image) for image in images])

    def _prepare(self, image: Image.Image) -> "_Prepared":
        pixels = self.processor([image], return_tensors="pt").pixel_values[0]
        return _Prepared(pixels, self.trust is None or may_be_stained_cell(image))

    def _batch(self, prepared: Sequence["_Prepared"]) -> torch.Tensor:
        pixels = torch.stack([one.pixels for one in prepared])
        return pixels.to(self.device).contiguous(memory_format=torch.channels_last)

    def _answer(self, prepared: Sequence["_Prepared"]) -> tuple[np.ndarray, list[str]]:
        if not prepared:
            return np.zeros((0, len(self.labels)), dtype=np.float32), []
        with torch.inference_mode():
            if self.trust is None:
                logits, features = self.model(self._batch(prepared)).logits, None
            else:
                logits, features = look(self.model, self._batch(prepared))
        probabilities = logits.softmax(1).cpu().numpy()
        if features is None:
            return probabilities, ["uncalibrated"] * len(prepared)
        may_be_cell = [one.may_be_cell for one in prepared]
        return probabilities, self.trust.statuses(probabilities.max(1), features.cpu().numpy(), may_be_cell)

    def predict(self, sources: Iterable[ImageSource]) -> list[Prediction]:
        """Answers for all images, or the error of the first that cannot be read.

        Raises:
            UnreadableImageError: One of the inputs is not an image that can be classified.
        """
        answers = list(self.predict_each(sources))
        for answer in answers:
            if isinstance(answer, UnreadableImageError):
                raise answer
        return answers

    def predict_each(self, sources: Iterable[ImageSource]) -> Iterator[Prediction | UnreadableImageError]:
        """For each input, in order, an answer or what is wrong with it. Reads and answers batch by batch."""
        remaining = iter(sources)
        while batch := [self._read(source) for source in islice(remaining, BATCH_SIZE)]:
            answers = zip(*self._answer([one for one in batch if isinstance(one, _Prepared)]), strict=True)
            for one in batch:
                yield self._prediction(*next(answers)) if isinstance(one, _Prepared) else one

    def _read(self, source: ImageSource) -> "_Prepared | UnreadableImageError":
        try:
            return self._prepare(read_image(source))
        except UnreadableImageError as error:
            return error

    def _prediction(self, probabilities: np.ndarray, status: str) -> Prediction:
        ranked = [(self.labels[index], float(probabilities[index])) for index in np.argsort(-probabilities)]
        return Prediction(*ranked[0], alternatives=tuple(ranked[1:]), status=status)
