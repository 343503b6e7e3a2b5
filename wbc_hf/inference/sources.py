"""Sources of very many images: folders, Parquet files and Hub data sets, here or where a file system reaches.

An image is named by an absolute path or an address, and in a Parquet file by the number of its row. Listing opens no
image; whoever is given some of the names reads them by `open_images`.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, BinaryIO, ClassVar
from urllib.parse import urlsplit

import fsspec
import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset_builder
from datasets.exceptions import DatasetsError
from pyarrow import fs

from wbc_hf.data import (
    IMAGE_COLUMN,
    NO_IMAGE,
    SUFFIXES,
    NamedSource,
    image_content,
    is_document,
    is_folder,
    open_hub_set,
    source_name,
    walk_folder,
)
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference.predictor import map_ahead

PARQUET_SUFFIX = ".parquet"
_SUFFIXES = SUFFIXES | {PARQUET_SUFFIX}
# Rows that are in memory at a time, and files that are fetched at a time.
_ROWS = 32
_BUFFER_BYTES = 1 << 20
# Of a file of a Hub set, as datasets and huggingface_hub write it, and the commit in it.
_HUB_PLACE = re.compile(r"^hf://datasets/|@[0-9a-f]+(?=/)")


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """Where one image is.

    Attributes:
        path: Absolute path or address of a file.
        row: Number of the row in a Parquet file; None for a picture.
    """

    path: str
    row: int | None = None
    SCHEMA: ClassVar = pa.schema([("path", pa.binary()), ("row", pa.int64())])

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ImagePlace":
        """The place in a row of the schema `SCHEMA`."""
        return cls(os.fsdecode(row["path"]), row["row"])

    def as_row(self) -> dict[str, Any]:
        """A row of the schema `SCHEMA`: names of files are bytes."""
        return {"path": os.fsencode(self.path), "row": self.row}


class ImageSources:
    """The images of files, folders, Parquet files and Hub data sets. An existing path comes before a Hub id.

    Args:
        words: Paths; addresses such as `s3://bucket/cells`; ids of Hub data sets: `owner/name` means every split,
            `owner/name:split` one of them.
    """

    def __init__(self, words: Sequence[str]):
        self._words = words
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Digest of paths, sizes and times of what was listed, and of the commits of Hub data sets."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[ImagePlace]:
        """List them: folders in order of name, through links, without texts and tables.

        Raises:
            WbcError: No such file, folder or set; no images in it, or several columns that may hold them.
            HubUnreachableError: The Hub did not answer.
        """
        for word in self._words:
            path = os.path.abspath(os.path.expanduser(word))
            if os.path.isdir(path):
                yield from self._in_folder(word, _walk_here(path))
            elif os.path.exists(path):
                yield from self._in_file(path, *_version_here(path))
            elif _is_address(word):
                yield from self._at_address(word)
            elif _is_path(word):
                raise WbcError(f"{word}: there is no such file or folder.")
            else:
                yield from self._in_hub_set(word)

    def _in_folder(self, word: str, files: Iterable[tuple[str, int, int]]) -> Iterator[ImagePlace]:
        found = False
        for path, *version in files:
            if not is_document(os.path.basename(path)):
                yield from self._in_file(path, *version)
                found = True
        if not found:
            raise WbcError(f"{word}: no pictures in this folder ({', '.join(sorted(_SUFFIXES))}).")

    def _in_file(self, path: str, *version: int) -> Iterator[ImagePlace]:
        self._digest.update(os.fsencode("\0".join(map(str, (path, *version))) + "\0"))
        if not path.lower().endswith(PARQUET_SUFFIX):
            yield ImagePlace(path)
            return
        with explain_read_errors(path), open_file(path) as opened:
            file = pq.ParquetFile(opened)
            _image_column(path, file.schema_arrow)
            rows = file.metadata.num_rows
        yield from (ImagePlace(path, row) for row in range(rows))

    def _at_address(self, word: str) -> Iterator[ImagePlace]:
        with explain_read_errors(word):
            system, path, scheme = _find_file_system(word)
            info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise WbcError(f"{word}: there is no such file or folder.")
        if info.type == fs.FileType.Directory:
            yield from self._in_folder(word, _walk_there(system, path, scheme))
        else:
            yield from self._in_file(scheme + path, *_version_there(info))

    def _in_hub_set(self, word: str) -> Iterator[ImagePlace]:
        spec, _, split = word.partition(":")
        splits = open_hub_set(spec, streaming=True)
        if split and split not in splits:
            raise WbcError(f"{word}: has no split {split!r}, but {', '.join(splits)}.")
        with explain_read_errors(spec):
            data_files = load_dataset_builder(spec).config.data_files
        files = [file for name in ([split] if split else splits) for file in data_files[name]]
        images = [file for file in files if not is_document(os.path.basename(file))]
        other = [file for file in images if os.path.splitext(file)[1].lower() not in _SUFFIXES]
        if other or not images:
            raise WbcError(
                f"{word}: has no pictures or Parquet files, but {os.path.basename((other or files)[0])}. Give the "
                f"Hub's Parquet copy, hf://datasets/{spec}@refs%2Fconvert%2Fparquet, or download the set."
            )
        for file in images:
            yield from self._in_file(file)  # the commit is in its address


def open_images(places: Iterable[ImagePlace]) -> Iterator[NamedSource | UnreadableImageError]:
    """Open images in order: their names with a path or the bytes, or why there is none.

    Threads fetch the next files from elsewhere; a Parquet file is opened once for consecutive rows of it.

    Raises:
        WbcError: A file system does not answer, or a Parquet file is broken.
    """
    for kind, some in groupby(places, key=lambda place: place.path if place.row is not None else place.path[0] == "/"):
        if isinstance(kind, str):
            yield from _open_rows(kind, [place.row or 0 for place in some])
        elif kind:
            yield from (NamedSource(place.path, place.path) for place in some)
        else:
            yield from map_ahead(_fetch, (place.path for place in some), _ROWS)


def _fetch(address: str) -> NamedSource | UnreadableImageError:
    name = _title(address)
    try:
        with explain_read_errors(address), open_file(address) as file:
            return NamedSource(file.read(), name)
    except WbcError as error:
        # What is gone or not for us stays so; any other failure may be gone when the run is resumed.
        if isinstance(error.__cause__, FileNotFoundError | PermissionError):
            return UnreadableImageError(name, f"cannot be fetched ({_on_one_line(error.__cause__)})")
        raise


def _open_rows(path: str, wanted: Sequence[int]) -> Iterator[NamedSource | UnreadableImageError]:
    """Rows of a Parquet file, by their numbers in order."""
    chosen, row = set(wanted), 0
    with explain_read_errors(path), open_file(path) as opened:
        # Without a buffer a whole column of a row group would be read at once, which may be all of the file.
        file = pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES)
        column = _image_column(path, file.schema_arrow)
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if chosen.isdisjoint(range(row, row + size)):
                row += size
                continue
            for batch in file.iter_batches(_ROWS, [group], [column], use_threads=False):
                for value in batch.column(0):
                    if row in chosen:
                        yield _open_row(path, row, value.as_py())
                    row += 1
                if row > wanted[-1]:
                    return


def _open_row(path: str, row: int, value: bytes | dict | None) -> NamedSource | UnreadableImageError:
    image = {"bytes": value, "path": None} if isinstance(value, bytes) else value
    name, content = source_name(_title(path), row, image), image_content(image)
    if isinstance(content, bytes):
        return NamedSource(content, name)
    # Whoever publishes a file may write any path of this machine into its rows.
    return UnreadableImageError(name, NO_IMAGE if content is None else "the row holds a path in place of an image")


def _title(path: str) -> str:
    """What names of images begin with: the path; of a file on the Hub the set and the path in it."""
    return _HUB_PLACE.sub("", path) if path.startswith("hf://") else path


# ---- file systems


def open_file(path: str) -> BinaryIO | pa.NativeFile:
    """Open a file by absolute path or address. A path is never parsed as an address: it may hold any characters."""
    if not _is_address(path):
        return open(path, "rb")
    system, inside, _ = _find_file_system(path)
    return system.open_input_file(inside)


def _find_file_system(address: str) -> tuple[fs.FileSystem, str, str]:
    """The file system of an address, the path there, and what stands before paths of it."""
    scheme = f"{urlsplit(address).scheme}://"
    if scheme not in ("s3://", "gs://", "gcs://", "hdfs://"):
        system, path = fsspec.url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(system)), path, "" if path.startswith(scheme) else scheme
    return _arrow_file_system(scheme, urlsplit(address).netloc), address.removeprefix(scheme), scheme


@cache
def _arrow_file_system(scheme: str, host: str) -> fs.FileSystem:
    """pyarrow's own, which need no further package; made once, since it asks for a bucket's region."""
    return fs.FileSystem.from_uri(f"{scheme}{host}")[0]


def _walk_here(folder: str) -> Iterator[tuple[str, int, int]]:
    for entry in walk_folder(folder):
        if not is_folder(entry):
            yield entry.path, *_version_here(entry.path)


def _version_here(path: str) -> tuple[int, int]:
    """Size and time of change; of a link to nowhere those of the link: reading it says what it is."""
    found = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return (found.st_size, found.st_mtime_ns) if not stat.S_ISDIR(found.st_mode) else (0, 0)


def _walk_there(system: fs.FileSystem, folder: str, scheme: str) -> Iterator[tuple[str, int, int]]:
    with explain_read_errors(scheme + folder):
        found = sorted(system.get_file_info(fs.FileSelector(folder)), key=lambda info: info.path)
    for info in found:
        if info.base_name.startswith("."):
            continue
        if info.type == fs.FileType.Directory:
            yield from _walk_there(system, info.path, scheme)
        else:
            yield scheme + info.path, *_version_there(info)


def _version_there(info: fs.FileInfo) -> tuple[int, int]:
    return info.size or 0, info.mtime_ns or 0


def _is_address(word: str) -> bool:
    return "://" in word and not os.path.isabs(word)


def _is_path(word: str) -> bool:
    """Whether a word can only be a path: the id of a Hub data set is `owner/name`."""
    suffix = os.path.splitext(word)[1].lower()
    return word.startswith((".", "/", "~")) or word.endswith("/") or word.count("/") != 1 or suffix in _SUFFIXES


def _image_column(path: str, schema: pa.Schema) -> str:
    """The column of images: by its type, and by its name where there are several."""
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    bare = [field.name for field in schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)]
    for columns in (structs, bare):
        if IMAGE_COLUMN in columns or len(columns) == 1:
            return IMAGE_COLUMN if IMAGE_COLUMN in columns else columns[0]
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise WbcError(
        f"{path}: has the columns {found}; one of images (bytes, or datasets.Image) is needed, called "
        f"{IMAGE_COLUMN!r} where there are several."
    )


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


@contextmanager
def explain_read_errors(address: str) -> Iterator[None]:
    """Turn errors of file systems, datasets and pyarrow into a WbcError that says what to do."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise WbcError(f"{address}: is not a Parquet file, or a broken one ({_on_one_line(error)}).") from error
    except (ImportError, ValueError) as error:  # fsspec knows no such system, or lacks its package
        raise WbcError(f"{address}: no file system for it is installed ({_on_one_line(error)}).") from error
    except (DatasetsError, OSError, httpx2.HTTPError) as error:
        raise WbcError(
            f"{address}: could not be read to its end ({_on_one_line(error)}). The same command resumes from here."
        ) from error


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
