"""The ResNet, its new head, its processor, and what is frozen."""

from wbc_hf.modeling.resnet import (
    DEFAULT_MODEL,
    FREEZE_DEPTHS,
    build_from_pretrained,
    build_from_scratch,
    fetch_pretrained,
    freeze,
    keep_frozen_in_eval,
    load_classifier,
    load_processor,
)

__all__ = [
    "DEFAULT_MODEL",
    "FREEZE_DEPTHS",
    "build_from_pretrained",
    "build_from_scratch",
    "fetch_pretrained",
    "freeze",
    "keep_frozen_in_eval",
    "load_classifier",
    "load_processor",
]
