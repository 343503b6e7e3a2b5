"""Files that come in through the page, and the answers for those that show one cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from wbc_hf.data import ImageSource, read_image
from wbc_hf.errors import UnreadableImageError
from wbc_hf.inference import Prediction, Predictor

MAX_FILES = 100  # at once, and pictures of one specimen
MAX_FILE_SIZE = "50 mb"
PREVIEW_SIDE = 640  # pixels
CHUNK = 8  # files read and answered together: few, because each may hold 50 million pixels

# Options of Gradio's events. Queues: two specimens are read side by side, so that a visitor with many pictures does
# not hold up the others, and neither holds up a question about one cell.
SPECIMENS: dict[str, Any] = {"concurrency_id": "specimens", "concurrency_limit": 2}
ONE_CELL: dict[str, Any] = {"concurrency_id": "cells", "concurrency_limit": 1}
# Not queued: a queued event that comes just when the one before is answered is lost (Gradio 6.31: the browser closes
# the stream of answers, and with a stream the server drops what waits in it).
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}


@dataclass(frozen=True)
class Upload:
    """A picture, as a rule a file on this machine, and its name where it came from."""

    source: ImageSource
    name: str


@dataclass(frozen=True)
class Answer:
    """The prediction for one file.

    Attributes:
        name: The file's name, without folders.
        prediction: What the model says.
        image: RGB.
    """

    name: str
    prediction: Prediction
    image: Image.Image


def read_uploads(given: dict | list[dict] | None) -> list[Upload]:
    """The files that Gradio passes to a handler with `preprocess=False`.

    With preprocessing, Gradio opens pictures itself, with error messages other than those of `read_image`, and
    renames files. In both cases it checks that a file is one that was uploaded.
    """
    files = [given] if isinstance(given, dict) else given or []
    return [Upload(file["path"], file["orig_name"] or Path(file["path"]).name) for file in files]


def read_or_error(upload: Upload) -> Image.Image | UnreadableImageError:
    """Read a picture as RGB, or return what is wrong with the file."""
    try:
        return read_image(upload.source, upload.name)
    except UnreadableImageError as error:
        return error


def answer_uploads(predictor: Predictor, uploads: Sequence[Upload]) -> Iterator[Answer | UnreadableImageError]:
    """Classify each file as one cell, in order, or yield what is wrong with it."""
    for start in range(0, len(uploads), CHUNK):
        chunk = uploads[start : start + CHUNK]
        images = [read_or_error(upload) for upload in chunk]
        predictions = iter(predictor.predict([image for image in images if isinstance(image, Image.Image)]))
        for upload, image in zip(chunk, images, strict=True):
            if isinstance(image, UnreadableImageError):
                yield image
            else:
                yield Answer(upload.name, next(predictions), image)
