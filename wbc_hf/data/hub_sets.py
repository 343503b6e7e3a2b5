"""Data sets of the Hugging Face Hub, and others of `datasets`: open one, find which of its columns holds what."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDatasetDict,
    concatenate_datasets,
    config,
    load_dataset,
)
from datasets.exceptions import DatasetsError
from huggingface_hub import constants

from wbc_hf.data.rows import ROW_FEATURES, TEXT_FEATURES
from wbc_hf.data.split_names import named_test_set, split_name
from wbc_hf.errors import HubUnreachableError, WbcError
from wbc_hf.hub import check_cache_is_writable, check_hub_reachable

LABEL_COLUMNS = ("label", "labels", "class", "category", "cell_type")
# Cells of one value of the first of these that a set has stay in one split.
GROUP_COLUMNS = ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "slide", "specimen")
IMAGE_COLUMN = "image"
_HUB_FILE = re.compile(
    rf"((zip|tar|gzip|bz2|xz|zstd)://[^:]*::)*(hf:/|{re.escape(constants.ENDPOINT)})/datasets/[^:]+"
)
# The value of a ClassLabel in a split that was published without its labels.
_NO_LABEL = -1


def open_hub_set(spec: str, *, streaming: bool) -> DatasetDict | IterableDatasetDict:
    """Open every split of a Hub data set under its own name, from the cache where it is already there.

    Raises:
        HubUnreachableError: The Hub did not answer.
        WbcError: There is no such set, it is not open to this user, or it is of a form that cannot be loaded.
    """
    try:
        # Offline, load_dataset reads its cache and connects to nothing.
        if not constants.HF_HUB_OFFLINE:
            check_hub_reachable()
        return load_dataset(spec, streaming=streaming)
    except (HubUnreachableError, ConnectionError) as error:
        raise HubUnreachableError(f"{spec}: no such folder here, so taken for a Hub data set. {error}") from error
    # Beside its own errors datasets raises: ValueError (files that are no Parquet, sets of several configurations),
    # RuntimeError (loading scripts), OSError (no data files, a full disk).
    except (DatasetsError, ValueError, RuntimeError, OSError, httpx2.HTTPError) as error:
        check_cache_is_writable(spec, error)
        raise WbcError(
            f"{spec}: no such folder here, and not loadable from the Hub ({' '.join(str(error).split())}). "
            "Check the spelling; for a private or gated set, log in with `hf auth login` or set HF_TOKEN."
        ) from error


def is_file_of_hub(address: str) -> bool:
    """Whether an address is of a file on the Hub, or within an archive there, as datasets writes it.

    Whoever publishes a set writes what they like into its rows: addresses of other machines, and files of this one.
    """
    return _HUB_FILE.fullmatch(address) is not None and ".." not in address.split("/")


def is_downloaded(path: str) -> bool:
    """Whether a file lies where datasets and huggingface_hub keep what they download."""
    caches = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return any(Path(path).resolve().is_relative_to(Path(cache).resolve()) for cache in caches)


@dataclass(frozen=True)
class HubColumns:
    """Names of the columns of a Hub set.

    Attributes:
        image: Column of images.
        label: Column of classes, as strings or as indices into `names`.
        names: Class names of a ClassLabel; None where the column holds the names themselves.
        group: Column of the physical cell, photograph or patient, or None.
    """

    image: str
    label: str
    names: Sequence[str] | None
    group: str | None

    def class_name(self, value: int | str | None) -> str | None:
        """The class name as published; None where a row has no label."""
        if value is None or value == "" or (self.names is not None and value == _NO_LABEL):
            return None
        return str(value) if self.names is None else self.names[int(value)]


def find_columns(spec: str, features: Features) -> HubColumns:
    """Find the columns by type and name: an Image, and a ClassLabel or one of `LABEL_COLUMNS`.

    Raises:
        WbcError: No images, or no labels.
    """
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name in LABEL_COLUMNS if name in features]
    labels += [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    if not images or not labels:
        kinds = {name: getattr(feature, "dtype", None) or type(feature).__name__ for name, feature in features.items()}
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise WbcError(
            f"{spec}: has the columns {found}; one of type Image and one with the class (a ClassLabel, or a string "
            "called 'label') are needed."
        )
    label = features[labels[0]]
    return HubColumns(
        image=IMAGE_COLUMN if IMAGE_COLUMN in images else images[0],
        label=labels[0],
        names=label.names if isinstance(label, ClassLabel) else None,
        group=find_group_column(features),
    )


def find_group_column(names: Iterable[str]) -> str | None:
    """The first of `GROUP_COLUMNS` among names of columns in any case, or None."""
    by_name = {name.lower(): name for name in names}
    return next((by_name[name] for name in GROUP_COLUMNS if name in by_name), None)


def table_rows(spec: str, splits: Mapping[str, Dataset]) -> Dataset:
    """Rows of every split of a set in tables. The images stay where they are.

    Raises:
        WbcError: No images, no labels, rows without a label, or a split of an unknown name.
    """
    return concatenate_datasets([_split_rows(spec, name, part) for name, part in splits.items()])


def _split_rows(spec: str, name: str, part: Dataset) -> Dataset:
    columns = find_columns(spec, part.features)
    split = known_split(spec, name)
    class_names = [columns.class_name(value) for value in part[columns.label]]
    if None in class_names:
        raise WbcError(
            f"{spec}: {class_names.count(None)} of {len(part)} rows of its split {name!r} have no label. "
            "Download the set and put the pictures to use into class folders."
        )
    image = part.select_columns(columns.image).cast_column(columns.image, ROW_FEATURES["image"])
    if columns.image != "image":
        image = image.rename_column(columns.image, "image")
    groups = part[columns.group] if columns.group else [None] * len(part)
    beside = Dataset.from_dict(
        {
            "class_name": class_names,
            "split": [split] * len(part),
            "test_set": [named_test_set(name)] * len(part),
            "group": [group_name(value) for value in groups],
            "source": [source_name(name, index, picture) for index, picture in enumerate(image["image"])],
        },
        features=TEXT_FEATURES,
    )
    return concatenate_datasets([image, beside], axis=1)


def known_split(spec: str, name: str) -> str:
    """The split's name here. Raises WbcError where it is not one of the three."""
    known = split_name(name)
    if known is None:
        raise WbcError(
            f"{spec}: its split {name!r} is not known: train, validation and test (or val, dev …) are. "
            "Download the set and put the pictures to use into folders."
        )
    return known


def group_name(value: str | int | float | None) -> str | None:
    """The value of a group column as text; None where it is empty."""
    return None if value is None or value == "" else str(value)


def source_name(split: str, index: int, image: dict | None) -> str:
    """A unique name of an image of a Hub set: split, row and, where known, file name."""
    path = image["path"] if image else None
    return f"{split}/{index}/{Path(path).name}" if path else f"{split}/{index}"
