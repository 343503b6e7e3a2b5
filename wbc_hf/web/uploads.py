"""Files that come in through the page, and the answers for those that show one cell."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from wbc_hf.data import (
    MAX_MEMBER_BYTES,
    ImageSource,
    NamedSource,
    count_pixels,
    is_zip,
    read_image,
    slide_kind,
    split_pages,
    unpack,
)
from wbc_hf.errors import UnreadableImageError
from wbc_hf.inference import Prediction, Predictor
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear import SlideField
from wbc_hf.web.turns import turn

MAX_FILES = 100  # of an endpoint at once
MAX_PICTURES = 1000  # of one specimen
MAX_NAME = 1000  # characters of a file's
# Of any upload, as Gradio writes it, in the browser as on the server. One file beyond it, and Gradio refuses all that
# were given with it: behaviour.js leaves such a file out before. A ZIP file may be as large, a picture may not.
MAX_FILE_SIZE = "1 gb"
MAX_PICTURE_BYTES = MAX_MEMBER_BYTES
PREVIEW_SIDE = 640  # pixels
# Read and answered together: as many files, or as many as have so many pixels.
CHUNK, CHUNK_PIXELS = 8, 2_000_000

# Options of Gradio's events: as many start as come, and wait for their turn at each picture.
SPECIMENS: dict[str, Any] = {"concurrency_id": "specimens", "concurrency_limit": 64}
CELLS: dict[str, Any] = {"concurrency_id": "cells", "concurrency_limit": 64}
# Not queued: a queued event that comes just when the one before is answered is lost (Gradio 6.31: the browser closes
# the stream of answers, and with a stream the server drops what waits in it).
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
PROGRESS = gr.Progress()  # of an event's handler: Gradio looks for it among the defaults of arguments


@dataclass(frozen=True)
class Upload:
    """A picture to be read into a specimen.

    Attributes:
        source: As a rule a file on this machine.
        name: Its name where it came from.
        replaces: Number of a picture of the specimen that this one is, to be read once more; None for a new one.
        pixel_size: Width of a pixel in µm, where it is known of the picture that is replaced.
        field: The field that is meant, where the file is a slide.
    """

    source: ImageSource
    name: str
    replaces: int | None = None
    pixel_size: float | None = None
    field: SlideField | None = None


# What the browser sends in place of a file that it does not send, as behaviour.js writes it.
_LEFT_OUT = re.compile(rb"wbc-hf left out: ([^\n]{1,200})")
_LEFT_OUT_SIZE = 300


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
    # A program may say any name. No file system has longer ones, and the end says what a file is.
    names = [escape_surrogates(file["orig_name"] or Path(file["path"]).name)[-MAX_NAME:] for file in files]
    return [Upload(file["path"], name) for file, name in zip(files, names, strict=True)]


def unpack_upload(upload: Upload) -> list[Upload | UnreadableImageError]:
    """List the pictures of an upload, which may be a ZIP file, and what is left out of it."""
    try:
        _check_upload(upload)
    except UnreadableImageError as error:
        return [error]
    return [upload] if upload.field is not None else list(_parts(upload, unpack(upload.source, upload.name)))


def split_upload(upload: Upload) -> Iterator[Upload | UnreadableImageError]:
    """Yield the pages of a picture, and what is left out of it."""
    return iter([upload]) if upload.field is not None else _parts(upload, split_pages(upload.source, upload.name))


def _parts(
    upload: Upload, found: Iterable[NamedSource | UnreadableImageError]
) -> Iterator[Upload | UnreadableImageError]:
    for part in found:
        yield part if isinstance(part, UnreadableImageError) else replace(upload, source=part.source, name=part.name)


def read_upload(upload: Upload) -> Image.Image:
    """Read a picture as RGB.

    Raises:
        UnreadableImageError: It is too large, or from `read_image`.
    """
    _check_upload(upload)
    return read_image(upload.source, upload.name)


def _check_upload(upload: Upload) -> None:
    """Raise an error where a file is too large for a picture, or stands for one that was not sent."""
    if not isinstance(upload.source, str) or not os.path.isfile(upload.source):
        return
    size = os.path.getsize(upload.source)
    if size > MAX_PICTURE_BYTES and not is_zip(upload.source) and slide_kind(upload.source) is None:
        raise UnreadableImageError(
            upload.name,
            f"is too large ({size // 1024**2} MiB); pictures of at most {MAX_PICTURE_BYTES // 1024**2} MiB are read",
        )
    if size < _LEFT_OUT_SIZE and (said := _LEFT_OUT.fullmatch(Path(upload.source).read_bytes())):
        raise UnreadableImageError(upload.name, said[1].decode(errors="replace"))


def pixels_of(upload: Upload) -> int:
    """Number of pixels that reading a picture decodes."""
    return count_pixels(upload.source) if upload.field is None else upload.field.size[0] * upload.field.size[1]


def read_or_error(upload: Upload) -> Image.Image | UnreadableImageError:
    """Read a picture as RGB, or return what is wrong with the file."""
    try:
        return read_upload(upload)
    except UnreadableImageError as error:
        return error


def _split(uploads: Sequence[Upload]) -> Iterator[tuple[list[Upload], int]]:
    """Split files into chunks, each with its number of pixels."""
    chunk: list[Upload] = []
    pixels = 0
    for upload in uploads:
        more = pixels_of(upload)
        if chunk and (len(chunk) == CHUNK or pixels + more > CHUNK_PIXELS):
            yield chunk, pixels
            chunk, pixels = [], 0
        chunk, pixels = [*chunk, upload], pixels + more
    if chunk:
        yield chunk, pixels


def answer_uploads(predictor: Predictor, uploads: Sequence[Upload]) -> Iterator[Answer | UnreadableImageError]:
    """Classify each file as one cell, in order, or yield what is wrong with it.

    Raises:
        WbcError: From `turn`.
    """
    for chunk, pixels in _split(uploads):
        with turn(pixels):
            images = [read_or_error(upload) for upload in chunk]
            predictions = iter(predictor.predict([image for image in images if isinstance(image, Image.Image)]))
        for upload, image in zip(chunk, images, strict=True):
            if isinstance(image, UnreadableImageError):
                yield image
            else:
                yield Answer(upload.name, next(predictions), image)
