"""Differential leucocyte count: percentages with exact confidence limits, compared with reference ranges.

A differential of 100 cells is weak evidence: 5 eosinophils among them are compatible with 1.6 to 11.3 %. So every
percentage has its exact limits (Clopper & Pearson 1934, Biometrika 26:404; for differentials Rümke 1979, "The
statistically expected variability in differential leukocyte counting"), and a value outside its reference range is
flagged only as far as those limits support it.

Cells that wait for a review are no random sample of all: they are the difficult ones, often of the rare classes. While
some wait, the limits are those of the worst case, whatever the waiting cells turn out to be, and no flag is certain.

A laboratory's own types are part of the 100 %, or are counted per 100 leucocytes. That is the ratio of two counts,
both of chance: given their sum, one of them is binomial, which gives exact limits of the ratio of two Poisson means
(Przyborowski & Wilenski 1940, Biometrika 31:313). They allow for how few leucocytes were counted, too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import yaml

from wbc_hf.errors import WbcError
from wbc_hf.evaluation import exact_limits as share_limits
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES, class_index
from wbc_hf.smear.cell import Cell, CellState, count_cells
from wbc_hf.smear.cell_types import NO_TYPES, CellType, CellTypes

# A manual differential counts at least as many (CLSI H20-A2 asks for 200 where a method is evaluated with it).
ENOUGH_COUNTED = 100


class Flag(StrEnum):
    """How a percentage compares with its reference range."""

    NONE = ""
    HIGH = "high"  # the lower limit is above the range
    LOW = "low"  # the upper limit is below the range
    MAYBE_HIGH = "high?"  # the percentage is above the range, its lower limit is not
    MAYBE_LOW = "low?"  # the percentage is below the range, its upper limit is not


@dataclass(frozen=True)
class ReferenceRanges:
    """Reference ranges of a laboratory.

    Attributes:
        percent: Lower and upper limit in percent of all leucocytes, by class name; all five.
        source: Where they come from, as reports cite it.
    """

    percent: Mapping[str, tuple[float, float]]
    source: str


DEFAULT_RANGES = ReferenceRanges(
    {leucocyte.name: leucocyte.reference_range for leucocyte in LEUCOCYTES}, source="adults, MedlinePlus 003657"
)


@dataclass(frozen=True)
class Absolute:
    """Concentration of one class in the blood in 10⁹/l: percentage times total leucocyte count, with its limits.

    The count is the corrected one, where there is one. The limits hold the uncertainty of the percentage alone; that
    of the total count is unknown.
    """

    value: float
    limits: tuple[float, float]


@dataclass(frozen=True)
class Share:
    """One class in a differential, or a type of the laboratory's own that is part of the 100 %.

    Attributes:
        label: Name of the class or type.
        count: Counted cells of the class.
        percent: Of all counted cells, 0 to 100; None if none were counted.
        limits: Exact 95 % confidence limits of the percentage, whatever the waiting cells turn out to be; 0 and 100 if
            no cells were counted.
        reference: Lower and upper limit of the reference range in percent; None of a type of the laboratory's own.
        flag: How the percentage compares with that range.
        absolute: In 10⁹/l; None if no cells were counted or the total leucocyte count is unknown.
        own: The type, where it is none of the five classes.
    """

    label: str
    count: int
    percent: float | None
    limits: tuple[float, float]
    reference: tuple[float, float] | None
    flag: Flag
    absolute: Absolute | None
    own: CellType | None = None


@dataclass(frozen=True)
class PerHundred:
    """A type of the laboratory's own that is counted beside the leucocytes.

    Attributes:
        own: The type.
        count: Cells of it.
        value: For 100 counted leucocytes; None if none were counted.
        limits: Exact 95 % confidence limits of the value, whatever the waiting cells turn out to be; None if no
            leucocytes were counted.
    """

    own: CellType
    count: int
    value: float | None
    limits: tuple[float, float] | None


@dataclass(frozen=True)
class Differential:
    """A differential leucocyte count.

    Attributes:
        shares: One per class, in the order of `CLASS_NAMES`, then one per type of the laboratory's own.
        total: Counted cells, which are 100 %.
        leucocyte_count: Total leucocyte count in 10⁹/l, as it was given, or None.
        ranges_source: Source of the reference ranges.
        waiting: Cells that wait for a review, not counted.
        beside: Types of the laboratory's own that are counted per 100 leucocytes.
        unreviewed: Counted cells that no person has looked at: of them the model says what they are, and it never
            says a type of the laboratory's own.
    """

    shares: tuple[Share, ...]
    total: int
    leucocyte_count: float | None
    ranges_source: str
    waiting: int = 0
    beside: tuple[PerHundred, ...] = ()
    unreviewed: int = 0

    @property
    def own_shares(self) -> tuple[Share, ...]:
        """The shares of the laboratory's own types."""
        return tuple(share for share in self.shares if share.own is not None)

    @property
    def corrected_count(self) -> float | None:
        """The total leucocyte count in 10⁹/l without other nucleated cells that it includes; None without any.

        Count × 100 / (100 + such cells per 100 leucocytes), as in Dacie and Lewis, Practical Haematology.
        """
        return self._corrected(self.total) if self._included and self.total else None

    @property
    def _included(self) -> int:
        """Cells that are no leucocytes, and in the total leucocyte count."""
        return sum(it.count for it in self.beside if it.own.in_leucocyte_count)

    def _corrected(self, leucocytes: int) -> float | None:
        """The total leucocyte count in 10⁹/l as it is corrected where so many cells are leucocytes."""
        if self.leucocyte_count is None or not leucocytes:
            return self.leucocyte_count
        return self.leucocyte_count * leucocytes / (leucocytes + self._included)

    @property
    def enough(self) -> bool:
        """Whether at least `ENOUGH_COUNTED` cells were counted."""
        return self.total >= ENOUGH_COUNTED


