"""Check a data set before training: known classes, readable images, no contradictory labels."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES, class_index

logger = logging.getLogger(__name__)

# What becomes of images of other classes than the five.
OtherClasses = Literal["refuse", "leave_out", "none_of_these"]
LEAVE_OUT_OPTION = "--other-classes leave_out"
MAX_UNREADABLE = 0.05
MAX_WARNINGS = 20


def class_indices(names: Iterable[str], spec: str, counts: Mapping[str, int] | None = None) -> dict[str, int]:
    """Map class names in any known spelling to indices into `CLASS_NAMES`.

    Args:
        names: Class names as published.
        spec: Name of the set in errors.
        counts: Images of each, for the error.

    Raises:
        WbcError: A name is not one of the five leucocytes. The message lists what was found and what is known.
    """
    known = {name: index for name in names if (index := class_index(name)) is not None}
    unknown = sorted(set(names) - known.keys())
    if unknown:
        found = ", ".join(f"{name!r} ({counts[name]})" if counts else repr(name) for name in sorted(set(names)))
        spellings = ", ".join(f"{cell.name} ({', '.join(cell.synonyms[:3])})" for cell in LEUCOCYTES)
        subject = f"the class {unknown[0]!r} is" if len(unknown) == 1 else f"{', '.join(map(repr, unknown))} are"
        # Streams are not gone through first, so nothing can be left out of them.
        leave_out = "" if counts is None else f"; train, evaluate and audit leave it out with {LEAVE_OUT_OPTION}"
        raise WbcError(
            f"{spec}: {subject} not one of the five leucocytes. Found: {found}. "
            f"Known, with other spellings: {spellings}. Rename or remove what is unknown{leave_out}."
        )
    return known


def label_indices(class_names: Sequence[str], spec: str, other_classes: OtherClasses = "refuse") -> np.ndarray:
    """Class names as published, one an image → int64 (n,) indices into `CLASS_NAMES`.

    Args:
        class_names: Of the images.
        spec: Name of the set in errors.
        other_classes: Unless they are refused, images of other classes get -1, which is said with their numbers.

    Raises:
        WbcError: As `class_indices`, or not one image is of a known class.
    """
    counts = Counter(class_names)
    others = {name: count for name, count in counts.items() if class_index(name) is None}
    if other_classes == "refuse" or len(others) == len(counts):
        others = {}
    index_of = class_indices([name for name in counts if name not in others], spec, counts)
    if others:
        logger.warning(
            "%s: %d images of other classes are %s: %s.",
            spec,
            sum(others.values()),
            "left out" if other_classes == "leave_out" else "kept as none of these, for the calibration alone",
            ", ".join(f"{name} ({count})" for name, count in sorted(others.items())),
        )
    return np.array([index_of.get(name, -1) for name in class_names], dtype=np.int64)


def check_readable(
    digests: Sequence[str | UnreadableImageError], labels: np.ndarray, spec: str
) -> tuple[UnreadableImageError, ...]:
    """Warn of unreadable images and return their errors.

    Raises:
        WbcError: More than `MAX_UNREADABLE` of all images, or all of a class.
    """
    unreadable = tuple(digest for digest in digests if isinstance(digest, UnreadableImageError))
    for error in unreadable[:MAX_WARNINGS]:
        logger.warning("Skipped %s", error)
    if len(unreadable) > MAX_WARNINGS:
        logger.warning("Skipped %d more; the report names them all.", len(unreadable) - MAX_WARNINGS)
    if len(unreadable) > MAX_UNREADABLE * len(digests):
        raise WbcError(
            f"{spec}: {len(unreadable)} of {len(digests)} files are not readable images, more than "
            f"{MAX_UNREADABLE:.0%}: {'; '.join(map(str, unreadable[:3]))}. Check the download, or remove them."
        )
    readable = {label for label, digest in zip(labels, digests, strict=True) if isinstance(digest, str)}
    if lost := sorted(set(labels) - readable):
        names = " and ".join(CLASS_NAMES[label] for label in lost)
        raise WbcError(
            f"{spec}: not one file of the class {names} is a readable image. Replace them, or remove the class."
        )
    return unreadable


def count_contradictions(digests: Sequence[str], labels: np.ndarray, sources: Sequence[str], spec: str) -> int:
    """Count images that are in more than one class, byte for byte the same; one warning if there are any."""
    images: dict[str, dict[int, str]] = defaultdict(dict)
    for digest, label, source in zip(digests, labels, sources, strict=True):
        images[digest].setdefault(int(label), source)
    contradictory = [by_label for by_label in images.values() if len(by_label) > 1]
    if contradictory:
        logger.warning(
            "%s: %d images are in more than one class, byte for byte the same, for example %s; "
            "only one of the classes can be right. Correct or remove them.",
            spec,
            len(contradictory),
            " and ".join(f"{source} ({CLASS_NAMES[label]})" for label, source in contradictory[0].items()),
        )
    return len(contradictory)
