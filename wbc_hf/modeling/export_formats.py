"""An export: a model's graph in a file, and what is known of it, in a folder of its own beside the weights."""

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
# In this order they are looked for.
GRAPH_FILES = {"openvino": "model.xml", "onnx": "model.onnx"}
_FORMAT = 1


@dataclass(frozen=True)
class ExportFigures:
    """How a model does on validation images.

    Attributes:
        macro_f1: 0 to 1.
        confident: Share of the images with that status; None for a model that does not say when to trust it.
        right_of_confident: Share of those that are right; None where there are none.
    """

    macro_f1: float
    confident: float | None
    right_of_confident: float | None


@dataclass(frozen=True)
class Check:
    """What an export was compared on, before it was written.

    Attributes:
        dataset: The spec of the set, its validation split.
        split_seed: Of the split.
        images: How many validation images.
        calibrated_on: How many training images the quantisation saw; 0 without one.
        before, after: Figures of the model in fp32, as torch has it, and of the export.
        agreement: Share of the images to which both give the same class.
        out_of_distribution_threshold: Of the export's own features: the model's, moved by as much as int8 moves
            their scores; None where it has none.
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
    """What `export.json` says.

    Attributes:
        format: "openvino" or "onnx".
        precision: "int8", "bf16" or "fp32".
        weights: Digest of the weights that it was made of, as `digest_weights` gives it.
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
        """What a folder says of the export in it.

        Raises:
            WbcError: The file is broken, or of a later version of this project.
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
                figures = {when: ExportFigures(**check.pop(when)) for when in ("before", "after")}
                check = Check(**check, **figures)
            return cls(**content, check=check)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WbcError(f"{file}: cannot be read ({error}). Remove {folder}, or export anew.") from error


def find_export(folder: Path, weights: str) -> Path | None:
    """The folder of a model's export, OpenVINO's before ONNX's; None where it has none that can be used.

    One that was made of other weights than those beside it is passed over, with a warning.

    Args:
        folder: Of the model.
        weights: Digest of the weights in it, as `digest_weights` gives it. Where there are none, exports stand by
            themselves.

    Raises:
        WbcError: An export's `export.json` is broken, or of a later version of this project.
    """
    for exported in (folder / name for name in GRAPH_FILES):
        if not (exported / EXPORT_FILE).exists():
            continue
        if not has_weights(folder) or Export.load(exported).weights == weights:
            return exported
        logger.warning("%s: was exported from other weights than those beside it: not used. Export anew.", exported)
    return None


def has_weights(folder: Path) -> bool:
    """Whether there are weights beside the configuration: an export can stand by itself."""
    return any(folder.glob("model*.safetensors"))


def digest_weights(source: Path | torch.nn.Module) -> str:
    """SHA-256 of a model's weights: the same in memory and in the folder that it is saved to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(source).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _tensors(source: Path | torch.nn.Module) -> dict[str, torch.Tensor]:
    if isinstance(source, torch.nn.Module):
        return source.state_dict()
    tensors = {}
    for file in source.glob("model*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no dictionary
    return tensors
