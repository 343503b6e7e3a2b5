"""The pages of a report after the first: the history of the specimen."""

from wbc_hf.reports.history import history_lines
from wbc_hf.reports.pdf import FAINT, INK, LEFT, RIGHT, ReportPage
from wbc_hf.reports.texts import RESEARCH_USE
from wbc_hf.smear import Action, Snapshot

_TEXT_LEFT, _BOTTOM, _FOOT = 52.0, 276.0, 289.5  # millimetres
_MOST_LINES = 60  # of one event


def draw_history(page: ReportPage, snapshot: Snapshot) -> None:
    """Add as many pages as the history takes, and number all pages; none where nobody did anything.

    The reading of pictures is left out: the JSON export holds it.
    """
    lines = history_lines([event for event in snapshot.history if event.action is not Action.READ])
    facts = _facts(snapshot)
    if not lines and not facts:
        return
    _number(page)
    y = _begin(page, snapshot)
    for name, value in facts:
        page.put(LEFT, y + 2.6, name, 7, bold=True)
        y = page.put_items(_TEXT_LEFT, y, [value], _MOST_LINES) + 0.6
    y += 2
    for time, text in lines:
        if y > _BOTTOM:
            y = _begin(page, snapshot)
        page.put(LEFT, y + 2.6, f"{time:%Y-%m-%d %H:%M:%S} UTC", 7, ink=FAINT)
        y = page.put_items(_TEXT_LEFT, y, [text], _MOST_LINES) + 0.6


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What is known of the specimen and does not stand on the first page, as a title and a text each."""
    about = snapshot.about
    facts = [("Patient", about.patient), ("Order", about.order), ("Slide", about.slide), ("Comment", about.comment)]
    if about.signature is not None:
        facts.append(("Comment of the signer", about.signature.comment))
    if about.amended:
        facts.append(("Amended", f"{about.amended} time{'s' * (about.amended > 1)} after it had been signed"))
    return [(title, text) for title, text in facts if text.strip()]


def _begin(page: ReportPage, snapshot: Snapshot) -> float:
    page.add_page()
    _number(page)
    page.put(LEFT, 21, "History", 13, bold=True)
    name = page.shorten(snapshot.specimen or "not named", 90, 9, bold=True)
    page.put(RIGHT, 21, name, 9, align="R", bold=True)
    page.rule(25, ink=INK, width=0.35)
    page.put(LEFT, _FOOT, RESEARCH_USE, 6.5, ink=FAINT)
    return 28.0


def _number(page: ReportPage) -> None:
    page.put(RIGHT, _FOOT, f"page {page.page_no()} of {{nb}}", 6.5, align="R", ink=FAINT)
