"""Find near-duplicates: images that show the same cell or photograph.

Rotated, flipped, sheared, stretched, shifted, re-coloured and re-encoded images are found, and so are overlapping
crops and photographs of one field. Identical bytes need no comparison. All else goes through `key_points`:

1. `describe` each image by its strongest key points.
2. `candidates`: each key point asks an index of all others for its nearest neighbours, and so votes for the images
   they come from. Of the four orders of a descriptor one is standard, so that mirror images and negatives meet there.
3. `link`: pairs with enough votes are matched in full, and are near-duplicates when one affine map explains enough
   matches.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from tqdm.auto import tqdm

from wbc_hf.data.key_points import MIRROR, NEGATIVE, KeyPoints, describe, match
from wbc_hf.data.known_sets import photograph, slide
from wbc_hf.files import write_atomically
from wbc_hf.hardware import cache_folder

logger = logging.getLogger(__name__)

# Part of the key of cached results: raise it whenever something here or in `key_points` changes what is found.
VERSION = 3

# The strongest key points of an image vote; all of them are matched once a pair is a candidate.
_VOTERS = 80
# The index holds the first principal components of the descriptors: compact, and nearly all of their variance.
_COMPONENTS = 24
_TREES = 2
_CHECKS = 32
_NEIGHBOURS = 3
_VOTES = 5
_CHUNK = 20_000
_BATCH = 64
_TURNS = 3

Link = tuple[int, int, int, bool]  # indices of two images, first < second, number of matches, mirrored


@dataclass(frozen=True)
class NearDuplicate:
    """A pair of images that show the same cell or photograph.

    Attributes:
        first, second: Names of the images.
        matches: Key points that one affine map brings from one onto the other; None where the bytes are identical.
        mirrored: Whether one is a mirror image of the other.
    """

    first: str
    second: str
    matches: int | None
    mirrored: bool


def find_near_duplicates(
    digests: Sequence[str],
    sources: Sequence[str],
    read: Callable[[int], Image.Image],
    *,
    compare: bool = True,
    described: Mapping[str, KeyPoints] | None = None,
) -> list[NearDuplicate]:
    """Find pairs of near-duplicates: enough of them to link every group, not all. Results are cached by content.

    Args:
        digests: SHA-256 of each image's bytes.
        sources: Name of each image.
        read: Gives the image of an index as RGB; called from several threads.
        compare: Whether to compare pictures too, not only their bytes.
        described: Key points of images by their digest, where they are known: these are not read.
    """
    first_of: dict[str, int] = {}
    pairs = []
    for index, digest in enumerate(digests):
        first = first_of.setdefault(digest, index)
        if first != index:
            pairs.append(NearDuplicate(sources[first], sources[index], None, False))
    if compare:
        # In order of content, so that the result is the same whatever the files are called.
        ordered = sorted(first_of)
        images = [first_of[digest] for digest in ordered]

        def key_points(index: int) -> KeyPoints:
            known = (described or {}).get(ordered[index])
            return describe(read(images[index])) if known is None else known

        for one, other, matches, mirrored in _cached_links(ordered, key_points):
            first, second = sorted((images[one], images[other]))
            pairs.append(NearDuplicate(sources[first], sources[second], matches, mirrored))
    return pairs


def group_images(
    sources: Sequence[str], given: Sequence[str | None], near_duplicates: Sequence[NearDuplicate]
) -> list[str]:
    """Give images that share a given group, a photograph or a cell one group, named after its first image.

    Args:
        sources: Name of each image, without repeats; that of some public sets tells the photograph.
        given: Group of each image, where known.
        near_duplicates: Pairs of these images.
    """
    shared = [name or photograph(source) for source, name in zip(sources, given, strict=True)]
    return _join(sources, shared, [(pair.first, pair.second) for pair in near_duplicates])


def group_slides(sources: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Join groups that come from one slide or session, where the file names of public sets tell it.

    Args:
        sources: Name of each image.
        groups: Group of each image, from `group_images`.

    Returns:
        For each image the name of what has to stay together in a split, one of `groups`.
    """
    return _join(groups, list(map(slide, sources)))


