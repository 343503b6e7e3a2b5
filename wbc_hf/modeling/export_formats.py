"""Exports of a model: a converted graph and its `export.json`, in a folder beside the weights."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from wbc_hf.errors import WbcError

logger = logging.getLogger(__name__)

EXPORT_FILE = "export.json"
# The first that exists is used.
GRAPH_FILES = {"openvino": "model.xml", "onnx": "model.onnx"}
_FORMAT = 1


@dataclass(frozen=True)
class ExportFigures:
    """Figures of a model on validation images.

    Attributes:
        macro_f1: 0 to 1.
        confident: Share of the images with that status; None for a model without a calibration.
        right_of_confident: Share of those that are correct; None where there are none.
    """

    macro_f1: float
    confident: float | None
    right_of_confident: float | None


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

    dataset: str
    split_seed: int
    images: int
    calibrated_on: int
    before: ExportFigures
    after: ExportFigures
    agreement: float
    out_of_distribution_threshold: float | None


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
    """

    format: str
    precision: str
    weights: str
    check: Check | None
    versions: dict[str, str]
    made: str

    def save(self, folder: Path) -> None:
        """Write `export.json`."""
        text = json.dumps({"export_format": _FORMAT} | asdict(self), indent=2)
        (folder / EXPORT_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Export":
        """Read the `export.json` of a folder.

        Raises:
            WbcError: The file is broken, or of another version of this project.
        """
        file = folder / EXPORT_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content.pop("export_format") != _FORMAT:
                raise WbcError(
                    f"{file}: was written by another version of wbc_hf. Update the package, or export anew."
                )
            check = content.pop("check")
            if check is not None:
                check = Check(**check | {when: ExportFigures(**check[when]) for when in ("before", "after")})
            return cls(**content, check=check)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WbcError(f"{file}: cannot be read ({error}). Remove {folder}, or export anew.") from error


def find_export(folder: Path, weights: str) -> Path | None:
    """Find the export to use instead of a model's weights: OpenVINO's before ONNX's; None where there is none.

    An export of other weights than those beside it is skipped with a warning. Where the folder has no weights, any
    export is used.

    Args:
        folder: Of the model.
        weights: Digest of the weights in it, by `digest_weights`.

    Raises:
        WbcError: An `export.json` is broken, or of another version of this project.
    """
    for exported in (folder / name for name in GRAPH_FILES):
        if not (exported / EXPORT_FILE).exists():
            continue
        if not has_weights(folder) or Export.load(exported).weights == weights:
            return exported
        logger.warning("%s: was exported from other weights than those beside it: not used. Export anew.", exported)
    return None


def has_weights(folder: Path) -> bool:
    """Whether a model folder has weights: a folder may hold an export alone."""
    return any(folder.glob("model*.safetensors"))


def digest_weights(source: Path | torch.nn.Module) -> str:
    """SHA-256 of a model's weights: the same in memory and in the folder that it is saved to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(source).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(source: Path | torch.nn.Module) -> dict[str, torch.Tensor]:
    if isinstance(source, torch.nn.Module):
        return source.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    for file in source.glob("model*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a dictionary
    return tensors
