"""What rows are checked for before anything is learnt from them: known classes, readable images, no contradictions."""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from wbc_hf.data.reading import read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES, class_index

logger = logging.getLogger(__name__)

MAX_UNREADABLE = 0.05
_THREADS = 8
NAMED_IN_WARNINGS = 20
NO_IMAGE = "the row holds no image"


def class_indices(names: Iterable[str], spec: str, counts: Mapping[str, int] | None = None) -> dict[str, int]:
    """The index into `CLASS_NAMES` of each name, whatever its spelling.

    Args:
        names: Class names as published.
        spec: What errors call the set.
        counts: Images of each, for the error.

    Raises:
        WbcError: A name is none of the five leucocytes. Tells what was found and what is known.
    """
    index_of = {name: class_index(name) for name in names}
    unknown = sorted(name for name, index in index_of.items() if index is None)
    if unknown:
        found = ", ".join(f"{name!r} ({counts[name]})" if counts else repr(name) for name in sorted(index_of))
        known = ", ".join(f"{cell.name} ({', '.join(cell.synonyms[:3])})" for cell in LEUCOCYTES)
        subject = f"the class {unknown[0]!r} is" if len(unknown) == 1 else f"{', '.join(map(repr, unknown))} are"
        raise WbcError(
            f"{spec}: {subject} none of the five leucocytes. Found: {found}. "
            f"Known, with other spellings: {known}. Rename or remove what is unknown."
        )
    return index_of


def label_indices(class_names: Sequence[str], spec: str) -> np.ndarray:
    """Class names as published, one an image → int64 (n,) indices into `CLASS_NAMES`. Raises as `class_indices`."""
    counts = Counter(class_names)
    index_of = class_indices(counts, spec, counts)
    return np.array([index_of[name] for name in class_names], dtype=np.int64)


@dataclass(frozen=True)
class Examined:
    """What opening every image told.

    Attributes:
        digests: SHA-256 of each image's bytes, in the order of the rows; None where it is unreadable.
        unreadable: One error for each None.
    """

    digests: list[str | None]
    unreadable: list[UnreadableImageError]


def examine(rows: Dataset) -> Examined:
    """Open every image once: unreadable ones become known before training, and identical ones by their digest."""

    def examine_row(index: int) -> str | UnreadableImageError:
        # Fetched by index, here: handing over rows would gather the bytes of the whole set in memory.
        row = rows[index]
        try:
            return _read_and_digest(row["image"], row["source"])
        except UnreadableImageError as error:
            return error

    # Each thread may hold an image of 400 MB.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        answers = pool.map(examine_row, range(len(rows)))
        results = list(tqdm(answers, total=len(rows), desc="Reading images", unit="image", delay=2, leave=False))
    return Examined(
        [None if isinstance(result, UnreadableImageError) else result for result in results],
        [result for result in results if isinstance(result, UnreadableImageError)],
    )


def check_readable(examined: Examined, labels: np.ndarray, spec: str) -> None:
    """Warn of each image that is left out.

    Raises:
        WbcError: More than `MAX_UNREADABLE` of them, or nothing is left of a class.
    """
    unreadable, total = examined.unreadable, len(examined.digests)
    for error in unreadable[:NAMED_IN_WARNINGS]:
        logger.warning("Skipped %s", error)
    if len(unreadable) > NAMED_IN_WARNINGS:
        logger.warning("Skipped %d more; the report names them all.", len(unreadable) - NAMED_IN_WARNINGS)
    if len(unreadable) > MAX_UNREADABLE * total:
        raise WbcError(
            f"{spec}: {len(unreadable)} of {total} files are not readable images, more than {MAX_UNREADABLE:.0%}: "
            f"{'; '.join(map(str, unreadable[:3]))}. Check the download, or remove them."
        )
    left = {label for label, digest in zip(labels, examined.digests, strict=True) if digest is not None}
    lost = sorted(set(labels) - left)
    if lost:
        names = " and ".join(CLASS_NAMES[label] for label in lost)
        raise WbcError(
            f"{spec}: not one file of the class {names} is a readable image. Replace them, or remove the class."
        )


def count_contradictions(digests: Sequence[str], labels: np.ndarray, sources: Sequence[str], spec: str) -> int:
    """How many images stand under more than one class, byte for byte the same; one warning if any do."""
    images: dict[str, dict[int, str]] = defaultdict(dict)
    for digest, label, source in zip(digests, labels, sources, strict=True):
        images[digest].setdefault(int(label), source)
    contradictory = [by_label for by_label in images.values() if len(by_label) > 1]
    if contradictory:
        logger.warning(
            "%s: %d images stand under more than one class, byte for byte the same, for example %s; "
            "only one of the classes can be right. Correct or remove them.",
            spec,
            len(contradictory),
            " and ".join(f"{source} ({CLASS_NAMES[label]})" for label, source in contradictory[0].items()),
        )
    return len(contradictory)


def holds_image(image: dict | None) -> bool:
    """Whether a row has an image at all; some are published without."""
    return image is not None and (image["bytes"] is not None or image["path"] is not None)


def _read_and_digest(image: dict | None, source: str) -> str:
    """The SHA-256 of an image file, from a row or from the disk, that can be read."""
    if not holds_image(image):
        raise UnreadableImageError(source, NO_IMAGE)
    if image["bytes"] is not None:
        read_image(image["bytes"], name=source)
        return hashlib.sha256(image["bytes"]).hexdigest()
    # Reading comes first, because it refuses what is too large for the memory.
    read_image(image["path"], name=source)
    try:
        with Path(image["path"]).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableImageError(source, f"could not be read ({error.strerror})") from error
