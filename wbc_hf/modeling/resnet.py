"""The classifier: a ResNet with a head for the five types, its image processor, and freezing."""

from pathlib import Path
from typing import cast

import torch
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from wbc_hf.errors import WbcError
from wbc_hf.hub import fetch_model
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.modeling.model_folder import build_network, load_config, load_processor

DEFAULT_MODEL = "microsoft/resnet-50"
FREEZE_DEPTHS = ("none", "embedder", "stage1", "stage2", "stage3", "stage4", "all")

# From the preprocessor_config.json of microsoft/resnet-50.
_CROP_FRACTION = 0.875
_MEAN = [0.485, 0.456, 0.406]
_STD = [0.229, 0.224, 0.225]
# The processor warps instead of cropping from 384 px on, and five halvings need 32 px.
_SIZES = range(32, 384)


def fetch_pretrained(model: str | Path) -> Path:
    """Download a ResNet checkpoint if it is a Hub id, and return its folder.

    Raises:
        WbcError: Not a model of the ResNet family, or unavailable.
        HubUnreachableError: The Hub did not answer and the model is not in the cache.
    """
    folder = fetch_model(model)
    model_type = load_config(folder).model_type
    if model_type != "resnet":
        raise WbcError(
            f"{model}: is a {model_type!r} model; one of the ResNet family is needed, such as {DEFAULT_MODEL}."
        )
    return folder


def build_from_scratch(
    width: float = 1.0, *, image_size: int = 224
) -> tuple[ResNetForImageClassification, BaseImageProcessor]:
    """Build a ResNet-50 with untrained weights and `width` times the channels of the original.

    Returns:
        The model, for float images (n, 3, image_size, image_size), and its processor.

    Raises:
        WbcError: The width or size is out of range.
    """
    if not 1 / 16 <= width <= 2:
        raise WbcError(f"--width {width}: between 0.0625 and 2 is allowed; 1.0 is ResNet-50.")
    config = ResNetConfig(
        embedding_size=round(64 * width),
        # Divisible by the bottleneck's reduction of 4.
        hidden_sizes=[4 * round(channels * width / 4) for channels in (256, 512, 1024, 2048)],
        **_labels(),
    )
    processor = build_processor(image_size)
    model = ResNetForImageClassification(config)
    for stage in _blocks(model)[1:]:
        for block in cast(torch.nn.ModuleList, stage.layers):
            *_, last = cast(torch.nn.Sequential, block.layer)
            # Each block is the identity at first, which trains faster: Goyal et al. 2017, arXiv:1706.02677.
            torch.nn.init.zeros_(last.get_parameter("normalization.weight"))
    return model, processor


def build_processor(image_size: int) -> BaseImageProcessor:
    """Build the image processor of microsoft/resnet-50 for squares of `image_size` pixels.

    Raises:
        WbcError: The size is out of range.
    """
    return ConvNextImageProcessorPil(
        size={"shortest_edge": _checked_size(image_size)}, crop_pct=_CROP_FRACTION, image_mean=_MEAN, image_std=_STD
    )


def build_from_pretrained(
    folder: Path, *, image_size: int | None = None
) -> tuple[ResNetForImageClassification, BaseImageProcessor]:
    """Load a trained ResNet for fine-tuning.

    The head is new unless the checkpoint has the same five classes in the same order.

    Args:
        folder: As `fetch_pretrained` returns it.
        image_size: Side of the square that the network sees, in pixels; None keeps the checkpoint's.

    Returns:
        The model, for float images (n, 3, image_size, image_size), and its processor.

    Raises:
        WbcError: The folder's files cannot be used, or the size is out of range.
    """
    config = load_config(folder)
    names = cast("dict[int, str]", config.id2label)
    config.id2label, config.label2id = _labels()["id2label"], _labels()["label2id"]
    model = cast(ResNetForImageClassification, build_network(config, folder, new_head=True))
    if [class_index(names[index]) for index in sorted(names)] != list(range(len(CLASS_NAMES))):
        # Also where the old head happens to have five outputs, which would be kept silently. A new layer, not
        # `reset_parameters`: where two threads load models at once, transformers leaves functions in the place of
        # torch's that skip whatever was loaded.
        head = cast(torch.nn.Linear, model.classifier[-1])
        model.classifier[-1] = torch.nn.Linear(head.in_features, head.out_features)
    processor = load_processor(folder)
    if not isinstance(processor, ConvNextImageProcessorPil):
        raise WbcError(
            f"{folder}: has a {type(processor).__name__}; fine-tuning needs a ResNet's ConvNextImageProcessor."
        )
    processor.size = {"shortest_edge": _checked_size(image_size or processor.size["shortest_edge"])}
    return model, processor


def freeze(model: ResNetForImageClassification, depth: str) -> None:
    """Freeze the layers from the input up to and including `depth`, one of `FREEZE_DEPTHS`.

    "all" leaves only the head, as "stage4" does. Weights are frozen and, with `keep_frozen_in_eval`, batch-norm
    statistics.

    Raises:
        WbcError: `depth` is not one of them.
    """
    if depth not in FREEZE_DEPTHS:
        raise WbcError(f"--freeze {depth}: is not one of {', '.join(FREEZE_DEPTHS)}.")
    for block in _blocks(model)[: FREEZE_DEPTHS.index(depth)]:
        block.requires_grad_(False)


def keep_frozen_in_eval(model: torch.nn.Module) -> None:
    """Put frozen modules back into evaluation mode, so that their batch-norm statistics stay as they are.

    Call it after every `model.train()`.
    """
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


def frozen_output(model: ResNetForImageClassification, depth: str, pixel_values: torch.Tensor) -> torch.Tensor:
    """Output of the layers up to and including `depth`: (n, channels, height, width).

    After the last stage it is pooled, (n, channels, 1, 1), since nothing between it and the head changes either.
    """
    blocks = _blocks(model)
    hidden = torch.nn.Sequential(*blocks[: FREEZE_DEPTHS.index(depth)])(pixel_values)
    return model.resnet.pooler(hidden) if FREEZE_DEPTHS.index(depth) >= len(blocks) else hidden


def skip_frozen(model: ResNetForImageClassification, depth: str) -> None:
    """Make the layers up to and including `depth` the identity: the model now takes the result of `frozen_output`.

    Their weights stay in place, so the model is saved whole. (Pooling a second time changes nothing.)
    """
    for block in _blocks(model)[: FREEZE_DEPTHS.index(depth)]:
        block.forward = torch.nn.Identity().forward


def _blocks(model: ResNetForImageClassification) -> list[torch.nn.Module]:
    return [model.resnet.embedder, *model.resnet.encoder.stages]


def _labels() -> dict:
    return {
        "num_labels": len(CLASS_NAMES),
        "id2label": dict(enumerate(CLASS_NAMES)),
        "label2id": {name: index for index, name in enumerate(CLASS_NAMES)},
    }


def _checked_size(image_size: int) -> int:
    if image_size not in _SIZES:
        raise WbcError(f"--image_size {image_size}: between {_SIZES[0]} and {_SIZES[-1]} pixels is allowed.")
    return image_size
