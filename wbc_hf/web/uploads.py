"""What comes in through the page: files with the names they had, and what can be said of each as one cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wbc_hf.data import ImageSource, read_image
from wbc_hf.errors import UnreadableImageError
from wbc_hf.inference.predictor import Prediction, Predictor

MAX_FILES = 100  # at once, and pictures of one specimen
MAX_FILE_SIZE = "50 mb"
PREVIEW_SIDE = 640  # pixels
# Gradio's queues: two specimens are read side by side, and neither holds up a question about one cell.
SPECIMENS = {"concurrency_id": "specimens", "concurrency_limit": 2}
ONE_CELL = {"concurrency_id": "cells", "concurrency_limit": 1}
CHUNK = 8  # files read and answered together: few, because each may hold 50 million pixels
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Upload:
    """A picture that was given, as a rule a file on this machine, and what it was called where it came from."""

    source: ImageSource
    name: str


@dataclass(frozen=True)
class Answer:
    """What a model says of one file.

    Attributes:
        name: The file's name, without folders.
        prediction: What the model says.
        image: The picture that the model saw, RGB.
    """

    name: str
    prediction: Prediction
    image: Image.Image


def read_uploads(given: dict | list[dict] | None) -> list[Upload]:
    """The files in what Gradio hands to a handler that has `preprocess=False`.

    With preprocessing Gradio opens pictures first, and what it cannot open ends in its words, not in those of
    `read_image`; it also gives files another name. It checks in both cases that a file is one that was uploaded.
    """
    files = [given] if isinstance(given, dict) else given or []
    return [Upload(file["path"], file["orig_name"] or Path(file["path"]).name) for file in files]


def read_or_error(upload: Upload) -> Image.Image | UnreadableImageError:
    """The picture as RGB, or what is wrong with the file."""
    try:
        return read_image(upload.source, upload.name)
    except UnreadableImageError as error:
        return error


def answer_uploads(predictor: Predictor, uploads: Sequence[Upload]) -> Iterator[Answer | UnreadableImageError]:
    """For each file, in order, an answer or what is wrong with it."""
    for start in range(0, len(uploads), CHUNK):
        chunk = uploads[start : start + CHUNK]
        images = [read_or_error(upload) for upload in chunk]
        predictions = iter(predictor.predict([image for image in images if isinstance(image, Image.Image)]))
        for upload, image in zip(chunk, images, strict=True):
            if isinstance(image, UnreadableImageError):
                yield image
            else:
                yield Answer(upload.name, next(predictions), image)


def too_many(count: int) -> str:
    """What is said to whoever gives more than `MAX_FILES`."""
    return f"{count} were given, at most {MAX_FILES} are answered at once: split them, or use `wbc-hf`"
