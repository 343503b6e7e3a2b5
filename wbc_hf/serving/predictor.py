"""From images to answers: the one way in which evaluation, the command line and the page ask a model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import ImageSource, read_image
from wbc_hf.errors import UnreadableImageError
from wbc_hf.hub import fetch_model
from wbc_hf.modeling import load_classifier, load_processor

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        label: The most likely class.
        probability: Of that class, 0 to 1.
        alternatives: The other classes with their probabilities, the likeliest first.
        status: "uncalibrated": the model folder says nothing of when to trust it.
    """

    label: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    status: str


class Predictor:
    """A classifier with its own image processor, ready to answer.

    Attributes:
        labels: Names of the classes, in the order of the probabilities.
        name: The folder or Hub id it came from.
    """

    def __init__(self, model: torch.nn.Module, processor: BaseImageProcessor, name: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)
        self.processor = processor
        self.name = name
        self.labels = tuple(model.config.id2label[index] for index in range(model.config.num_labels))

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "Predictor":
        """Load a model folder or a Hub id.

        Raises:
            WbcError: No such model, or it is not to be had in safetensors.
            HubUnreachableError: The Hub did not answer and the model is not in the cache.
        """
        folder = fetch_model(model)
        return cls(load_classifier(folder), load_processor(folder), str(model))

    def probabilities(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Probabilities of each class for RGB images as `read_image` gives them.

        Returns:
            float32 (n, classes), 0 to 1, rows sum to 1.
        """
        if not images:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        pixels = pixels.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return self.model(pixels).logits.softmax(1).cpu().numpy()

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
        while read := [_read_or_error(source) for source in islice(remaining, BATCH_SIZE)]:
            rows = iter(self.probabilities([image for image in read if isinstance(image, Image.Image)]))
            for image in read:
                yield self._prediction(next(rows)) if isinstance(image, Image.Image) else image

    def _prediction(self, probabilities: np.ndarray) -> Prediction:
        ranked = [(self.labels[index], float(probabilities[index])) for index in np.argsort(-probabilities)]
        return Prediction(*ranked[0], alternatives=tuple(ranked[1:]), status="uncalibrated")


def _read_or_error(source: ImageSource) -> Image.Image | UnreadableImageError:
    try:
        return read_image(source)
    except UnreadableImageError as error:
        return error
