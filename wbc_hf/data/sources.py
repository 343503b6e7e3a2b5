"""Fetch a Kaggle set; read the rows of a Hub set or of painted cells as a `Dataset` of `ROW_FEATURES`."""

import json
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from datasets import Dataset, Image

from wbc_hf.data.hub_sets import is_downloaded, open_hub_set, table_rows
from wbc_hf.data.reading import image_content
from wbc_hf.data.rows import make_rows
from wbc_hf.data.synthetic import paint_cells
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.labels import CLASS_NAMES

PAINTED_PER_CLASS = 300
PAINTED_SIZE = 128
# Kaggle's client has no timeout. Seconds.
KAGGLE_REACH_SECONDS = 8.0


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
    return make_rows(rows)


def hub_rows(spec: str) -> Dataset:
    """Rows of every split of a Hub data set. The images stay in the cache of `datasets`.

    Raises:
        WbcError: As `open_hub_set`; also no images, no labels, rows without a label, a split of an unknown name, or a
            row that names a file that is not of the set.
    """
    rows = table_rows(spec, open_hub_set(spec, streaming=False))
    for image, source in zip(rows["image"], rows["source"], strict=True):
        content = image_content(image)
        if isinstance(content, str) and not is_downloaded(content):
            raise WbcError(
                f"{spec}: {source} names {content[:200]!r}, which is no file of the set. Nothing else is read."
            )
    return rows


def _ask_kaggle() -> None:
    """Raise an OSError where Kaggle does not answer in time. Any answer will do."""
    import requests
    from kagglesdk.kaggle_env import get_endpoint, get_env, is_in_kaggle_notebook

    # A Kaggle notebook has the sets on its disk, with or without a network.
    if not is_in_kaggle_notebook():
        requests.head(get_endpoint(get_env()), timeout=KAGGLE_REACH_SECONDS)


def _on_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