def differentiate(
    counts: Mapping[str, int],
    ranges: ReferenceRanges = DEFAULT_RANGES,
    leucocyte_count: float | None = None,
    *,
    waiting: int = 0,
    own: Mapping[CellType, int] | None = None,
    unreviewed: int = 0,
) -> Differential:
    """Compute a differential from the number of cells per class.

    Args:
        counts: Cells by class name; a missing class has none.
        ranges: Reference ranges.
        leucocyte_count: Total leucocyte count in 10⁹/l, for absolute counts.
        waiting: Cells that wait for a review. Each may turn out to be of any class, or of none.
        own: Cells by type of the laboratory's own, in the order in which they are to be listed.
        unreviewed: Counted cells that no person has looked at.

    Raises:
        WbcError: A total leucocyte count that `check_leucocyte_count` refuses.
    """
    given, own = check_leucocyte_count(leucocyte_count), own or {}
    of_total = {it: count for it, count in own.items() if it.leucocyte}
    total = sum(counts.values()) + sum(of_total.values())
    beside = tuple(_per_hundred(it, count, total, waiting) for it, count in own.items() if not it.leucocyte)
    counted = Differential((), total, given, ranges.source, waiting, beside, unreviewed)
    # What absolute counts are of: as corrected, and at most, where all that wait turn out to be leucocytes.
    of = given if counted.corrected_count is None else counted.corrected_count, counted._corrected(total + waiting)
    shares = [_share(name, counts.get(name, 0), total, waiting, ranges.percent[name], *of) for name in CLASS_NAMES]
    shares += [_share(it, count, total, waiting, None, *of) for it, count in of_total.items()]
    return replace(counted, shares=tuple(shares))


def differentiate_cells(
    cells: Sequence[Cell],
    ranges: ReferenceRanges = DEFAULT_RANGES,
    leucocyte_count: float | None = None,
    types: CellTypes = NO_TYPES,
) -> Differential:
    """Compute the differential of cells of one specimen: of those that are counted, and for those that wait.

    Args:
        cells: Of the specimen.
        ranges: Reference ranges.
        leucocyte_count: As for `differentiate`.
        types: The laboratory's own. Types that no cell was given are listed only where a person has looked at all
            counted cells and none waits: before that, nobody can say that there are none.

    Raises:
        WbcError: A total leucocyte count that `check_leucocyte_count` refuses.
    """
    waiting = sum(cell.state is CellState.WAITING for cell in cells)
    unreviewed = sum(cell.state is CellState.COUNTED and cell.review is None for cell in cells)
    counted = [cell for cell in cells if cell.state in (CellState.COUNTED, CellState.BESIDE)]
    found = Counter(cell.own for cell in counted if cell.own is not None)
    listed = types if counted and not waiting and not unreviewed else [it for it in types if it in found]
    own = {it: found[it] for it in (*listed, *found)}
    return differentiate(count_cells(cells), ranges, leucocyte_count, waiting=waiting, own=own, unreviewed=unreviewed)


def exact_limits(count: int, total: int, waiting: int = 0) -> tuple[float, float]:
    """Clopper-Pearson 95 % confidence limits of `count` out of `total`, in percent; 0 and 100 if `total` is 0.

    Args:
        count: Counted cells of one class.
        total: Counted cells.
        waiting: Cells that are not counted yet. The lower limit is that where all of them turn out to be of other
            classes, the upper that where all turn out to be of this one.
    """
    if total == 0:
        return 0.0, 100.0
    lowest, highest = share_limits(count, total + waiting)[0], share_limits(count + waiting, total + waiting)[1]
    return 100 * lowest, 100 * highest


