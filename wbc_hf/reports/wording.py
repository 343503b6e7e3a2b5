"""What several exports say in the same words: names that are safe everywhere, flags, and who corrected what."""

import re
import unicodedata

from wbc_hf.smear import ENOUGH_COUNTED, Cell, Flag, Snapshot

RESEARCH_USE = "Research use, not for diagnosis."
NONE_OF_THESE = "none of the five"
FEW_CELLS = f"Fewer than {ENOUGH_COUNTED} cells: the limits are wide, and say how wide."

FLAG_TEXTS = {
    Flag.NONE: "",
    Flag.HIGH: "high",
    Flag.LOW: "low",
    Flag.MAYBE_HIGH: "possibly high: more cells would tell",
    Flag.MAYBE_LOW: "possibly low: more cells would tell",
}

_NAME_LENGTH = 40


def safe_name(name: str) -> str:
    """A name that a user gave as part of a file name: ASCII letters, digits, "_" and "-", at most 40; may be empty.

    Accents are dropped, everything else becomes "-". No dot survives, so neither a folder above nor a second suffix
    can be named.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:_NAME_LENGTH].strip("-")


def safe_stem(record: Snapshot) -> str:
    """`differential-<specimen>-20261124T2130Z`, or without the specimen where it has no name that a file can bear."""
    return "-".join(filter(None, ("differential", safe_name(record.specimen), f"{record.time:%Y%m%dT%H%MZ}")))


def correction_text(cell: Cell) -> str:
    """`monocyte → lymphocyte`: the model's class and that of the person."""
    return f"{cell.prediction.label} → {cell.label or NONE_OF_THESE}"


def reviewer_text(reviewer: str) -> str:
    """Who looked at a cell, also where nobody gave a name."""
    return reviewer or "a person who gave no name"
