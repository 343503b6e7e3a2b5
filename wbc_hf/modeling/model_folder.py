"""Load what a model's folder holds: the only place where a stranger's configuration and weights are read.

Every file is checked before anything is made of it. transformers gets checked values and tensors, and never the
folder: it would follow what a configuration says of other files, other models and code. It is imported, and PyTorch
with it, where they are needed: prediction with OpenVINO does without both.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from wbc_hf.errors import WbcError
from wbc_hf.files import read_json
from wbc_hf.hub import CONFIG_FILE, PROCESSOR_FILE, find_file, find_weights
from wbc_hf.modeling.model_schemas import (
    AnyConfig,
    AnyProcessor,
    OtherFields,
    OtherProcessorFields,
    ResNetFields,
    ResNetProcessorFields,
)
from wbc_hf.modeling.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

# A ViT-Large has 304 million.
_MAX_PARAMETERS = 400_000_000
_SHOWN = 3  # tensors that one message names
_LONGEST_REASON = 300
_FETCH_AGAIN = "Fetch the model again, or choose another one."
_TRAINED = "Pass a folder that training wrote, or the id of such a model on the Hub."
# A counter that no answer depends on.
_WITHOUT_EFFECT = ".num_batches_tracked"
_HEAD = "classifier."
_RESNET = "resnet"


class ConfigSummary(NamedTuple):
    """Kind of a classifier, and the names of its classes by number."""

    model_type: str
    names: dict[int, str]


def summarise_config(folder: Path) -> ConfigSummary:
    """Read of a classifier's configuration what predicting needs, after the same checks.

    Raises:
        WbcError: As `load_config`.
    """
    file = _find(folder, CONFIG_FILE)
    known = read_json(file, AnyConfig, _FETCH_AGAIN)
    if known.model_type == _RESNET and known.id2label is not None:
        read_json(file, ResNetFields, _FETCH_AGAIN)
        return ConfigSummary(_RESNET, known.id2label)
    config = load_config(folder)
    return ConfigSummary(config.model_type, cast("dict[int, str]", config.id2label))


def load_config(folder: Path) -> "PreTrainedConfig":
    """Load the configuration of an image classifier, which names its classes.

    Raises:
        WbcError: It is missing or broken, a value is out of its range, or the model is of another kind.
    """
    from transformers import CONFIG_MAPPING, PreTrainedConfig, ResNetConfig

    file = _find(folder, CONFIG_FILE)
    known = read_json(file, AnyConfig, _FETCH_AGAIN)
    if known.model_type not in CONFIG_MAPPING:
        raise WbcError(f"{file}: model_type is {known.model_type!r}, which transformers does not know. {_TRAINED}")
    values: dict[str, Any] = {}
    if known.id2label is not None:
        values["id2label"] = known.id2label
        values["label2id"] = {name: index for index, name in known.id2label.items()}
    of = CONFIG_MAPPING[known.model_type]
    if of is ResNetConfig:
        values |= read_json(file, ResNetFields, _FETCH_AGAIN).model_dump()
    else:
        others = read_json(file, OtherFields, _FETCH_AGAIN).model_extra or {}
        # The base class has fields that name code, files and libraries.
        names = _field_names(of) - _field_names(PreTrainedConfig) | of.attribute_map.keys()
        values |= {name: value for name, value in others.items() if name in names}
    with naming_errors(folder):
        return of(**values)


def _field_names(of: "type[PreTrainedConfig]") -> set[str]:
    return {field.name for field in dataclasses.fields(of)}


def load_preprocessing(folder: Path) -> Preprocessing:
    """Load the image processor of a model, on Pillow: the same pixels with and without torchvision.

    Raises:
        WbcError: It is missing or broken, or a value is out of its range.
    """
    file = _find(folder, PROCESSOR_FILE)
    known = read_json(file, AnyProcessor, _FETCH_AGAIN)
    if not known.kind:
        raise WbcError(f"{file}: has no image_processor_type. {_FETCH_AGAIN}")
    if known.kind == "ConvNext":
        return Preprocessing(read_json(file, ResNetProcessorFields, _FETCH_AGAIN))
    read_json(file, OtherProcessorFields, _FETCH_AGAIN)
    with naming_errors(folder):
        from transformers import AutoImageProcessor

        # By the file: of a folder it would read another one first, if that is there.
        return Preprocessing(AutoImageProcessor.from_pretrained(file, backend="pil", trust_remote_code=False))


def load_processor(folder: Path) -> "BaseImageProcessor":
    """Load the image processor of a model as transformers has it.

    Raises:
        WbcError: As `load_preprocessing`.
    """
    preprocessing = load_preprocessing(folder)
    with naming_errors(folder):
        return preprocessing.processor


def load_classifier(folder: Path) -> "PreTrainedModel":
    """Load any image classifier with the weights that were saved, in fp32 and evaluation mode.

    Raises:
        WbcError: The folder's files cannot be used; weights are missing, of another shape, or no numbers.
    """
    return build_network(load_config(folder), folder)


def build_network(config: "PreTrainedConfig", folder: Path, *, new_head: bool = False) -> "PreTrainedModel":
    """Build a network with the weights of a folder.

    Args:
        config: Of the network.
        folder: Of the weights.
        new_head: A head that is missing or of another shape is drawn anew.

    Raises:
        WbcError: Weights are missing, of another shape, or no numbers; or the network is too large.
    """
    import torch

    skeleton = _skeleton(config, folder)
    weights = read_weights(folder)
    with naming_errors(folder):
        loaded: Any = type(skeleton).from_pretrained(
            None,
            config=config,
            # Copies: the tensors that were read are a map of the file, which may be written anew.
            state_dict={name: tensor.clone() for name, tensor in weights.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    network, report = loaded
    # Otherwise they are drawn at random, in silence.
    lost = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    lost = [name for name in lost if not (name.endswith(_WITHOUT_EFFECT) or (new_head and name.startswith(_HEAD)))]
    if lost:
        raise WbcError(
            f"{folder}: its weights lack {_listing(lost)} or have them in another shape than {CONFIG_FILE} says. "
            f"{_FETCH_AGAIN}"
        )
    network.name_or_path = network.config.name_or_path = str(folder)
    return network


def _skeleton(config: "PreTrainedConfig", folder: Path) -> "PreTrainedModel":
    """The network without memory for its weights."""
    import torch
    from transformers import AutoModelForImageClassification

    with naming_errors(folder), torch.device("meta"):
        skeleton = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    if parameters > _MAX_PARAMETERS:
        raise WbcError(
            f"{folder / CONFIG_FILE}: describes a network of {parameters / 1e6:,.0f} million parameters; at most "
            f"{_MAX_PARAMETERS / 1e6:.0f} million are loaded. Choose a smaller model."
        )
    return skeleton


def read_weights(folder: Path, framework: str = "pt") -> dict[str, Any]:
    """Read all tensors of a model's folder, as PyTorch ("pt") or NumPy ("np") has them.

    Raises:
        WbcError: There are none, a file is broken, two hold a tensor of the same name, or values are no numbers.
        TypeError, AttributeError: NumPy does not have their type.
    """
    files = find_weights(folder)
    if not files:
        raise WbcError(f"{folder}: has no model.safetensors. Weights in other formats are never loaded. {_TRAINED}")
    tensors: dict[str, Any] = {}
    for file in files:
        try:
            with safe_open(file, framework=framework) as opened:
                read = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a dictionary
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WbcError(f"{file}: cannot be loaded as safetensors ({_reason(error)}). {_FETCH_AGAIN}") from error
        if odd := sorted(name for name in read if not name.isprintable()):
            raise WbcError(f"{file}: holds {_listing(odd)}, names that cannot be shown. {_FETCH_AGAIN}")
        if twice := sorted(tensors.keys() & read.keys()):
            raise WbcError(f"{file}: holds {_listing(twice)}, as another file does. {_FETCH_AGAIN}")
        broken = sorted(name for name, tensor in read.items() if not _is_sound(name, tensor))
        if broken:
            raise WbcError(f"{file}: holds {_listing(broken)} with values that are no numbers. {_FETCH_AGAIN}")
        tensors |= read
    return tensors


def _is_sound(name: str, tensor: "torch.Tensor | np.ndarray") -> bool:
    """Whether all values are finite, and no variance is negative, whose root is no number."""
    if not isinstance(tensor, np.ndarray):
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if tensor.dtype.kind == "V":  # bfloat16, which NumPy knows once another library has brought it
        raise TypeError(f"{name}: {tensor.dtype} is read by PyTorch")
    if tensor.dtype.kind != "f":
        return tensor.dtype.kind != "c"
    with np.errstate(over="ignore"):
        single = tensor.astype(np.float32, copy=False)
    return bool(np.isfinite(single).all()) and not (name.endswith("running_var") and bool((single < 0).any()))


def digest_weights(source: "Path | Mapping[str, torch.Tensor] | torch.nn.Module") -> str:
    """SHA-256 of a model's weights: the same in memory and in the folder that it is saved to.

    Raises:
        WbcError: The folder has no weights, or they cannot be used.
    """
    digest = hashlib.sha256()
    for name, values in sorted(_bytes_of(source).items()):
        digest.update(name.encode())
        digest.update(values)
    return digest.hexdigest()


def _bytes_of(source: "Path | Mapping[str, torch.Tensor] | torch.nn.Module") -> dict[str, memoryview]:
    """The bytes of each tensor by its name."""
    if isinstance(source, Path):
        try:
            arrays = read_weights(source, "np")
            return {name: array.reshape(-1).view(np.uint8).data for name, array in arrays.items()}
        except (TypeError, AttributeError):
            source = read_weights(source)  # bfloat16, which NumPy does not have
    import torch

    if isinstance(source, torch.nn.Module):
        source = source.state_dict()
    return {
        name: tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data
        for name, tensor in source.items()
    }


def _find(folder: Path, name: str) -> Path:
    file = find_file(folder, name)
    if file is None:
        raise WbcError(f"{folder}: has no {name}. {_TRAINED}")
    return file


@contextmanager
def naming_errors(folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong within into an error that names the folder."""
    try:
        yield
    except WbcError:
        raise
    except Exception as error:
        # Hundreds of architectures promise no set of exceptions for values that do not go together.
        raise WbcError(
            f"{folder}: cannot be loaded as an image classifier in safetensors ({_reason(error)}). {_TRAINED}"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:_LONGEST_REASON] or type(error).__name__


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(name[:100] if name.isprintable() else repr(name[:100]) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more tensors" if len(names) > _SHOWN else shown
