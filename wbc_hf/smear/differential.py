"""A differential: the percentage of each leucocyte, what the count supports of it, and what it means beside a range.

A differential of 100 cells is weak evidence: 5 eosinophils among them stand for anything from 1.6 to 11.3 %. So every
percentage has its exact limits (Clopper & Pearson 1934, Biometrika 26:404; for differentials Rümke 1979, "The
statistically expected variability in differential leukocyte counting"), and a value outside its range is flagged only
as far as those limits support it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml
from scipy.stats import binomtest

from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES, class_index

CONFIDENCE = 0.95
# What a differential by eye counts at least (CLSI H20-A2 asks for 200 where a method is judged by it).
ENOUGH_COUNTED = 100
DEFAULT_RANGES_SOURCE = "adults, MedlinePlus 003657"


class Flag(StrEnum):
    """How a percentage stands to its reference range."""

    NONE = ""
    HIGH = "high"  # even the lower limit lies above the range
    LOW = "low"  # even the upper limit lies below the range
    MAYBE_HIGH = "high?"  # the percentage lies above the range, its lower limit does not
    MAYBE_LOW = "low?"  # the percentage lies below the range, its upper limit does not


@dataclass(frozen=True)
class ReferenceRanges:
    """What a laboratory takes for usual.

    Attributes:
        percent: Lower and upper limit in percent of all leucocytes, by class name; all five.
        source: Whose ranges they are, as a report names them.
    """

    percent: Mapping[str, tuple[float, float]]
    source: str


@dataclass(frozen=True)
class Absolute:
    """Cells of one class in the blood, in 10⁹/l: the percentage times the total leucocyte count, and its limits.

    The limits hold the uncertainty of the percentage alone; that of the total is not known here.
    """

    value: float
    limits: tuple[float, float]


@dataclass(frozen=True)
class Share:
    """One row of a differential.

    Attributes:
        label: Name of the class.
        count: Cells of it.
        percent: Of all counted cells, 0 to 100; None where none was counted.
        limits: Exact 95 % limits of the percentage; 0 to 100 where none was counted.
        reference: Lower and upper limit of the reference range, in percent.
        flag: What that says.
        absolute: In 10⁹/l, where the total leucocyte count is known and cells were counted.
    """

    label: str
    count: int
    percent: float | None
    limits: tuple[float, float]
    reference: tuple[float, float]
    flag: Flag
    absolute: Absolute | None


@dataclass(frozen=True)
class Differential:
    """What was counted.

    Attributes:
        shares: One for each of the five classes, in the order of `CLASS_NAMES`.
        total: Cells counted.
        leucocytes: Total leucocyte count that was given, in 10⁹/l, or None.
        ranges_source: Whose reference ranges these are.
    """

    shares: tuple[Share, ...]
    total: int
    leucocytes: float | None
    ranges_source: str

    @property
    def enough(self) -> bool:
        """Whether as many cells were counted as a differential needs at least."""
        return self.total >= ENOUGH_COUNTED


DEFAULT_RANGES = ReferenceRanges(
    {leucocyte.name: leucocyte.reference_range for leucocyte in LEUCOCYTES}, DEFAULT_RANGES_SOURCE
)


def differentiate(
    counts: Mapping[str, int], ranges: ReferenceRanges = DEFAULT_RANGES, leucocytes: float | None = None
) -> Differential:
    """The differential of so many cells of each class.

    Args:
        counts: Cells by class name; a class that is missing has none.
        ranges: Reference ranges.
        leucocytes: Total leucocyte count in 10⁹/l, for absolute counts.

    Raises:
        WbcError: A total leucocyte count outside `check_leucocytes`' range.
    """
    leucocytes = check_leucocytes(leucocytes)
    total = sum(counts.values())
    shares = tuple(_share(name, counts.get(name, 0), total, ranges.percent[name], leucocytes) for name in CLASS_NAMES)
    return Differential(shares, total, leucocytes, ranges.source)


def exact_limits(count: int, total: int) -> tuple[float, float]:
    """Clopper-Pearson 95 % limits of `count` of `total` in percent; 0 and 100 of none."""
    if total == 0:
        return 0.0, 100.0
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return 100 * float(interval.low), 100 * float(interval.high)


def flag_of(percent: float, limits: tuple[float, float], reference: tuple[float, float]) -> Flag:
    """How a percentage with its limits stands to a range; a value on the edge of the range lies within it.

    Limits that hold the whole range say nothing: with few cells all rows would be flagged, and flags be ignored.
    """
    low, high = reference
    if limits[0] <= low and high <= limits[1]:
        return Flag.NONE
    if percent > high:
        return Flag.HIGH if limits[0] > high else Flag.MAYBE_HIGH
    if percent < low:
        return Flag.LOW if limits[1] < low else Flag.MAYBE_LOW
    return Flag.NONE


def check_leucocytes(leucocytes: float | None) -> float | None:
    """A total leucocyte count in 10⁹/l; None and 0, what an empty field gives, are none.

    Raises:
        WbcError: Below 0 or above 1000, or not a number: a count per µl is a thousand times too large.
    """
    if not leucocytes:
        return None
    if not 0 < leucocytes <= 1000:
        raise WbcError(
            f"{leucocytes:g}: a total leucocyte count is given in 10⁹/l (6.5, not 6500 per µl), at most 1000."
        )
    return float(leucocytes)


def load_ranges(path: Path) -> ReferenceRanges:
    """A laboratory's own ranges, from a YAML file with one line per class and, where wanted, a `source`.

        source: adults, our laboratory 2026
        neutrophil: [39, 75]
        lymphocyte: [16, 47]

    Classes that are not named keep the default.

    Raises:
        WbcError: The file cannot be read, names a class twice, or says something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WbcError(
            f"{path}: cannot be read as reference ranges in YAML ({str(error).splitlines()[0]})."
        ) from error
    if not isinstance(content, dict):
        raise WbcError(f"{path}: has no lines such as `neutrophil: [40, 60]` (percent of all leucocytes).")
    source = str(content.pop("source", None) or path.name)
    percent: dict[str, tuple[float, float]] = {}
    for name, value in content.items():
        index = class_index(str(name))
        if index is None:
            raise WbcError(f"{path}: {name!r} is none of {', '.join(CLASS_NAMES)}, nor `source`.")
        # Laboratories list segmented and band neutrophils apart; taking the last would give all neutrophils its range.
        if CLASS_NAMES[index] in percent:
            raise WbcError(f"{path}: {name!r} is {CLASS_NAMES[index]} once more; one range for all of them is needed.")
        percent[CLASS_NAMES[index]] = _checked_range(path, name, value)
    if len(percent) < len(CLASS_NAMES):
        source += f"; other classes: {DEFAULT_RANGES.source}"
    return ReferenceRanges(DEFAULT_RANGES.percent | percent, source)


def _share(name: str, count: int, total: int, reference: tuple[float, float], leucocytes: float | None) -> Share:
    limits = exact_limits(count, total)
    if total == 0:
        return Share(name, 0, None, limits, reference, Flag.NONE, None)
    percent = 100 * count / total
    absolute = None
    if leucocytes is not None:
        low, high = (leucocytes * limit / 100 for limit in limits)
        absolute = Absolute(leucocytes * percent / 100, (low, high))
    return Share(name, count, percent, limits, reference, flag_of(percent, limits, reference), absolute)


def _checked_range(path: Path, name: object, value: object) -> tuple[float, float]:
    numbers = (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(limit, int | float) and not isinstance(limit, bool) for limit in value)
    )
    if not numbers or not 0 <= value[0] <= value[1] <= 100:
        raise WbcError(f"{path}: {name}: {value!r} is no range; two percentages are needed, such as [40, 60].")
    return float(value[0]), float(value[1])
