"""Stream Hub sets that do not fit the disk: read, checked and split while they are iterated."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import fsspec
import httpx2
from datasets import IterableDataset, IterableDatasetDict, concatenate_datasets

from wbc_hf.data.checks import MAX_UNREADABLE, MAX_WARNINGS, class_indices
from wbc_hf.data.hub_sets import (
    HubColumns,
    find_columns,
    group_name,
    is_file_of_hub,
    known_split,
    open_hub_set,
    source_name,
)
from wbc_hf.data.known_sets import laboratory_name
from wbc_hf.data.reading import image_content, read_image
from wbc_hf.data.rows import FEATURES
from wbc_hf.data.splits import FRACTIONS, SPLITS, stream_split
from wbc_hf.errors import HubUnreachableError, UnreadableImageError, WbcError

logger = logging.getLogger(__name__)

# In an image folder every picture is a request of its own; this many run at a time.
BATCH_SIZE = 32
# The share of unreadable images is checked from this many rows on.
_MIN_ROWS = 100


def stream_hub_set(spec: str) -> IterableDatasetDict:
    """Stream the splits "train", "validation" and "test" of a Hub set without storing it.

    Unreadable images are skipped with a warning, and an iteration stops once more than 5 % of at least 100 rows were.
    The group is that of a `group` column, else the image's own bytes; missing splits are split off the training images
    by a hash of it, the same in every run.

    Raises:
        WbcError: No such set, no images, no labels, nothing to train on, or a class name that is not one of the five:
            at once where the set declares its classes, else when the row is read.
        HubUnreachableError: The Hub did not answer.
    """
    streams: dict[str, list[IterableDataset]] = defaultdict(list)
    for name, stream in open_hub_set(spec, streaming=True).items():
        streams[known_split(spec, name)].append(_convert(spec, name, stream))
    given = {name: concatenate_datasets(parts) for name, parts in streams.items()}
    if "train" not in given:
        raise WbcError(f"{spec}: has {', '.join(given)} but nothing to train on.")
    missing = [name for name in ("validation", "test") if name not in given]
    if missing:
        fractions = {name: FRACTIONS[name] for name in missing}
        fractions = {"train": 1 - sum(fractions.values())} | fractions
        whole = given["train"]
        for name in fractions:
            given[name] = whole.filter(_is_in_split, fn_kwargs={"split": name, "fractions": fractions})
    return IterableDatasetDict({name: given[name] for name in SPLITS})


def _is_in_split(row: dict, split: str, fractions: Mapping[str, float]) -> bool:
    return stream_split(row["group"], fractions) == split


def _convert(spec: str, split: str, stream: IterableDataset) -> IterableDataset:
    if stream.features is None:
        raise WbcError(f"{spec}: does not declare its columns, so it cannot be streamed. Load it without streaming.")
    columns = find_columns(spec, stream.features)
    if columns.names is not None:
        class_indices(columns.names, spec)
    # An image folder decodes as it reads, whatever its column is cast to, and one broken file would end the stream.
    stream = stream.decode(False)
    converter = _Converter(spec, split, columns)
    return stream.map(
        converter, batched=True, batch_size=BATCH_SIZE, with_indices=True, remove_columns=list(stream.features)
    ).cast(FEATURES)


class _Converter:
    """Rows of a Hub set → rows of `FEATURES`, without those whose image is unreadable."""

    def __init__(self, spec: str, split: str, columns: HubColumns):
        self.spec, self.split, self.columns = spec, split, columns
        self.laboratory = laboratory_name(spec)
        self.seen = self.unreadable = self.warnings = 0

    def __call__(self, rows: dict[str, list], indices: list[int]) -> dict[str, list]:
        if indices[0] == 0:
            self.seen = self.unreadable = 0
        images = rows[self.columns.image]
        labels = [self._label(value, index) for value, index in zip(rows[self.columns.label], indices, strict=True)]
        sources = [source_name(self.split, index, image) for index, image in zip(indices, images, strict=True)]
        groups = rows[self.columns.group] if self.columns.group else [None] * len(indices)
        with ThreadPoolExecutor(BATCH_SIZE) as pool:
            contents = list(pool.map(_readable_content, images, sources))
        result: dict[str, list] = {name: [] for name in FEATURES}
        for content, label, group, source in zip(contents, labels, map(group_name, groups), sources, strict=True):
            if isinstance(content, UnreadableImageError):
                self._warn(content)
                continue
            result["image"].append({"bytes": content, "path": None})
            result["label"].append(label)
            result["group"].append(hashlib.sha256(content).hexdigest() if group is None else group)
            result["laboratory"].append(self.laboratory)
            result["source"].append(source)
        self.seen += len(indices)
        if self.seen >= _MIN_ROWS and self.unreadable > MAX_UNREADABLE * self.seen:
            raise WbcError(
                f"{self.spec}: {self.unreadable} of the first {self.seen} rows of its split {self.split!r} are not "
                f"readable images, more than {MAX_UNREADABLE:.0%}."
            )
        return result

    def _label(self, value: int | str | None, index: int) -> int:
        name = self.columns.class_name(value)
        if name is None:
            raise WbcError(f"{self.spec}: row {index} of its split {self.split!r} has no label.")
        return class_indices([name], self.spec)[name]

    def _warn(self, error: UnreadableImageError) -> None:
        self.unreadable += 1
        self.warnings += 1
        if self.warnings <= MAX_WARNINGS:
            logger.warning("Skipped %s", error)
        if self.warnings == MAX_WARNINGS:
            logger.warning("%s: further unreadable images are skipped without a warning.", self.spec)


def _readable_content(image: dict | None, source: str) -> bytes | UnreadableImageError:
    """The bytes of a readable image, or what is wrong with it."""
    content = image_content(image)
    try:
        if isinstance(content, str):
            if not is_file_of_hub(content):
                return UnreadableImageError(source, f"names {content[:200]!r}, which is no file of the Hub")
            with fsspec.open(content, "rb") as file:
                content = file.read()
    except (OSError, httpx2.HTTPError) as error:
        raise HubUnreachableError(f"{source}: the stream from the Hub broke off ({error}). Start again.") from error
    try:
        read_image(content, name=source)
    except UnreadableImageError as error:
        return error
    assert isinstance(content, bytes)
    return content
