"""Texts that several exports share: notices, flags, corrections, and safe file names."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta

from wbc_hf.smear import ENOUGH_COUNTED, Cell, Flag, Snapshot

RESEARCH_USE = "Research use, not for diagnosis."
NONE_OF_THESE = "none of the five"
FEW_CELLS = f"Fewer than {ENOUGH_COUNTED} cells: the limits are wide, and say how wide."
WORST_CASE = "While cells wait for review, the limits hold whatever those turn out to be, and no flag is certain."

FLAG_TEXTS = {
    Flag.NONE: "",
    Flag.HIGH: "high",
    Flag.LOW: "low",
    Flag.MAYBE_HIGH: "possibly high: more cells would tell",
    Flag.MAYBE_LOW: "possibly low: more cells would tell",
}

_NAME_LENGTH = 40


def correction_text(cell: Cell) -> str:
    """`monocyte → lymphocyte`: the model's class and the reviewer's."""
    return f"{cell.prediction.label} → {cell.label or NONE_OF_THESE}"


def reviewer_text(reviewer: str) -> str:
    """The name of a reviewer, or words for a missing one."""
    return reviewer or "a person who gave no name"


def time_text(time: datetime) -> str:
    """A time in UTC, with local time beside it where that differs: `… 23:30:00 UTC (25 Nov, 00:30 CET)`.

    Args:
        time: With its time zone.
    """
    said, local = f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", local_text(time)
    return f"{said} ({local})" if local else said


def local_text(time: datetime) -> str:
    """The local time of a time, `25 Nov, 00:30 CET`, with the day where it is another; "" where it is UTC.

    Args:
        time: With its time zone.
    """
    utc, local = time.astimezone(UTC), time.astimezone()
    if local.utcoffset() == timedelta(0):
        return ""
    day = "" if local.date() == utc.date() else f"{local:%d %b}, "
    return f"{day}{local:%H:%M %Z}"


def file_stem(snapshot: Snapshot) -> str:
    """`differential-<specimen>-20261124T2130Z`, without the specimen if nothing of its name is safe."""
    return "-".join(filter(None, ("differential", safe_name(snapshot.specimen), f"{snapshot.time:%Y%m%dT%H%MZ}")))


def safe_name(name: str) -> str:
    """A user's name as part of a file name: at most 40 ASCII letters, digits, "_" and "-"; may be empty.

    Accents are dropped, everything else becomes "-". No dot survives, so that it can name neither a parent folder nor
    a second suffix.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:_NAME_LENGTH].strip("-")
