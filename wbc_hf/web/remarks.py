"""What is said of pictures that were given: one line with numbers, which unfolds to names and reasons."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from wbc_hf.web.rendering import plural, render


class RemarkKind(StrEnum):
    """What there is to say of a picture, as the line with numbers words it."""

    EMPTY = "without a leucocyte"
    SEEN = "seen before"
    UNREADABLE = "cannot be read"
    LEFT_OUT = "left out"
    AS_CELL = "read as a picture of one cell"
    AS_FIELD = "read as a whole field"


# Here something is missing that a person gave.
FAILURES = (RemarkKind.UNREADABLE, RemarkKind.LEFT_OUT)


@dataclass(frozen=True)
class Remark:
    """Something to know of one picture.

    Attributes:
        kind: Of which sort.
        name: Of the picture.
        reason: Why, as the second half of a sentence.
    """

    kind: RemarkKind
    name: str
    reason: str


def render_remarks(remarks: Sequence[Remark], total: int, notes: Sequence[str] = ()) -> str:
    """Render what is said of pictures that were given.

    Args:
        remarks: On single ones.
        total: How many were given.
        notes: Sentences on all of them.
    """
    tone = "caution" if any(remark.kind in FAILURES for remark in remarks) else "neutral"
    return render("remarks", remarks=remarks, summary=summarise(remarks, total), notes=notes, tone=tone)


def summarise(remarks: Sequence[Remark], total: int) -> str:
    """`"3 of 20 photographs: 2 without a leucocyte, 1 cannot be read"`."""
    counts = Counter(remark.kind for remark in remarks)
    parts = ", ".join(f"{counts[kind]} {kind.value}" for kind in RemarkKind if counts[kind])
    names = {remark.name for remark in remarks}
    return f"{len(names)} of {plural(max(total, len(names)), 'photograph')}: {parts}"
