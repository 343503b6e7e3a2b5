"""Copies found by looking at a set's images, kept on disk by their content: a second load of a set need not look."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from wbc_hf.data.near_duplicates import VERSION, NearDuplicate, find_near_duplicates
from wbc_hf.files import write_atomically
from wbc_hf.hardware import cache_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NearDuplicatePair:
    """Two images of a set that show the same cell or photograph.

    Attributes:
        first, second: Their sources.
        matches: Key points that show it; None where the bytes are identical.
        mirrored: Whether one is a mirror image of the other.
    """

    first: str
    second: str
    matches: int | None
    mirrored: bool


def near_duplicate_pairs(
    digests: Sequence[str], sources: Sequence[str], read: Callable[[int], Image.Image], *, look: bool
) -> list[NearDuplicatePair]:
    """Identical files, and where `look` is asked those that look the same.

    Args:
        digests: SHA-256 of each image's bytes.
        sources: Name of each image.
        read: Gives one as RGB, by its index; called from several threads.
        look: Whether to look at the images, and not only at their bytes.
    """
    first_of: dict[str, int] = {}
    pairs = []
    for index, digest in enumerate(digests):
        first = first_of.setdefault(digest, index)
        if first != index:
            pairs.append(NearDuplicatePair(sources[first], sources[index], None, False))
    if look:
        # In order of content, so that the result is the same whatever the files are called.
        images = [first_of[digest] for digest in sorted(first_of)]
        for copy in _look(sorted(first_of), lambda index: read(images[index])):
            first, second = sorted((images[copy.first], images[copy.second]))
            pairs.append(NearDuplicatePair(sources[first], sources[second], copy.matches, copy.mirrored))
    return pairs


def _look(digests: Sequence[str], read: Callable[[int], Image.Image]) -> list[NearDuplicate]:
    """`find_near_duplicates`, or what it found in the same images before."""
    key = hashlib.sha256("\n".join([f"version {VERSION}", *digests]).encode()).hexdigest()
    path = cache_folder() / "copies" / f"{key}.json"
    if path.is_file():
        try:
            return [NearDuplicate(*row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            logger.warning("%s: is broken (%s), so the images are looked at again.", path, error)
    found = find_near_duplicates(len(digests), read)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([[copy.first, copy.second, copy.matches, copy.mirrored] for copy in found]))
    return found
