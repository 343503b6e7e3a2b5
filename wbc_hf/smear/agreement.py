"""Do two readers agree? Percentages within the limits of chance, after Rümke, and Cohen's kappa cell by cell.

Rümke (1979, "The statistically expected variability in differential leukocyte counting", in: Differential leukocyte
counting, College of American Pathologists) judges a second count by the 95 % limits of the first. Here they are the
exact binomial ones, rounded outwards to whole percent.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear.differential import exact_limits
from wbc_hf.smear.history import NONE_OF_FIVE


@dataclass(frozen=True)
class ClassAgreement:
    """One class, as two readers counted it.

    Attributes:
        label: Class name.
        first: Percent of the first reader's cells.
        second: Of the second reader's.
        limits: Whole percent within which the second count is expected, after Rümke.
    """

    label: str
    first: float
    second: float
    limits: tuple[int, int]

    @property
    def within(self) -> bool:
        """Whether chance alone explains the difference."""
        return self.limits[0] <= self.second <= self.limits[1]


@dataclass(frozen=True)
class Agreement:
    """How far two readers agree on cells that both have judged.

    Attributes:
        readers: Names of the first and the second.
        cells: Number of the cells that both have judged.
        same: Number of those of which both said the same.
        kappa: Cohen's kappa (1960), at most 1; None where both said one and the same of all cells, or of no cell.
        classes: One per class, and per type of the laboratory's own in the 100 %; empty where either counted no cell.
    """

    readers: tuple[str, str]
    cells: int
    same: int
    kappa: float | None
    classes: tuple[ClassAgreement, ...]


def rumke_limits(count: int, total: int) -> tuple[int, int]:
    """95 % limits of a percentage after Rümke, in whole percent: exact binomial ones, rounded outwards."""
    low, high = exact_limits(count, total)
    return math.floor(low), math.ceil(high)


def compare_readers(
    first: Mapping[int, str], second: Mapping[int, str], readers: tuple[str, str], beside: Collection[str] = ()
) -> Agreement:
    """Compare what two readers said of the cells of one specimen.

    Args:
        first: By number of the cell: its class, a type of the laboratory's own, or `NONE_OF_FIVE` for none of them.
        second: As well.
        readers: Names of both.
        beside: Types that are no part of the 100 %. They count for kappa alone, as `NONE_OF_FIVE` does.
    """
    from sklearn.metrics import cohen_kappa_score

    both = sorted(first.keys() & second.keys())
    one, other = [first[number] for number in both], [second[number] for number in both]
    same = sum(a == b for a, b in zip(one, other, strict=True))
    kappa = float(cohen_kappa_score(one, other)) if len({*one, *other}) > 1 else None
    counted = [[word for word in said if word not in (NONE_OF_FIVE, *beside)] for said in (one, other)]
    classes: tuple[ClassAgreement, ...] = ()
    if all(counted):
        totals = [len(said) for said in counted]
        classes = tuple(
            ClassAgreement(
                name,
                100 * counted[0].count(name) / totals[0],
                100 * counted[1].count(name) / totals[1],
                rumke_limits(counted[0].count(name), totals[0]),
            )
            for name in (*CLASS_NAMES, *sorted({*counted[0], *counted[1]} - {*CLASS_NAMES}))
        )
    return Agreement(readers, len(both), same, kappa, classes)
