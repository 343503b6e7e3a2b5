"""Cache of models converted for OpenVINO: loading one again takes a tenth of the time of converting."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from wbc_hf import __version__
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.files import sha256_of_file
from wbc_hf.hardware import cache_folder
from wbc_hf.hub import CONFIG_FILE, WEIGHTS_FILE
from wbc_hf.modeling import GRAPH_FILES, FinderConfig, Preprocessing

if TYPE_CHECKING:
    import openvino
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# A full ResNet-50 takes 94 MB. The most recently used models are kept.
MAX_CACHED = 4
# Models of the last hour are kept too, so that no process loses a file between finding and loading it.
_SECONDS_IN_USE = 3600
_LONGEST_REASON = 200
# Increase this when the graph changes.
_VERSION = 2
# SHA-256 of the files beside it: a graph that lost a part may still be read, and answer otherwise.
_CHECKSUM = "sha256"


class ConversionError(WbcError):
    """A model that OpenVINO cannot run."""


def converted(folder: Path, weights: str, preprocessing: Preprocessing) -> "Path | openvino.Model":
    """Get the converted graph of a model from the cache, converting it if needed.

    `weights` is the digest of those in the folder, as `digest_weights` gives it.

    Returns:
        The file of the graph; the graph itself where no file can be written.

    Raises:
        ConversionError: It cannot be converted.
        WbcError: The folder's files cannot be used.
    """
    key = _key(weights, (folder / CONFIG_FILE).read_bytes(), preprocessing)
    return cached_graph(key, lambda: convert(folder, preprocessing))


def converted_network(
    network: "PreTrainedModel", weights: str, preprocessing: Preprocessing, name: str
) -> "Path | openvino.Model":
    """Get the converted graph of a network in memory from the cache, converting it if needed.

    `weights` is the digest of its weights, as `digest_weights` gives it, and `name` what errors call it.

    Raises:
        ConversionError: It cannot be converted.
    """
    key = _key(weights, network.config.to_json_string().encode(), preprocessing)
    return cached_graph(key, lambda: _convert(network, preprocessing, name))


def cached_graph(key: str, make: "Callable[[], openvino.Model]") -> "Path | openvino.Model":
    """Get a converted graph from the cache, making it if needed; the graph itself if it cannot be cached.

    A damaged one is thrown away.
    """
    with needs_extra("openvino"):
        import openvino

    cache = cache_folder() / "openvino"
    path = cache / key
    file = path / GRAPH_FILES["openvino"]
    if path.exists():
        if _is_whole(path):
            with contextlib.suppress(OSError):  # a read-only folder
                os.utime(path)
            return file
        logger.warning("%s: is damaged, so the model is converted anew.", path)
        shutil.rmtree(path, ignore_errors=True)
    model = make()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=cache) as temporary:
            made = Path(temporary) / path.name
            made.mkdir()
            openvino.save_model(model, made / file.name, compress_to_fp16=False)
            (made / _CHECKSUM).write_text(_checksum(made))
            _publish(made, path)
    except (OSError, RuntimeError) as error:  # OpenVINO raises a RuntimeError on a full disk
        logger.warning("%s: converted models cannot be cached there, so each start converts anew (%s).", cache, error)
        return model
    _evict_old(cache)
    return file


def convert(folder: Path, preprocessing: Preprocessing) -> "openvino.Model":
    """Convert a model folder for OpenVINO without caching it.

    Raises:
        ConversionError: It cannot be converted.
        WbcError: The folder's files cannot be used.
    """
    from wbc_hf.modeling import load_classifier

    return _convert(load_classifier(folder), preprocessing, str(folder))


def _convert(network: "PreTrainedModel", preprocessing: Preprocessing, name: str) -> "openvino.Model":
    with needs_extra("openvino"):
        from openvino.frontend import GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure

    from wbc_hf.modeling import InferenceGraph, to_openvino

    try:
        return to_openvino(InferenceGraph(network, preprocessing), preprocessing.shape)
    # Tracing raises the first, OpenVINO the others.
    except (RuntimeError, GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure) as error:
        reason = textwrap.shorten(str(error), _LONGEST_REASON, placeholder=" …")
        raise ConversionError(
            f"{name}: cannot be converted for OpenVINO ({reason}). The backend torch can run it."
        ) from error


def converted_finder(folder: Path, config: FinderConfig) -> "Path | openvino.Model":
    """Get the converted graph of a finder's network from the cache, converting it if needed.

    The folder is as `FinderNetwork.save` writes it.
    """

    def make() -> "openvino.Model":
        from wbc_hf.modeling import FinderNetwork, finder_to_openvino

        network = FinderNetwork.load(folder)
        if sha256_of_file(folder / WEIGHTS_FILE) != weights:
            raise WbcError(f"{folder}: is being written. Try again.")
        return finder_to_openvino(network)

    weights = sha256_of_file(folder / WEIGHTS_FILE)
    return cached_graph(_key(weights, repr(config).encode()), make)


def _key(weights: str, config: bytes, preprocessing: Preprocessing | None = None) -> str:
    """Digest of everything that a graph depends on, also of the versions of the programs that make it."""
    pixels = None if preprocessing is None else (preprocessing.mean, preprocessing.std, preprocessing.shape)
    programs = (_VERSION, __version__, *map(version, ("openvino", "torch", "transformers")))
    return hashlib.sha256(repr((weights, config, pixels, programs)).encode()).hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    try:
        return (path / _CHECKSUM).read_text() == _checksum(path)
    except (OSError, UnicodeDecodeError):
        return False


def _checksum(path: Path) -> str:
    graph = path / GRAPH_FILES["openvino"]
    return " ".join(map(sha256_of_file, (graph, graph.with_suffix(".bin"))))


def _publish(made: Path, path: Path) -> None:
    """Move into the cache in one step; another process that was faster wrote the same files."""
    try:
        made.rename(path)
    except OSError:
        if not path.exists():
            raise


def _evict_old(cache: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process may evict at the same time
        used = sorted((path.stat().st_mtime, path) for path in cache.iterdir() if path.name[0] != ".")
        for when, path in used[:-MAX_CACHED]:
            if when < time.time() - _SECONDS_IN_USE:
                shutil.rmtree(path, ignore_errors=True)
