"""Where rows come from: a folder, Kaggle, a painter or the Hub. Each gives a Dataset of the same columns."""

import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from wbc_hf.data.folders import scan_folder
from wbc_hf.data.hub_sets import find_columns, group_name, known_split, open_hub_set, source_name
from wbc_hf.data.synthetic import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES

# Every row that `load_leucocytes` gives, streamed or not.
FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=list(CLASS_NAMES)),
        "group": Value("string"),
        "source": Value("string"),
    }
)
# A row as a source gives it, not checked yet: names of its own, `split` and `group` None where it has none. `source`
# is unique.
ROW_FEATURES = Features(
    {
        "image": Image(decode=False),
        "class_name": Value("string"),
        "split": Value("string"),
        "group": Value("string"),
        "source": Value("string"),
    }
)
PAINTED_PER_CLASS = 300
PAINTED_SIZE = 128
# Seconds until a Kaggle that says nothing counts as unreachable: its own client would wait for ever.
KAGGLE_REACH_SECONDS = 8.0


def folder_rows(root: Path) -> Dataset:
    """Rows of a folder of class sub-folders; the images stay where they are. Raises WbcError as `scan_folder`."""
    images = scan_folder(root.expanduser())
    return Dataset.from_dict(
        {
            "image": [{"path": str(image.path), "bytes": None} for image in images],
            "class_name": [image.class_name for image in images],
            "split": [image.split for image in images],
            "group": [image.group for image in images],
            "source": [image.source for image in images],
        },
        features=ROW_FEATURES,
    )


def fetch_kaggle_set(handle: str) -> Path:
    """The folder of a Kaggle data set, from kagglehub's cache or downloaded into it.

    Args:
        handle: `owner/name`.

    Raises:
        WbcError: Not a handle, no such set, no access, no network, a broken archive or credentials file.
    """
    import kagglehub
    import kagglehub.config
    import kagglehub.exceptions

    if handle.count("/") != 1 or not all(handle.split("/")):
        raise WbcError(f"kaggle:{handle}: a Kaggle data set is named 'kaggle:owner/name'.")
    try:
        kagglehub.config.get_kaggle_credentials()
    except ValueError as error:
        raise WbcError(f"kaggle:{handle}: {error}. Correct or remove that file.") from error
    try:
        _ask_kaggle()
        return Path(kagglehub.dataset_download(handle))
    # The errors of requests are OSErrors. What is no JSON comes from something in between, a log-in page for one.
    except (
        OSError,
        json.JSONDecodeError,
        kagglehub.exceptions.NotFoundError,
        kagglehub.exceptions.BackendError,
        kagglehub.exceptions.CredentialError,
        kagglehub.exceptions.UnauthenticatedError,
        kagglehub.exceptions.DataCorruptionError,
    ) as error:
        raise WbcError(
            f"kaggle:{handle}: could not be downloaded ({_on_one_line(error)}). Check the name, the network and, for "
            "sets that ask for it, KAGGLE_USERNAME and KAGGLE_KEY; or download it by hand and give the folder."
        ) from error
    except (ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        # kagglehub keeps the archive and would take it for complete the next time.
        cached = Path(kagglehub.config.get_cache_folder(), "datasets", handle)
        raise WbcError(
            f"kaggle:{handle}: what was downloaded cannot be unpacked ({_on_one_line(error)}). "
            f"Remove {cached} and try again; or download it by hand and give the folder."
        ) from error


def painted_rows(spec: str, seed: int) -> Dataset:
    """Rows of painted cells, the classes in turn.

    Args:
        spec: `synthetic`, or `synthetic:N` for N cells a class.
        seed: Of the painter.
    """
    number = spec.removeprefix("synthetic").removeprefix(":")
    if spec != "synthetic" and not (number.isdecimal() and int(number) > 0):
        raise WbcError(
            f"{spec}: 'synthetic' or 'synthetic:N' is expected, N cells a class, for example synthetic:100."
        )
    labels = np.tile(np.arange(len(CLASS_NAMES)), int(number or PAINTED_PER_CLASS))

    def rows() -> Iterator[dict]:
        cells = paint_cells(labels, size=PAINTED_SIZE, seed=seed)
        for index, (label, cell) in enumerate(zip(labels, cells, strict=True)):
            name = f"painted-{index:05d}"
            image = Image().encode_example(cell)
            yield {"image": image, "class_name": CLASS_NAMES[label], "split": None, "group": None, "source": name}

    return Dataset.from_list(list(rows()), features=ROW_FEATURES)


def hub_rows(spec: str) -> Dataset:
    """Rows of every split of a Hub data set. The images stay in its cache and are not copied.

    Raises:
        WbcError: As `open_hub_set`; also no images, no labels, rows without a label, or a split of an unknown name.
    """
    parts = [_hub_split_rows(spec, name, part) for name, part in open_hub_set(spec, streaming=False).items()]
    return concatenate_datasets(parts)


def _hub_split_rows(spec: str, name: str, part: Dataset) -> Dataset:
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
            "group": [group_name(value) for value in groups],
            "source": [source_name(name, index, picture) for index, picture in enumerate(image["image"])],
        },
        features=Features({name: feature for name, feature in ROW_FEATURES.items() if name != "image"}),
    )
    return concatenate_datasets([image, beside], axis=1)


def _ask_kaggle() -> None:
    """Any answer will do. An OSError where none comes in time."""
    import requests
    from kagglesdk.kaggle_env import get_endpoint, get_env, is_in_kaggle_notebook

    # A Kaggle notebook has the sets at hand, with or without a network.
    if not is_in_kaggle_notebook():
        requests.head(get_endpoint(get_env()), timeout=KAGGLE_REACH_SECONDS)


def _on_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
