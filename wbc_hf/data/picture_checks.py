"""What is found by opening every picture of a set once: whether it is readable, blank or badly exposed.

Findings are cached by content. So a second load only computes the digest of each file, and decodes none.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL.Image
from datasets import Dataset
from pydantic import TypeAdapter, ValidationError
from tqdm.auto import tqdm

from wbc_hf.data.key_points import KeyPoints, describe
from wbc_hf.data.near_duplicates import one_opencv_thread
from wbc_hf.data.reading import image_content, read_image
from wbc_hf.errors import UnreadableImageError
from wbc_hf.files import sha256_of_file, write_atomically
from wbc_hf.hardware import cache_folder

logger = logging.getLogger(__name__)

R = TypeVar("R")

# Raise it whenever `read_image` refuses other pictures, or `picture_fault` finds others.
VERSION = 1

# Grey values, 0 to 255, and the share of pixels at pure white: a saturated background counts, as in many of Tecom.
_BLANK = 4.0
_DARK, _BRIGHT = 60.0, 250.0
_CLIPPED = 0.5
_THREADS = 8

# Why a picture is unreadable, and what is wrong with it; None where nothing is.
_Finding = tuple[str | None, str | None]
_Findings = dict[str, _Finding]  # by digest


@dataclass(frozen=True)
class CheckedPictures:
    """What is known of the pictures of a set.

    Attributes:
        digests: For each row the SHA-256 of its bytes, or the error where it is unreadable.
        faults: By source, what is wrong with a picture that can be read.
        described: By digest, the key points of pictures that were opened; none of those that were known.
    """

    digests: list[str | UnreadableImageError]
    faults: dict[str, str]
    described: dict[str, KeyPoints]


def check_pictures(rows: Dataset, described: Sequence[bool] | None = None) -> CheckedPictures:
    """Open every picture once, those of known content not at all.

    Args:
        rows: With undecoded `image` and `source`.
        described: Of which rows to find the key points while the picture is decoded; by default of none.
    """
    wanted = described or [False] * len(rows)
    digests = _each(range(len(rows)), lambda index: _digest(rows[index]), "Reading files")
    path = _cache_file([digest for digest in digests if digest])
    known = _read_findings(path)
    # Of identical files one is opened, a wanted one if there is any.
    to_open: dict[str, int] = {}
    for index, digest in enumerate(digests):
        if digest is not None and digest not in known and (digest not in to_open or wanted[index]):
            to_open[digest] = index
    # A file without a digest cannot be read: opening it says why.
    opened = [*to_open.values(), *(index for index, digest in enumerate(digests) if digest is None)]
    with one_opencv_thread():
        seen = _each(opened, lambda index: _look(rows[index], wanted[index]), "Reading images")
    looked = dict(zip(opened, seen, strict=True))
    key_points = {digest: made for digest, index in to_open.items() if (made := looked[index][1]) is not None}
    found = {digest: known[digest] if digest in known else looked[to_open[digest]][0] for digest in digests if digest}
    if found.keys() - known.keys():
        _write_findings(path, found)
    results: list[str | UnreadableImageError] = []
    faults = {}
    for index, (source, digest) in enumerate(zip(rows["source"], digests, strict=True)):
        reason, fault = looked[index][0] if digest is None else found[digest]
        if reason is not None or digest is None:
            results.append(UnreadableImageError(source, reason or "could not be read"))
            continue
        results.append(digest)
        if fault is not None:
            faults[source] = fault
    return CheckedPictures(results, faults, key_points)


def picture_fault(grey: np.ndarray) -> str | None:
    """What is wrong with a picture, uint8 (height, width); None where it can be judged.

    Half of the pixels at pure white counts as clipped. Black does not: rotated images are padded with it.
    """
    if grey.std() < _BLANK:
        return "blank"
    content = grey[grey > 0]
    if content.mean() < _DARK:
        return "too dark"
    if content.mean() > _BRIGHT:
        return "too bright"
    if (grey == 255).mean() > _CLIPPED:
        return "clipped"
    return None


def _each(indices: Sequence[int], work: Callable[[int], R], what: str) -> list[R]:
    """Work on rows by their numbers, in threads: handing over rows would gather the bytes of the whole set."""
    # Each thread may hold an image of 400 MB.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        results = pool.map(work, indices)
        return list(tqdm(results, total=len(indices), desc=what, unit="image", delay=2, leave=False))


def _digest(row: Mapping) -> str | None:
    """SHA-256 of a picture's bytes; None where there are none to read, which looking at it explains."""
    content = image_content(row["image"])
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    # Opening a pipe would wait for ever.
    if content is None or not Path(content).is_file():
        return None
    try:
        return sha256_of_file(Path(content))
    except OSError:
        return None


def _look(row: Mapping, described: bool) -> tuple[_Finding, KeyPoints | None]:
    try:
        image = read_image(image_content(row["image"]), name=row["source"])
    except UnreadableImageError as error:
        return (error.reason, None), None
    return (None, picture_fault(np.asarray(image.convert("L")))), describe(image) if described else None


def _cache_file(digests: list[str]) -> Path:
    parts = (f"version {VERSION}", f"Pillow {PIL.__version__}", *sorted(set(digests)))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return cache_folder() / "pictures" / f"{key}.json"


def _read_findings(path: Path) -> _Findings:
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(_Findings).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        logger.warning("%s: is broken, so the images are read again.", path)
        return {}


def _write_findings(path: Path, found: _Findings) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found))
    except OSError as error:
        logger.warning("%s: cannot be kept (%s), so these images are read anew each time.", path, error.strerror)
