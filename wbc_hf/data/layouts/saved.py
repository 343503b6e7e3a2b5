"""Sets that `datasets` has saved: folders of `save_to_disk`, and Parquet files."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, Image, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from wbc_hf.data.hub_sets import table_rows
from wbc_hf.data.layouts.walking import is_picture, list_files
from wbc_hf.errors import WbcError
from wbc_hf.hub import check_cache_is_writable

PARQUET_SUFFIX = ".parquet"
_OF_DICT, _OF_SET = "dataset_dict.json", "state.json"


def read_saved(root: Path) -> Dataset | None:
    """Rows of a folder of `save_to_disk`, or of Parquet files; None where it is neither.

    Raises:
        WbcError: It cannot be read, or as `table_rows`.
    """
    if (root / _OF_DICT).is_file() or (root / _OF_SET).is_file():
        return _rows(root, lambda: load_from_disk(str(root)))
    if root.is_file() and root.suffix.lower() == PARQUET_SUFFIX:
        return _rows(root, lambda: load_dataset("parquet", data_files=str(root)))
    files = list_files(root) if root.is_dir() else []
    if any(path.suffix.lower() == PARQUET_SUFFIX for path in files) and not any(map(is_picture, files)):
        # Its splits are told by the names of files and folders, or by the card beside them, as on the Hub.
        return _rows(root, lambda: load_dataset(str(root)))
    return None


def _rows(root: Path, load: Callable[[], Dataset | DatasetDict]) -> Dataset:
    try:
        loaded = load()
    except (DatasetsError, ValueError, OSError, pa.ArrowException) as error:
        check_cache_is_writable(str(root), error)
        reason = " ".join(str(error.__cause__ or error).split())
        raise WbcError(f"{root}: cannot be loaded by datasets ({reason}). Save it anew.") from error
    splits: Mapping[str, Dataset] = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
    return table_rows(str(root), {name: _with_images(part) for name, part in splits.items()})


def _with_images(part: Dataset) -> Dataset:
    """The set with its images as such: other programs write them as plain bytes, or as bytes with a path."""
    if any(isinstance(feature, Image) for feature in part.features.values()):
        return part
    for field in part.data.schema:
        kind = field.type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_image_struct(kind):
            return part.cast_column(field.name, Image(decode=False))
    return part


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}
