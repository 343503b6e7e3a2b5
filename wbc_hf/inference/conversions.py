"""Models converted for OpenVINO, kept by what they were made of: loading one again takes a tenth of the time."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import textwrap
import time
from pathlib import Path

import openvino
import torch
import transformers
from openvino.frontend import GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure

from wbc_hf import __version__
from wbc_hf.errors import WbcError
from wbc_hf.hardware import cache_folder
from wbc_hf.modeling import GRAPH_FILES, AnswerGraph, Preprocessing, load_classifier, to_openvino

logger = logging.getLogger(__name__)

# A full ResNet-50 takes 94 MB. Those that were used last are kept.
KEPT = 4
# So are those of the last hour, however many: no process loses a file between finding and loading it.
_SECONDS_IN_USE = 3600
# Tracing raises the first, OpenVINO the others.
_FAILURES = (RuntimeError, GeneralFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure)
_LONGEST_REASON = 200
# To be raised when the graph changes.
_VERSION = 1


class ConversionError(WbcError):
    """A model that OpenVINO cannot run."""


def converted(folder: Path, weights: str, preparation: Preprocessing) -> Path | openvino.Model:
    """The file of a model's graph, converted now or before; the graph itself where no file can be written.

    Args:
        folder: Of the model.
        weights: Digest of the weights in it, as `digest_weights` gives it.
        preparation: Of its pictures.

    Raises:
        ConversionError: It cannot be converted.
        WbcError: The folder's files cannot be used.
    """
    kept = cache_folder() / "openvino"
    path = kept / _digest(folder, weights, preparation)
    file = path / GRAPH_FILES["openvino"]
    if file.exists():
        with contextlib.suppress(OSError):  # where the folder is only to be read
            os.utime(path)
        return file
    model = convert(folder, preparation)
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=kept) as temporary:
            made = Path(temporary) / path.name
            made.mkdir()
            openvino.save_model(model, made / file.name, compress_to_fp16=False)
            _put(made, path)
    except (OSError, RuntimeError) as error:  # of a full disk OpenVINO makes a RuntimeError
        logger.warning("%s: converted models cannot be kept there, so each start converts anew (%s).", kept, error)
        return model
    _forget_all_but_the_last(kept)
    return file


def convert(folder: Path, preparation: Preprocessing) -> openvino.Model:
    """The graph of a model as it lies in its folder; nothing is kept.

    Raises:
        ConversionError: It cannot be converted.
        WbcError: The folder's files cannot be used.
    """
    graph = AnswerGraph(load_classifier(folder), preparation)
    try:
        return to_openvino(graph, preparation.shape)
    except _FAILURES as error:
        reason = textwrap.shorten(str(error), _LONGEST_REASON, placeholder=" …")
        raise ConversionError(
            f"{folder}: cannot be converted for OpenVINO ({reason}). The backend torch can run it."
        ) from error


def _digest(folder: Path, weights: str, preparation: Preprocessing) -> str:
    """Of all that the graph hangs on: weights, configuration, preparation, and the programs that make it."""
    digest = hashlib.sha256(weights.encode())
    digest.update((folder / "config.json").read_bytes())
    digest.update(repr((preparation.mean, preparation.deviation, preparation.shape)).encode())
    programs = (__version__, openvino.__version__, torch.__version__, transformers.__version__)
    digest.update(" ".join(map(str, (_VERSION, *programs))).encode())
    return digest.hexdigest()[:32]


def _put(made: Path, path: Path) -> None:
    """In one step; where another process was faster, its files are the same."""
    try:
        made.rename(path)
    except OSError:
        if not path.exists():
            raise


def _forget_all_but_the_last(kept: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # where another process forgets at the same time
        used = sorted((path.stat().st_mtime, path) for path in kept.iterdir() if path.name[0] != ".")
        for when, path in used[:-KEPT]:
            if when < time.time() - _SECONDS_IN_USE:
                shutil.rmtree(path, ignore_errors=True)
