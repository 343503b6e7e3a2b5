"""What the configuration of a model and of its image processor may hold, and in which ranges.

Who wrote a model's folder is not known. Sizes are bounded before anything of them is allocated: a prediction stays
below a few hundred megabytes.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

MAX_SIDE = 512
_MAX_LABELS = 25_000  # ImageNet-21k has 21,843
_MAX_STAGES, _MAX_DEPTH = 8, 100
_USUAL_ACTIVATION = "relu"  # known without importing transformers
_MAX_NUMBER, _MAX_LAYERS = 10_000, 200  # of a configuration whose meaning is not known here


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


def _numbered_from_zero(names: dict[int, str]) -> dict[int, str]:
    if sorted(names) != list(range(len(names))):
        raise ValueError("its numbers should be 0, 1, 2 and so on")
    return {index: names[index] for index in sorted(names)}


def _activation(name: str) -> str:
    if name == _USUAL_ACTIVATION:
        return name
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise ValueError("is no activation function of transformers")
    return name


def _edge_of_number(size: JsonValue) -> JsonValue:
    """Older processors have a number for the shortest edge."""
    return {"shortest_edge": size} if isinstance(size, int) else size


ShownText = Annotated[str, Field(max_length=2000), AfterValidator(_printable)]
# Scores of a ResNet's features, which have length 1, are 2 at most.
OutOfDistributionThreshold = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Label = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(_printable)]
Labels = Annotated[dict[int, Label], Field(min_length=2, max_length=_MAX_LABELS), AfterValidator(_numbered_from_zero)]
Channels = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=16, le=MAX_SIDE)]


class _Fields(BaseModel):
    """Fields that are read; others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class AnyConfig(_Fields):
    """`config.json` of any model."""

    model_type: Annotated[str, Field(max_length=100)]
    id2label: Labels | None = None


class AnyProcessor(_Fields):
    """`preprocessor_config.json` of any model."""

    image_processor_type: Annotated[str, Field(max_length=100)] | None = None
    feature_extractor_type: Annotated[str, Field(max_length=100)] | None = None

    @property
    def kind(self) -> str:
        """Name of its class without what is the same in all; "" where it has none."""
        name = self.image_processor_type or self.feature_extractor_type or ""
        return re.sub("(ImageProcessor(Pil|Fast)?|FeatureExtractor)$", "", name)


class ResNetFields(_Fields):
    """What is read of a ResNet's `config.json`, beside its labels."""

    num_channels: Literal[3] = 3
    embedding_size: Annotated[int, Field(ge=1, le=256)] = 64
    hidden_sizes: Annotated[list[Channels], Field(min_length=1, max_length=_MAX_STAGES)] = [256, 512, 1024, 2048]
    depths: Annotated[list[Annotated[int, Field(ge=1, le=_MAX_DEPTH)]], Field(max_length=_MAX_STAGES)] = [3, 4, 6, 3]
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: Annotated[str, AfterValidator(_activation)] = _USUAL_ACTIVATION
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> "ResNetFields":
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(f"hidden_sizes has {len(self.hidden_sizes)} stages and depths {len(self.depths)}")
        if (blocks := sum(self.depths)) > _MAX_DEPTH:  # ResNet-200 has 66; building takes seconds for every hundred
            raise ValueError(f"depths add up to {blocks} blocks, and networks of more than {_MAX_DEPTH} are not built")
        if self.layer_type == "bottleneck" and min(self.hidden_sizes) < 4:
            raise ValueError("hidden_sizes of bottlenecks should be 4 or more")
        return self


class ResNetProcessorFields(_Fields):
    """What is read of the `preprocessor_config.json` of a ResNet."""

    do_resize: Literal[True] = True
    do_center_crop: Literal[False] | None = None
    do_pad: Literal[False] | None = None
    do_rescale: bool = True
    do_normalize: bool = True
    size: Annotated[dict[Literal["shortest_edge"], Side], Field(min_length=1), BeforeValidator(_edge_of_number)]
    crop_pct: Annotated[float, Field(ge=0.5, le=1)] = 224 / 256
    resample: Annotated[int, Field(ge=0, le=5)] = 3
    rescale_factor: Annotated[float, Field(ge=1e-6, le=1)] = 1 / 255
    image_mean: Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
    image_std: Annotated[list[Annotated[float, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)]


def _modest(value: Any) -> Any:
    """A flat structure of short texts and numbers that are no larger than a plain image classifier needs."""
    match value:
        case bool() | None:
            pass
        case int() | float():
            if abs(value) > _MAX_NUMBER:
                raise ValueError(f"is more than {_MAX_NUMBER}")
        case str():
            if len(value) > 250:
                raise ValueError("is a text of more than 250 characters")
        case list():
            if len(value) > 100:
                raise ValueError("has more than 100 values")
            for each in value:
                _modest(each)
        case _:
            raise ValueError("holds what no plain image classifier has")
    return value


class OtherFields(BaseModel):
    """`config.json` of an image classifier that is no ResNet: everything that is no field here."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[JsonValue, AfterValidator(_modest)]]

    id2label: JsonValue = None
    label2id: JsonValue = None
    auto_map: JsonValue = None  # to code of the folder, which is never run

    @model_validator(mode="after")
    def _not_deep(self) -> "OtherFields":
        for name, value in (self.model_extra or {}).items():
            numbers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
            if re.search("layers|depths|blocks", name) and sum(numbers) > _MAX_LAYERS:
                raise ValueError(f"{name} is {value}, and networks of more than {_MAX_LAYERS} layers are not built")
        return self


class OtherProcessorFields(OtherFields):
    """`preprocessor_config.json` of an image classifier that is no ResNet."""

    size: Annotated[dict[str, Side], BeforeValidator(_edge_of_number)] | None = None
    crop_size: Annotated[dict[str, Side], BeforeValidator(_edge_of_number)] | None = None