def _join(names: Sequence[str], shared: Sequence[str | None], pairs: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Join names that have something in common, where that is known, and those of pairs: each becomes its first."""
    joined = DisjointSet(names)
    first: dict[str, str] = {}
    for name, common in zip(names, shared, strict=True):
        if common:
            joined.merge(first.setdefault(common, name), name)
    for pair in pairs:
        joined.merge(*pair)
    named: dict[str, str] = {}
    return [named.setdefault(joined[name], name) for name in names]


def _cached_links(digests: Sequence[str], key_points: Callable[[int], KeyPoints]) -> list[Link]:
    key = hashlib.sha256("\n".join([f"version {VERSION}", *digests]).encode()).hexdigest()
    path = cache_folder() / "near_duplicates" / f"{key}.json"
    if path.is_file():
        try:
            return [(one, other, matches, mirrored) for one, other, matches, mirrored in json.loads(path.read_bytes())]
        except (ValueError, TypeError) as error:
            logger.warning("%s: is broken (%s), so the images are compared again.", path, error)
    links = link_images(len(digests), key_points)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(links))
    except OSError as error:
        logger.warning("%s: cannot be kept (%s), so these images are compared anew each time.", path, error.strerror)
    return links


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV use one thread within: for work that has threads of its own."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def link_images(count: int, key_points: Callable[[int], KeyPoints]) -> list[Link]:
    """Compare all images of a set by their key points. The same images in the same order give the same pairs.

    Args:
        count: Number of images.
        key_points: Gives those of the image of an index; called from several threads, once for each index.
    """
    with one_opencv_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        described = pool.map(key_points, range(count))
        progress = tqdm(described, total=count, desc="Finding near-duplicates", unit="image", delay=2, leave=False)
        return link(list(progress), pool)


def link(key_points: Sequence[KeyPoints], pool: ThreadPoolExecutor) -> list[Link]:
    """Verify candidates and return the pairs that link each image with its near-duplicates.

    In a large group each key point's nearest neighbours are siblings, and no key point votes for images outside: such
    groups are compared once more by one image of each, then by another.
    """
    groups = DisjointSet(range(len(key_points)))
    found = list(_verified(candidates(key_points, pool), key_points, groups, pool))
    for turn in range(_TURNS):
        large = [sorted(members) for members in groups.subsets() if len(members) > _NEIGHBOURS]
        chosen = [members[turn * len(members) // _TURNS] for members in large]
        pairs = [(chosen[a], chosen[b]) for a, b in candidates([key_points[index] for index in chosen], pool)]
        found += _verified(pairs, key_points, groups, pool)
    return found


def candidates(key_points: Sequence[KeyPoints], pool: ThreadPoolExecutor) -> list[tuple[int, int]]:
    """Pairs of images (first, second) that share enough near neighbours, the most alike first.

    A forest of k-d trees answers each key point in logarithmic time, so that the step grows with n log n.
    """
    voters = [_standard_order(points.descriptors[:_VOTERS]) for points in key_points]
    image_of = np.repeat(np.arange(len(voters)), [len(rows) for rows in voters])
    if len(image_of) <= _NEIGHBOURS:
        return []
    descriptors = np.concatenate(voters)
    project = _principal_components(descriptors)
    cv2.setRNGSeed(0)  # the trees are random ones
    index = cv2.flann.Index(project(descriptors), {"algorithm": 1, "trees": _TREES})

    def votes(start: int) -> tuple[np.ndarray, np.ndarray]:
        # One neighbour more, since each finds itself.
        chunk = slice(start, start + _CHUNK)
        neighbours, _ = index.knnSearch(project(descriptors[chunk]), _NEIGHBOURS + 1, params={"checks": _CHECKS})
        asking = np.repeat(image_of[chunk], _NEIGHBOURS + 1)
        answering = image_of[neighbours.reshape(-1)]
        other = asking != answering
        first, second = np.minimum(asking, answering)[other], np.maximum(asking, answering)[other]
        return np.unique(first * len(voters) + second, return_counts=True)

    counted = list(pool.map(votes, range(0, len(descriptors), _CHUNK)))
    keys, place = np.unique(np.concatenate([keys for keys, _ in counted]), return_inverse=True)
    counts = np.bincount(place, np.concatenate([counts for _, counts in counted]))
    enough = counts >= _VOTES
    keys = keys[enough][np.argsort(-counts[enough], kind="stable")]
    return [(int(first), int(second)) for first, second in zip(*divmod(keys, len(voters)), strict=True)]


def _standard_order(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors, (k, 128), in that of their four orders in which two moments are positive.

    The moment over columns changes its sign in a negative, that over directions in a mirror image.
    """
    rows = descriptors.reshape(-1, 4, 4, 8).astype(np.float32)
    negative = rows.sum(axis=(1, 3)) @ np.array([-1.5, -0.5, 0.5, 1.5], np.float32) < 0
    mirrored = rows.sum(axis=(1, 2)) @ np.sin(np.arange(8, dtype=np.float32) * np.pi / 4) < 0
    descriptors = np.where(negative[:, None], descriptors[:, NEGATIVE], descriptors)
    return np.where(mirrored[:, None], descriptors[:, MIRROR], descriptors)


def _principal_components(descriptors: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    sample = descriptors[:: max(1, len(descriptors) // 50_000)].astype(np.float32)
    mean, components = cv2.PCACompute(sample, mean=None, maxComponents=_COMPONENTS)  # type: ignore[call-overload]
    return lambda rows: np.ascontiguousarray(cv2.PCAProject(rows.astype(np.float32), mean, components))


def _verified(
    pairs: Sequence[tuple[int, int]], key_points: Sequence[KeyPoints], groups: DisjointSet, pool: ThreadPoolExecutor
) -> Iterator[Link]:
    """The pairs that match, without those in one group already; merges their groups."""
    for start in range(0, len(pairs), _BATCH):
        open_pairs = [pair for pair in pairs[start : start + _BATCH] if not groups.connected(*pair)]
        matched = pool.map(lambda pair: match(key_points[pair[0]], key_points[pair[1]]), open_pairs)
        for (first, second), same in zip(open_pairs, matched, strict=True):
            if same is not None and groups.merge(first, second):
                yield min(first, second), max(first, second), same.matches, same.mirrored
