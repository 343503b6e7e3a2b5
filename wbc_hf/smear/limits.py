"""Values that are read back within limits, since nobody knows who wrote them."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

MAX_LINE = 1000  # characters of a name, number or comment: longer ones take a report minutes
MAX_EVENTS = 200_000
MAX_TEXT = 70_000  # characters of any other text: a path within a ZIP file may be as long


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("should be a time that UTC has too") from error


Line = Annotated[str, Field(max_length=MAX_LINE)]
Number = Annotated[int, Field(ge=1, le=MAX_EVENTS)]
Coordinate = Annotated[float, Field(ge=-(2**21), le=2**21)]
Positive = Annotated[float, Field(gt=0, le=1000)]
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
