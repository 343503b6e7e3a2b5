"""Read the report of a model that somebody published: what of `metrics.json` is shown, checked against a schema."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from wbc_hf.errors import WbcError
from wbc_hf.files import read_json
from wbc_hf.hub import METRICS_FILE, find_file
from wbc_hf.safe_text import json_text

_ADVICE = "Fetch the model again, or remove the file: the page then says that there is no report."

_Share = Annotated[float, Field(ge=0, le=1)] | None
_Interval = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] | None
_Count = Annotated[int, Field(ge=0, le=10**9)]


class _Report(BaseModel):
    """Further figures are kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _ReviewIntervals(_Report):
    accuracy_of_accepted: _Interval


class _Review(_Report):
    coverage: _Share
    accuracy_of_accepted: _Share
    intervals: _ReviewIntervals


class _ClassFigures(_Report):
    precision: _Share
    recall: _Share
    f1: _Share
    support: _Count


class _ClassIntervals(_Report):
    precision: _Interval
    recall: _Interval
    f1: _Interval


class _LaboratoryIntervals(_Report):
    accuracy: _Interval
    balanced_accuracy: _Interval


class _Laboratory(_Report):
    count: _Count
    accuracy: _Share
    balanced_accuracy: _Share
    intervals: _LaboratoryIntervals
    review: _Review | None = None


class _Unseen(_Laboratory):
    review: _Review


class _Intervals(_LaboratoryIntervals):
    macro_f1: _Interval
    macro_precision: _Interval
    macro_recall: _Interval
    per_class: dict[str, _ClassIntervals]


class _Metrics(_Report):
    count: _Count
    accuracy: _Share
    balanced_accuracy: _Share
    macro_f1: _Share
    macro_precision: _Share
    macro_recall: _Share
    per_class: Annotated[dict[str, _ClassFigures], Field(max_length=1000)]
    intervals: _Intervals
    review: _Review | None = None
    laboratories: Annotated[dict[str, _Laboratory], Field(max_length=1000)] | None = None
    unseen: Annotated[dict[str, _Unseen], Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _same_classes(self) -> "_Metrics":
        if self.per_class.keys() != self.intervals.per_class.keys():
            raise ValueError("per_class has other classes than its intervals")
        return self


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Read the report of a model's folder; None where there is none of this project's form.

    Returns:
        What `evaluate` gave as metrics, and whatever further figures the file holds, all finite.

    Raises:
        WbcError: The file is no JSON, lies elsewhere, or a figure is out of its range.
    """
    file = find_file(folder, METRICS_FILE)
    if file is None:
        return None
    content: Any = read_json(file, JsonValue, _ADVICE)  # type: ignore[arg-type]
    # Others publish a file of this name too.
    needed = {name for name, field in _Metrics.model_fields.items() if field.is_required()}
    if not isinstance(content, dict) or not content.keys() >= needed:
        return None
    try:
        json_text(content)
    except ValueError:
        raise WbcError(f"{file}: holds figures that are no numbers. {_ADVICE}") from None
    read_json(file, _Metrics, _ADVICE)
    return content
