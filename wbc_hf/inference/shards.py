"""Shards: sources of very many images (files, Parquet, Hub data sets), split into pieces that are read separately.

The split depends on the sources alone, not on the reader: every process, and every resumed run, finds the same shards
in the same order.
"""

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice, starmap
from typing import BinaryIO, Protocol

import fsspec
import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Image, IterableDataset, load_dataset_builder
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi

from wbc_hf.data import (
    IMAGE_COLUMN,
    SUFFIXES,
    image_content,
    is_document,
    is_folder,
    open_hub_set,
    source_name,
    walk_folder,
)
from wbc_hf.errors import WbcError

# Images whose predictions are written together: a killed process loses at most as many.
CHUNK_SIZE = 1000
PARQUET_SUFFIX = ".parquet"
_SUFFIXES = SUFFIXES | {PARQUET_SUFFIX}
# Rows that are in memory at a time, and requests under way to the Hub.
_ROWS = 32
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: Its path; for a row, the file or split, the row number and the row's own name.
        source: Its path or its bytes; None where a row holds no image.
    """

    name: str
    source: str | bytes | None


class Shard(Protocol):
    """Consecutive images that can be read without reading any other."""

    @property
    def count(self) -> int | None:
        """How many; None where only reading them tells."""

    def read(self, start: int) -> Iterator[Item]:
        """Its images but the first `start`. Raises WbcError where that stops half-way."""


@dataclass(frozen=True)
class Images:
    """All images of a bulk prediction.

    Attributes:
        shards: In the order of the output.
        fingerprint: Digest of paths, sizes and modification times of files, and of the commit of a Hub data set.
    """

    shards: Sequence[Shard]
    fingerprint: str

    @property
    def count(self) -> int | None:
        """How many; None where only reading them tells."""
        counts = [shard.count for shard in self.shards if shard.count is not None]
        return sum(counts) if len(counts) == len(self.shards) else None


def find_images(words: Sequence[str]) -> Images:
    """Find the images of files, folders, Parquet files and Hub data sets. An existing path comes before a Hub id.

    Folders are walked in order of name, through links, and without texts and tables. No image is opened.

    Args:
        words: Of a Hub set `owner/name` means every split, `owner/name:split` one of them.

    Raises:
        WbcError: No such file, folder or set; no images in it, or several columns that may hold them.
        HubUnreachableError: The Hub did not answer.
    """
    finder = _SourceScanner()
    for word in words:
        path = os.path.expanduser(word)
        if os.path.exists(path):
            finder.add_path(path)
        elif _is_path(word):
            raise WbcError(f"{word}: there is no such file or folder.")
        else:
            finder.add_hub_set(word)
    return finder.found()


class _SourceScanner:
    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._pictures: list[str] = []
        self._digest = hashlib.sha256()

    def found(self) -> Images:
        self._flush_pictures()
        return Images(self._shards, self._digest.hexdigest())

    def add_path(self, path: str) -> None:
        if not os.path.isdir(path):
            self._add_file(path, os.stat(path))
            return
        found = False
        for entry in walk_folder(path):
            if not is_folder(entry) and not is_document(entry.name):
                # Of a link to nowhere the link itself; reading it says what it is.
                status = entry.stat() if os.path.exists(entry.path) else entry.stat(follow_symlinks=False)
                self._add_file(entry.path, status)
                found = True
        if not found:
            raise WbcError(f"{path}: no pictures in this folder ({', '.join(sorted(_SUFFIXES))}).")

    def add_hub_set(self, word: str) -> None:
        spec, _, split = word.partition(":")
        splits = open_hub_set(spec, streaming=True)
        if split and split not in splits:
            raise WbcError(f"{word}: has no split {split!r}, but {', '.join(splits)}.")
        self._flush_pictures()
        self._update_digest(word, _commit(spec))
        data_files = load_dataset_builder(spec).config.data_files
        for name, rows in splits.items():
            if name == split or not split:
                self._shards += _hub_shards(spec, name, rows, data_files[name])

    def _add_file(self, path: str, status: os.stat_result) -> None:
        self._update_digest(path, status.st_size, status.st_mtime_ns)
        if path.lower().endswith(PARQUET_SUFFIX):
            self._flush_pictures()
            self._shards += _parquet_shards(path, path)
            return
        self._pictures.append(path)
        if len(self._pictures) == CHUNK_SIZE:
            self._flush_pictures()

    def _flush_pictures(self) -> None:
        if self._pictures:
            self._shards.append(PictureShard(_compress_paths(self._pictures), len(self._pictures)))
            self._pictures.clear()

    def _update_digest(self, *values: object) -> None:
        self._digest.update(os.fsencode("\0".join(map(str, values)) + "\0"))


def _is_path(word: str) -> bool:
    """Whether a word can only be a path: the id of a Hub data set is `owner/name`."""
    suffix = os.path.splitext(word)[1].lower()
    return word.startswith((".", "/", "~")) or word.endswith("/") or word.count("/") != 1 or suffix in _SUFFIXES


# ---- pictures


@dataclass(frozen=True)
class PictureShard:
    """Files of pictures.

    Attributes:
        packed: Their paths, see `_compress_paths`.
    """

    packed: bytes
    count: int

    def read(self, start: int) -> Iterator[Item]:
        for path in _decompress_paths(self.packed)[start:]:
            yield Item(path, path)


def _compress_paths(paths: Sequence[str]) -> bytes:
    """Paths, compressed: of ten million files they take some 100 MB so, and more than 1 GB as they are."""
    return zlib.compress(os.fsencode("\0".join(paths)), level=1)


def _decompress_paths(packed: bytes) -> list[str]:
    return os.fsdecode(zlib.decompress(packed)).split("\0")


# ---- Parquet files


@dataclass(frozen=True)
class ParquetShard:
    """Consecutive row groups of a Parquet file.

    Attributes:
        address: The file's path, or its address on the Hub.
        column: The one with the images: bytes, or structs of bytes and path.
        groups: Indices of the row groups.
        title: What names of its images begin with: the path, or the split of a Hub set.
        first: The number that its first row has there.
    """

    address: str
    column: str
    groups: range
    title: str
    first: int
    count: int

    def read(self, start: int) -> Iterator[Item]:
        row, wanted = self.first, self.first + start
        with _explain_read_errors(self.address), _open(self.address) as opened:
            # Without a buffer a whole column of a row group would be read at once, which may be all of the file.
            file = pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES)
            for batch in file.iter_batches(_ROWS, list(self.groups), [self.column], use_threads=False):
                for value in batch.column(0)[max(wanted - row, 0) :]:
                    yield _item_of_row(self.title, wanted, value.as_py())
                    wanted += 1
                row += len(batch)


def _parquet_shards(address: str, title: str, first: int = 0) -> Iterator[ParquetShard]:
    """Row groups, so many together that they have `CHUNK_SIZE` rows at least where there are as many."""
    with _explain_read_errors(address), _open(address) as opened:
        file = pq.ParquetFile(opened)
        column = _image_column(title, file.schema_arrow)
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    first_group = rows = 0
    for group, size in enumerate(sizes, start=1):
        rows += size
        if rows >= CHUNK_SIZE or group == len(sizes):
            yield ParquetShard(address, column, range(first_group, group), title, first, rows)
            first, first_group, rows = first + rows, group, 0


def _open(address: str) -> AbstractContextManager[BinaryIO]:
    # A path is never parsed as a URL: it may hold any characters.
    return fsspec.open(address) if "://" in address else open(address, "rb")


def _image_column(title: str, schema: pa.Schema) -> str:
    """The column of images: by its type, and by its name where there are several."""
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    bare = [field.name for field in schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)]
    for columns in (structs, bare):
        if IMAGE_COLUMN in columns or len(columns) == 1:
            return IMAGE_COLUMN if IMAGE_COLUMN in columns else columns[0]
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise WbcError(
        f"{title}: has the columns {found}; one of images (bytes, or datasets.Image) is needed, called "
        f"{IMAGE_COLUMN!r} where there are several."
    )


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _item_of_row(title: str, row: int, value: bytes | dict | None) -> Item:
    image = {"bytes": value, "path": None} if isinstance(value, bytes) else value
    return Item(source_name(title, row, image), image_content(image))


# ---- Hub sets


@dataclass(frozen=True)
class HubPictureShard:
    """Pictures of a Hub set, each a file of its own.

    Attributes:
        split: The split that they are of.
        packed: Their addresses, see `_compress_paths`.
        first: The row that the first of them is.
    """

    split: str
    packed: bytes
    first: int
    count: int

    def read(self, start: int) -> Iterator[Item]:
        coming: deque[tuple[str, Future[bytes]]] = deque()
        pool = ThreadPoolExecutor(_ROWS)
        try:
            for row, address in enumerate(_decompress_paths(self.packed)[start:], self.first + start):
                # Downloads run while the model works on earlier images.
                name = source_name(self.split, row, {"path": address})
                coming.append((name, pool.submit(_fetch, address)))
                if len(coming) > _ROWS:
                    yield _fetched_item(*coming.popleft())
            yield from starmap(_fetched_item, coming)
        finally:
            pool.shutdown(cancel_futures=True)


def _fetched_item(name: str, content: Future[bytes]) -> Item:
    with _explain_read_errors(name):
        return Item(name, content.result())


def _fetch(address: str) -> bytes:
    with fsspec.open(address) as file:
        return file.read()


@dataclass(frozen=True)
class StreamShard:
    """Data files in another format, such as tar archives, streamed by `datasets`: skipped rows are downloaded too.

    Attributes:
        title: What names of its images begin with.
        rows: Its rows, images not decoded.
        column: The one with the images.
    """

    title: str
    rows: IterableDataset
    column: str
    count: None = None

    def read(self, start: int) -> Iterator[Item]:
        with _explain_read_errors(self.title):
            for row, values in enumerate(self.rows.skip(start), start):
                yield _item_of_row(self.title, row, values[self.column])


def _hub_shards(spec: str, split: str, rows: IterableDataset, data_files: Sequence[str]) -> Iterator[Shard]:
    """Parquet by row groups, pictures by a thousand, anything else by data files: nothing is fetched twice."""
    if all(address.endswith(PARQUET_SUFFIX) for address in data_files):
        first = 0
        for address in data_files:
            for shard in _parquet_shards(address, split, first):
                yield shard
                first += shard.count
        return
    columns = [name for name, feature in (rows.features or {}).items() if isinstance(feature, Image)]
    if not columns:
        raise WbcError(f"{spec}: its split {split!r} has no column of type Image. Download it and give a folder.")
    column = IMAGE_COLUMN if IMAGE_COLUMN in columns else columns[0]
    # An image folder decodes as it reads, whatever its column is cast to, and one broken file would end the stream.
    images = rows.decode(False).select_columns(column)
    with _explain_read_errors(spec):
        example = next(iter(images), {column: None})[column]
    if isinstance(image_content(example), str):
        yield from _hub_pictures(spec, split, (values[column]["path"] for values in images))
        return
    for number in range(images.num_shards):
        title = split if images.num_shards == 1 else f"{split}/{number}"
        yield StreamShard(title, images.shard(images.num_shards, number), column)


def _hub_pictures(spec: str, split: str, addresses: Iterator[str]) -> Iterator[HubPictureShard]:
    first = 0
    with _explain_read_errors(spec):
        while batch := list(islice(addresses, CHUNK_SIZE)):
            yield HubPictureShard(split, _compress_paths(batch), first, len(batch))
            first += len(batch)


def _commit(spec: str) -> str:
    """The current commit of a Hub data set."""
    with _explain_read_errors(spec):
        return HfApi().dataset_info(spec).sha or ""


@contextmanager
def _explain_read_errors(address: str) -> Iterator[None]:
    """Turn errors of file systems, datasets and pyarrow into a WbcError that says what to do."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise WbcError(f"{address}: is not a Parquet file, or a broken one ({_on_one_line(error)}).") from error
    except (DatasetsError, OSError, httpx2.HTTPError) as error:
        raise WbcError(
            f"{address}: could not be read to its end ({_on_one_line(error)}). The same command resumes from here."
        ) from error


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
