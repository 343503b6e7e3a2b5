"""The files of a model's folder: which there are, where they may lie, and which of them hold its weights."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from wbc_hf.errors import WbcError
from wbc_hf.files import read_json

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
# The licence of weights that others made, which goes with whatever derives from them.
NOTICE_FILE = "NOTICE"
# In the format of `sha256sum`, which checks it too: `sha256sum --check SHA256SUMS`.
CHECKSUMS_FILE = "SHA256SUMS"

# All files that a model of this project or an ordinary ResNet is loaded from. No pattern matches a pickle
# (pytorch_model.bin, *.pt): loading one can run code.
MODEL_FILES = (
    CONFIG_FILE,
    PROCESSOR_FILE,
    "model*.safetensors",
    WEIGHTS_INDEX_FILE,
    "wbc.json",
    "wbc*.safetensors",
    METRICS_FILE,
    CARD_FILE,
    NOTICE_FILE,
    CHECKSUMS_FILE,
)
# More than any image classifier that runs on a processor.
MAX_WEIGHT_BYTES = 1_500_000_000


class _WeightsIndex(BaseModel):
    """Content of `model.safetensors.index.json`: the file of each tensor."""

    weight_map: Annotated[dict[str, str], Field(min_length=1, max_length=100_000)]


def find_file(folder: Path, name: str) -> Path | None:
    """Find a regular file of a model's folder by its relative name; None where there is none.

    Raises:
        WbcError: It is a link to what lies elsewhere, or no regular file. Only in huggingface_hub's cache, where each
            file is a link, may links lead to the files beside that the same repository has there.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    try:
        target, root = path.resolve(strict=True), folder.resolve()
    except (OSError, RuntimeError) as error:  # a link to nowhere, or in a circle
        raise WbcError(f"{path}: is a link that leads nowhere. Put the file itself there.") from error
    places = [root]
    if root.parent.name == "snapshots":
        places.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in places):
        raise WbcError(f"{path}: is a link to a file outside of the folder. Put the file itself there.")
    if not target.is_file():
        raise WbcError(f"{path}: is no regular file. Put the file itself there.")
    return path


def find_weights(folder: Path) -> list[Path]:
    """Find the files that hold a model's weights: one, or those that an index names; none where there are none.

    Raises:
        WbcError: The index is broken, or names what is no file of the folder; the files are too large or lie outside.
    """
    whole = find_file(folder, WEIGHTS_FILE)
    index = find_file(folder, WEIGHTS_INDEX_FILE)
    files = [whole] if whole is not None else [] if index is None else _shards(folder, index)
    size = sum(file.stat().st_size for file in files)
    if size > MAX_WEIGHT_BYTES:
        raise WbcError(
            f"{folder}: its weights take {size / 1e9:.1f} GB; at most {MAX_WEIGHT_BYTES / 1e9:g} GB are loaded. "
            "Choose a smaller model."
        )
    return files


def _shards(folder: Path, index: Path) -> list[Path]:
    advice = "Fetch the model again."
    names = sorted(set(read_json(index, _WeightsIndex, advice).weight_map.values()))
    shards = []
    for name in names:
        # Also for Windows, where a backslash separates and a colon names a drive.
        if not name.endswith(".safetensors") or any(character in name for character in "/\\:\0"):
            raise WbcError(f"{index}: names {name[:100]!r}, which is no safetensors file of the folder. {advice}")
        shard = find_file(folder, name)
        if shard is None:
            raise WbcError(f"{index}: names {name[:100]!r}, which is not there. {advice}")
        shards.append(shard)
    return shards
