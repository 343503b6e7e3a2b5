"""Texts that several exports share: notices, flags, corrections, and safe file names."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.smear import ENOUGH_COUNTED, Cell, Differential, Flag, PerHundred, Snapshot

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


def per_hundred_text(it: PerHundred) -> str:
    """`erythroblast: 12 cells, 8.0 per 100 leucocytes (95 % limits 4.1 to 14.2)`."""
    if it.value is None:
        return f"{it.own}: {it.count} cells, and no leucocytes to count them by"
    limits = format_interval(it.limits, ".1f")
    return f"{it.own}: {it.count} cells, {format_figure(it.value, '.1f')} per 100 leucocytes (95 % limits {limits})"


def own_types_notes(differential: Differential) -> list[str]:
    """What a reader has to know of the laboratory's own types, a sentence each; empty where there are none."""
    notes = []
    if differential.corrected_count is not None:
        names = " and ".join(str(it.own) for it in differential.beside if it.own.in_leucocyte_count and it.count)
        notes.append(
            f"Leucocytes corrected for {names}: {differential.corrected_count:.2f} × 10⁹/l, of "
            f"{differential.leucocyte_count:g} as given; absolute counts are of the corrected number."
        )
    if (differential.own_shares or differential.beside) and differential.unreviewed:
        names = ", ".join(_names_of_own(differential))
        cells = f"{differential.unreviewed} counted cell{'s' * (differential.unreviewed != 1)}"
        notes.append(f"Only a person names {names}: the {cells} that nobody has looked at may hold more.")
    return notes


def _names_of_own(differential: Differential) -> list[str]:
    own = [share.label for share in differential.own_shares] + [it.own.name for it in differential.beside]
    return list(dict.fromkeys(own))


def reviewer_text(reviewer: str) -> str:
    """The name of a reviewer, or words for a missing one."""
    return reviewer or "a person who gave no name"


def time_text(time: datetime) -> str:
    """A time with its zone, in UTC, and local time where that differs: `… 23:30:00 UTC (25 Nov, 00:30 CET)`."""
    said, local = f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", local_text(time)
    return f"{said} ({local})" if local else said


def local_text(time: datetime) -> str:
    """The local time of a time with its zone, `25 Nov, 00:30 CET`, its day where that differs; "" where it is UTC."""
    utc, local = time.astimezone(UTC), time.astimezone()
    if local.utcoffset() == timedelta(0):
        return ""
    day = "" if local.date() == utc.date() else f"{local:%d %b}, "
    return f"{day}{local:%H:%M %Z}"


def user_texts(snapshot: Snapshot) -> Iterator[str]:
    """All that users, settings and files may have written into a report, in any order, some of it more than once."""
    about, model, differential = snapshot.about, snapshot.model, snapshot.differential
    yield from (snapshot.specimen, about.patient, about.order, about.slide, about.comment, local_text(snapshot.time))
    if about.signature is not None:
        yield from (about.signature.name, about.signature.comment, local_text(about.signature.time))
    yield from (model.name, model.version, model.trained_on or "", model.software)
    yield from snapshot.reviewers
    yield from {cell.prediction.label for cell in snapshot.cells}
    yield differential.ranges_source
    yield from _names_of_own(differential)
    yield from (slide.name for slide in snapshot.slides)
    for event in snapshot.history:
        yield from (event.who, event.field, event.before, event.after)


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
