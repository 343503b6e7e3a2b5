"""Read the rows of a folder, a Kaggle or Hub set, or painted cells as a `Dataset` of the same columns."""

import json
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from wbc_hf.data.boxed_cells import cut_cells, find_boxed_cells, is_boxed_folder
from wbc_hf.data.folders import scan_folder
from wbc_hf.data.hub_sets import find_columns, group_name, is_downloaded, known_split, open_hub_set, source_name
from wbc_hf.data.reading import image_content
from wbc_hf.data.synthetic import paint_cells
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.labels import CLASS_NAMES

# Every row that `load_leucocytes` gives, streamed or not.
FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=list(CLASS_NAMES)),
        "group": Value("string"),
        "laboratory": Value("string"),
        "source": Value("string"),
    }
)
# Unchecked rows of a source: class names as published, `split` and `group` None where unknown, `source` unique.
ROW_FEATURES = Features(
    {
        "image": Image(decode=False),
        "class_name": Value("string"),
        "split": Value("string"),
        "group": Value("string"),
        "source": Value("string"),
    }
)
_TEXT_FEATURES = Features({name: feature for name, feature in ROW_FEATURES.items() if name != "image"})
PAINTED_PER_CLASS = 300
PAINTED_SIZE = 128
# Kaggle's client has no timeout. Seconds.
KAGGLE_REACH_SECONDS = 8.0


def folder_rows(root: Path) -> Dataset:
    """Rows of a folder of class sub-folders, where the images stay, or of the cells in boxed fields, cut out of them.

    Raises:
        WbcError: As `scan_folder`, or as `find_boxed_cells` for fields in `images/` with boxes in `boxes/`.
    """
    root = root.expanduser()
    if is_boxed_folder(root):
        return _boxed_rows(root)
    rows = [
        {"image": {"path": str(file.path), "bytes": None}} | {name: getattr(file, name) for name in _TEXT_FEATURES}
        for file in scan_folder(root)
    ]
    return Dataset.from_list(rows, features=ROW_FEATURES)


def _boxed_rows(root: Path) -> Dataset:
    cells = find_boxed_cells(root)
    rows = [
        {"image": Image().encode_example(picture), "class_name": cell.class_name, "source": cell.source}
        for cell, picture in zip(cells, cut_cells(cells), strict=True)
    ]
    return Dataset.from_list([row | {"split": None, "group": None} for row in rows], features=ROW_FEATURES)


def fetch_kaggle_set(handle: str) -> Path:
    """Fetch a Kaggle data set from kagglehub's cache, or download it, and return its folder.

    Args:
        handle: `owner/name`.

    Raises:
        WbcError: Not a handle, no such set, no access, no network, a broken archive or credentials file.
    """
    with needs_extra("kaggle"):
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
    # The errors of requests are OSErrors. An answer that is no JSON comes from a proxy or a log-in page.
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
        # kagglehub keeps the broken archive and takes it for complete the next time.
        cached = Path(kagglehub.config.get_cache_folder(), "datasets", handle)
        raise WbcError(
            f"kaggle:{handle}: what was downloaded cannot be unpacked ({_on_one_line(error)}). "
            f"Remove {cached} and try again; or download it by hand and give the folder."
        ) from error


def painted_rows(spec: str, seed: int) -> Dataset:
    """Rows of painted cells, the classes in turn.

    Args:
        spec: `synthetic`, or `synthetic:N` for N cells a class.
        seed: Random seed.
    """
    number = spec.removeprefix("synthetic").removeprefix(":")
    if spec != "synthetic" and not (number.isdecimal() and int(number) > 0):
        raise WbcError(
            f"{spec}: 'synthetic' or 'synthetic:N' is expected, N cells a class, for example synthetic:100."
        )
    labels = np.tile(np.arange(len(CLASS_NAMES)), int(number or PAINTED_PER_CLASS))
    rows = [
        {"image": Image().encode_example(cell), "class_name": CLASS_NAMES[label], "source": f"painted-{index:05d}"}
        for index, (label, cell) in enumerate(zip(labels, paint_cells(labels, PAINTED_SIZE, seed), strict=True))
    ]
    return Dataset.from_list([row | {"split": None, "group": None} for row in rows], features=ROW_FEATURES)


def hub_rows(spec: str) -> Dataset:
    """Rows of every split of a Hub data set. The images stay in the cache of `datasets`.

    Raises:
        WbcError: As `open_hub_set`; also no images, no labels, rows without a label, a split of an unknown name, or a
            row that names a file that is not of the set.
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
    sources = []
    for index, picture in enumerate(image["image"]):
        content = image_content(picture)
        if isinstance(content, str) and not is_downloaded(content):
            raise WbcError(
                f"{spec}: row {index} of its split {name!r} names {content[:200]!r}, which is no file of the set. "
                "Nothing else is read."
            )
        sources.append(source_name(name, index, picture))
    groups = part[columns.group] if columns.group else [None] * len(part)
    beside = Dataset.from_dict(
        {
            "class_name": class_names,
            "split": [split] * len(part),
            "group": [group_name(value) for value in groups],
            "source": sources,
        },
        features=_TEXT_FEATURES,
    )
    return concatenate_datasets([image, beside], axis=1)


def _ask_kaggle() -> None:
    """Raise an OSError where Kaggle does not answer in time. Any answer will do."""
    import requests
    from kagglesdk.kaggle_env import get_endpoint, get_env, is_in_kaggle_notebook

    # A Kaggle notebook has the sets on its disk, with or without a network.
    if not is_in_kaggle_notebook():
        requests.head(get_endpoint(get_env()), timeout=KAGGLE_REACH_SECONDS)


def _on_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
