"""Exports of a model: a converted graph and its `export.json`, in a folder beside the weights."""

import logging
import mmap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wbc_hf.errors import WbcError
from wbc_hf.files import read_json, write_json
from wbc_hf.hub import MAX_WEIGHT_BYTES, find_file
from wbc_hf.modeling.model_schemas import OutOfDistributionThreshold, ShownText

logger = logging.getLogger(__name__)

EXPORT_FILE = "export.json"
# The first that exists is used.
GRAPH_FILES = {"openvino": "model.xml", "onnx": "model.onnx"}
# OpenVINO has a description and, in a second file, the weights.
_MAX_BYTES = {"openvino": (50_000_000, MAX_WEIGHT_BYTES), "onnx": (MAX_WEIGHT_BYTES,)}
# The key by which a tensor of an ONNX file names the file that holds its values, as protobuf writes it.
_NAMES_A_FILE = b"\x0a\x08location"
_FORMAT = 1
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class ExportFigures:
    """Figures of a model on validation images.

    Attributes:
        macro_f1: 0 to 1.
        confident: Share of the images with that status; None for a model without a calibration.
        right_of_confident: Share of those that are correct; None where there are none.
    """

    __pydantic_config__ = _STRICT

    macro_f1: _Share
    confident: _Share | None
    right_of_confident: _Share | None


@dataclass(frozen=True)
class Check:
    """Comparison of an export with its model, made before it is written.

    Attributes:
        dataset: The spec of the data set; its validation split is used.
        split_seed: Random seed of the split.
        images: Number of validation images.
        calibrated_on: Number of training images for the quantisation; 0 without one.
        before, after: Figures of the model on torch in fp32, and of the export.
        agreement: Share of the images for which both predict the same class.
        out_of_distribution_threshold: The model's, scaled by as much as int8 changes the scores; None where it has
            none.
    """

    __pydantic_config__ = _STRICT

    dataset: ShownText
    split_seed: int
    images: _Count
    calibrated_on: _Count
    before: ExportFigures
    after: ExportFigures
    agreement: _Share
    out_of_distribution_threshold: OutOfDistributionThreshold | None


@dataclass(frozen=True)
class Export:
    """Content of `export.json`.

    Attributes:
        format: "openvino" or "onnx".
        precision: "int8", "bf16" or "fp32".
        weights: Digest of the exported weights, by `digest_weights`.
        check: None where no images were given to compare on.
        versions: Of the libraries that made it.
        made: When, in UTC, ISO 8601.
        export_format: Of the file.
    """

    __pydantic_config__ = _STRICT

    format: Literal["openvino", "onnx"]
    precision: Literal["int8", "bf16", "fp32"]
    weights: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    check: Check | None
    versions: Annotated[dict[ShownText, ShownText], Field(max_length=100)]
    made: ShownText
    export_format: int = _FORMAT

    def save(self, folder: Path) -> None:
        """Write `export.json`."""
        write_json(folder / EXPORT_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Export":
        """Read the `export.json` of a folder.

        Raises:
            WbcError: The file is broken, or of another version of this project.
        """
        file = find_file(folder, EXPORT_FILE)
        if file is None:
            raise WbcError(f"{folder}: has no {EXPORT_FILE}. Remove {folder}, or export anew.")
        advice = f"Remove {folder}, or export anew."
        if read_json(file, _AnyVersion, advice).export_format != _FORMAT:
            raise WbcError(f"{file}: was written by another version of wbc_hf. Update the package, or export anew.")
        return read_json(file, cls, advice)


class _AnyVersion(BaseModel):
    """`export.json` of any version."""

    export_format: int


def find_export(folder: Path, weights: str | None) -> Path | None:
    """Find the export to use instead of a model's weights: OpenVINO's before ONNX's; None where there is none.

    An export of other weights than those beside it is skipped with a warning. Where the folder has no weights, any
    export is used.

    Args:
        folder: Of the model.
        weights: Digest of the weights in it, by `digest_weights`; None where it has none.

    Raises:
        WbcError: An `export.json` is broken, of another version of this project, or lies elsewhere.
    """
    for name in GRAPH_FILES:
        if find_file(folder, f"{name}/{EXPORT_FILE}") is None:
            continue
        exported = folder / name
        export = Export.load(exported)
        if export.format != name:
            raise WbcError(f"{exported / EXPORT_FILE}: format is {export.format!r} in the folder of {name!r}.")
        if weights is None or export.weights == weights:
            return exported
        logger.warning("%s: was exported from other weights than those beside it: not used. Export anew.", exported)
    return None


def find_graph(exported: Path, format: str) -> Path:
    """Find the file of an export's graph.

    Args:
        exported: Folder of the export, within that of its model.
        format: Of the export.

    Raises:
        WbcError: A file is missing, too large, or lies elsewhere; or an ONNX file keeps its weights in another file
            ("external data"), which neither the limit of size nor a checksum of the file covers.
    """
    names = [GRAPH_FILES[format]] + (["model.bin"] if format == "openvino" else [])
    for name, most in zip(names, _MAX_BYTES[format], strict=True):
        file = find_file(exported.parent, f"{exported.name}/{name}")
        if file is None:
            raise WbcError(f"{exported}: has no {name}. Remove {exported}, or export anew.")
        if file.stat().st_size > most:
            raise WbcError(f"{file}: is larger than {most / 1e6:.0f} MB. Remove {exported}, or export anew.")
        if format == "onnx" and _has_external_data(file):
            raise WbcError(
                f"{file}: keeps weights in another file (ONNX external data), and only what is one file is loaded. "
                f"Save it as one file, or remove {exported} and export anew."
            )
    return exported / names[0]


def _has_external_data(file: Path) -> bool:
    if not file.stat().st_size:
        return False  # nothing to map; OpenVINO says what is wrong with it
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_NAMES_A_FILE) >= 0