def limits_per_hundred(count: int, leucocytes: int, waiting: int = 0) -> tuple[float, float] | None:
    """Exact 95 % confidence limits of a number of other cells per 100 leucocytes; None if no leucocytes were counted.

    Args:
        count: Other cells, counted beside the leucocytes.
        leucocytes: Counted leucocytes.
        waiting: Cells that are not counted yet. The lower limit is that where all of them turn out to be leucocytes,
            the upper that where all turn out to be of this type.
    """
    if leucocytes == 0:
        return None
    among = count + leucocytes + waiting
    low, high = share_limits(count, among)[0], share_limits(count + waiting, among)[1]
    return 100 * low / (1 - low), 100 * high / (1 - high)


def flag_of(
    percent: float, limits: tuple[float, float], reference: tuple[float, float], *, final: bool = True
) -> Flag:
    """Compare a percentage and its confidence limits with a reference range; the range includes its ends.

    Limits that enclose the whole range give no flag: with few cells every class would have one, and nobody heed them.

    Args:
        percent: Of all counted cells.
        limits: Of that percentage.
        reference: Lower and upper limit of the range.
        final: Whether all cells are counted; while some wait, a flag is possible at most.
    """
    low, high = reference
    if limits[0] <= low and high <= limits[1]:
        return Flag.NONE
    if percent > high:
        return Flag.HIGH if final and limits[0] > high else Flag.MAYBE_HIGH
    if percent < low:
        return Flag.LOW if final and limits[1] < low else Flag.MAYBE_LOW
    return Flag.NONE


def check_leucocyte_count(count: float | None) -> float | None:
    """Check a total leucocyte count in 10⁹/l; None and 0, which an empty form field gives, become None.

    Raises:
        WbcError: Not a number, below 0 or above 1000: a count per µl is a thousand times too large.
    """
    if not count:
        return None
    if not 0 < count <= 1000:
        raise WbcError(f"{count:g}: a total leucocyte count is given in 10⁹/l (6.5, not 6500 per µl), at most 1000.")
    return float(count)


def load_ranges(path: Path) -> ReferenceRanges:
    """Load a laboratory's reference ranges from a YAML file; classes that it does not name keep the default.

        source: adults, our laboratory 2026
        neutrophil: [39, 75]
        lymphocyte: [16, 47]

    Raises:
        WbcError: The file cannot be read, names a class twice, or has any other content.
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
            raise WbcError(f"{path}: {name!r} is not one of {', '.join(CLASS_NAMES)}, nor `source`.")
        # Some laboratories list segmented and band neutrophils; neither range holds for all neutrophils.
        if CLASS_NAMES[index] in percent:
            raise WbcError(f"{path}: {name!r} is {CLASS_NAMES[index]} once more; give one range for all of them.")
        percent[CLASS_NAMES[index]] = _check_range(path, name, value)
    if len(percent) < len(CLASS_NAMES):
        source += f"; other classes: {DEFAULT_RANGES.source}"
    return ReferenceRanges({**DEFAULT_RANGES.percent, **percent}, source)


def _per_hundred(own: CellType, count: int, leucocytes: int, waiting: int) -> PerHundred:
    value = 100 * count / leucocytes if leucocytes else None
    return PerHundred(own, count, value, limits_per_hundred(count, leucocytes, waiting))


def _share(
    of: str | CellType,
    count: int,
    total: int,
    waiting: int,
    reference: tuple[float, float] | None,
    leucocyte_count: float | None,
    most: float | None,
) -> Share:
    own = of if isinstance(of, CellType) else None
    limits = exact_limits(count, total, waiting)
    if total == 0:
        return Share(str(of), 0, None, limits, reference, Flag.NONE, None, own)
    percent = 100 * count / total
    absolute = None
    if leucocyte_count is not None and most is not None:
        absolute = Absolute(
            leucocyte_count * percent / 100, (leucocyte_count * limits[0] / 100, most * limits[1] / 100)
        )
    flag = Flag.NONE if reference is None else flag_of(percent, limits, reference, final=waiting == 0)
    return Share(str(of), count, percent, limits, reference, flag, absolute, own)


def _check_range(path: Path, name: object, value: object) -> tuple[float, float]:
    match value:
        case [int() | float() as low, int() | float() as high] if not any(isinstance(end, bool) for end in value):
            if 0 <= low <= high <= 100:
                return float(low), float(high)
    raise WbcError(f"{path}: {name}: {value!r} is not a range; give two percentages, such as [40, 60].")
