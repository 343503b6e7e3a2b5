"""The ResNet, its new head, its processor, what is frozen, and when to trust it."""

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
from wbc_hf.modeling.trust import (
    TARGET_ACCURACY,
    Trust,
    before_temperature,
    fit_temperature,
    fit_trust,
    fold_temperature,
    look,
)

__all__ = [
    "DEFAULT_MODEL",
    "FREEZE_DEPTHS",
    "TARGET_ACCURACY",
    "Trust",
    "before_temperature",
    "build_from_pretrained",
    "build_from_scratch",
    "fetch_pretrained",
    "fit_temperature",
    "fit_trust",
    "fold_temperature",
    "freeze",
    "keep_frozen_in_eval",
    "load_classifier",
    "load_processor",
    "look",
]
