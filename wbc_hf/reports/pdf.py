"""The first page of a report, A4, to read and to sign. All lengths are in millimetres, sizes of text in points.

Names are never cut: what does not fit in its place gets lines of its own, and what does not fit on a page goes on the
next.
"""

import io
import logging
from collections.abc import Sequence

from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.labels import LEUCOCYTES, Leucocyte
from wbc_hf.reports.pdf_pages import draw_more
from wbc_hf.reports.pdf_types import draw_own_types
from wbc_hf.reports.report_page import CELL, FAINT, HEIGHT, INK, LEFT, LINE, RIGHT, SHOWN, Fact, ReportPage
from wbc_hf.reports.texts import (
    FLAG_TEXTS,
    RESEARCH_USE,
    WORST_CASE,
    correction_text,
    local_text,
    reviewer_text,
    time_text,
)
from wbc_hf.smear import ENOUGH_COUNTED, Cell, CellState, Differential, Picture, Share, Snapshot

logger = logging.getLogger(__name__)

_IN_THE_HISTORY = "…, in whole in the history"

BAND, CAUTION, ALERT = "#e4e7eb", "#b45309", "#b91c1c"

CHART = (85.0, 125.0)  # ends of the axis in each row
CHART_TICKS = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # percent
ROW = 9.2  # height of a row of the table
STRIP = 17.0  # height of a row of cells, where there is room for it
STRIPS_END = 215.6  # of all five, so that the review has room below them
STRIP_LEFT = 44.0
BELOW_CELL = STRIP - CELL
PITCH = (RIGHT - STRIP_LEFT - CELL) / (SHOWN - 1)  # from one cell to the next
_HEAD_OF_TABLE, _FOOT_OF_TABLE = 4.8, 17.5
_HEAD_OF_CELLS = 4.6

_NOT_COUNTED = {
    CellState.WAITING: "waiting for review",
    CellState.REJECTED: "rejected by a person",
    CellState.CUT: "cut off by the border",
    CellState.DUPLICATE: "seen in another picture",
    CellState.REMOVED: "removed with their picture",
}


def draw_report(snapshot: Snapshot) -> bytes:
    """Draw the report, see `wbc_hf.reports.to_pdf`."""
    page = ReportPage(snapshot)
    try:
        return _draw(page, snapshot)
    except Exception:
        if not page.asked_fonts:
            raise
        # Whatever is wrong with a font of this computer, there is a report.
        logger.warning("A font of this computer cannot be used: the report says which letters lack.", exc_info=True)
        return _draw(ReportPage(snapshot, more_fonts=False), snapshot)


def _draw(page: ReportPage, snapshot: Snapshot) -> bytes:
    page.add_page()
    page.bottom = _draw_foot(page, snapshot) - 1.5
    y = _draw_head(page, snapshot)
    y = _draw_notices(page, snapshot, y)
    y = page.room(y, _HEAD_OF_TABLE + len(LEUCOCYTES) * ROW + _FOOT_OF_TABLE)
    y = _draw_table(page, snapshot, y)
    y = draw_own_types(page, snapshot.differential, y)
    page.heading = "Review"
    paragraphs = _review_paragraphs(page, snapshot)
    cells_height = _HEAD_OF_CELLS + len(LEUCOCYTES) * STRIP + 1
    # Where long names take its room, they are on the pages that follow.
    has_room = y + cells_height + min(12, _height_of_review(page, paragraphs)) <= page.bottom
    if has_room:
        y = _draw_cells(page, snapshot, y)
    _draw_review(page, paragraphs, y)
    draw_more(page, snapshot, shows_cells=has_room or not snapshot.cells_in(CellState.COUNTED))
    return page.finish()


def _draw_head(page: ReportPage, snapshot: Snapshot) -> float:
    page.put(LEFT, 21, "Leucocyte differential", 17, bold=True)
    page.put(RIGHT, 20.6, RESEARCH_USE, 8.5, align="R", bold=True, ink=CAUTION)
    page.rule(25, ink=INK, width=0.35)
    differential = snapshot.differential
    facts = [
        Fact("Specimen", snapshot.specimen or "not named", LEFT, 56),
        Fact("Recorded (UTC)", f"{snapshot.time:%d %b %Y, %H:%M}", 76, 43, local_text(snapshot.time)),
        Fact("Pictures", _count_pictures(snapshot.pictures), 122, 26),
        Fact("Cells counted", str(differential.total), 150, 18),
    ]
    if differential.leucocyte_count is not None:
        facts.append(Fact("Leucocytes, 10⁹/l", f"{differential.leucocyte_count:g}", 170, 24))
    y = page.put_facts(30.5, facts, 9, 6.5, bold=True)
    about = snapshot.about
    known = [("Patient", about.patient, LEFT, 56), ("Order", about.order, 76, 43), ("Slide", about.slide, 122, 72)]
    if numbers := [Fact(*it) for it in known if it[1].strip()]:
        y = page.put_facts(y + 1, numbers, 9, 6.5, bold=True)
    return y + 0.1


def _count_pictures(pictures: Sequence[Picture]) -> str:
    pictures = [picture for picture in pictures if not picture.removed]
    fields = sum(picture.is_field for picture in pictures)
    if 0 < fields < len(pictures):
        return f"{len(pictures)} ({fields} field{'s' * (fields != 1)})"
    return f"{len(pictures)} {'field' if fields else 'of one cell'}{'s' * (fields > 1)}" if pictures else "none"


def _draw_notices(page: ReportPage, snapshot: Snapshot, y: float) -> float:
    total, waiting = snapshot.differential.total, snapshot.differential.waiting
    notices = []
    if not snapshot.differential.enough:
        cells = "No cells were" if total == 0 else f"Only {total} cell{' was' if total == 1 else 's were'}"
        notices.append(
            f"{cells} counted: a differential needs {ENOUGH_COUNTED} at least, and the limits below are wide."
        )
    if waiting:
        cells = "1 cell waits for review and is" if waiting == 1 else f"{waiting} cells wait for review and are"
        notices.append(f"{cells} not counted yet. {WORST_CASE}")
    if not snapshot.reviewers and snapshot.cells:
        notices.append("No person has reviewed these cells yet: all classes are the model's.")
    for notice in notices:
        lines = page.wrap(notice, RIGHT - LEFT - 3, 7.5)
        y = page.room(y, 3.4 + LINE * len(lines))
        end = page.put_lines(LEFT + 3, y + 3.4, notice, RIGHT - LEFT - 3, 7.5) - LINE + 1.2
        page.box(LEFT, y, 1.1, end - y, CAUTION)
        y = end + 1
    return y + 1.5


def _draw_table(page: ReportPage, snapshot: Snapshot, y: float) -> float:
    differential = snapshot.differential
    absolute = differential.leucocyte_count is not None
    heads = [
        (LEFT, "L", "Class"),
        (50, "R", "Count"),
        (61, "R", "%"),
        (82, "R", "95 % limits"),
        (sum(CHART) / 2, "C", "% with limits, range in grey"),
        (142, "R", "Range, %"),
        (146, "L", "Flag"),
        (RIGHT, "R", "10⁹/l (limits)" if absolute else ""),
    ]
    for x, align, text in heads:
        page.put(x, y + 3, text, 6.5, align=align, ink=FAINT)
    y += 4.8
    page.rule(y, ink=INK, width=0.25)
    for share, leucocyte in zip(differential.shares, LEUCOCYTES, strict=False):  # own types come after them
        _draw_share(page, share, leucocyte.colour, y)
        y += ROW
        page.rule(y)
    for tick in CHART_TICKS:
        page.put(_chart_x(tick), y + 2.8, str(tick), 5.5, align="C", ink=FAINT)
    page.put(LEFT, y + 4.2, "All counted", 8, bold=True)
    page.put(50, y + 4.2, str(differential.total), 8, align="R", bold=True)
    if absolute:
        page.put(RIGHT, y + 4.2, _count_text(differential), 8, align="R", bold=True)
    y += 8.6
    notes = (
        "Limits: exact binomial (Clopper-Pearson), of counting alone. "
        "Flags without “possibly” hold for the whole of the limits. The axis is a square root.",
        f"Reference ranges: {differential.ranges_source}.",
    )
    for note in notes:
        y = page.put_lines(LEFT, y, note, RIGHT - LEFT, 6.2, ink=FAINT, leading=3.1)
    return y + 2.6


def _count_text(differential: Differential) -> str:
    """The total count that absolute counts are of: as it was given, or corrected."""
    corrected = differential.corrected_count
    return f"{differential.leucocyte_count:g}" if corrected is None else f"{corrected:.2f}"


def _draw_share(page: ReportPage, share: Share, colour: str, y: float) -> None:
    middle = y + ROW / 2
    base = middle + 1.05
    limits = None if share.percent is None else share.limits
    page.dot(LEFT + 1.2, middle, 1.2, colour)
    page.put(LEFT + 4, base, share.label.capitalize(), 8.5, bold=True)
    page.put(50, base, str(share.count), 8.5, align="R")
    page.put(61, base, format_figure(share.percent, ".1f"), 8.5, align="R", bold=True)
    page.put(82, base, format_interval(limits, ".1f", between=" – "), 7.5, align="R")
    assert share.reference is not None  # the five have one
    low, high = map(_chart_x, share.reference)
    page.box(low, y + 1.6, high - low, ROW - 3.2, BAND)
    page.rule(middle, *CHART, width=0.15)
    if share.percent is not None:
        left, right = map(_chart_x, share.limits)
        page.rule(middle, left, right, ink=colour, width=0.6)
        page.dot(_chart_x(share.percent), middle, 1.15, colour)
    page.put(142, base, format_interval(share.reference, "g", between=" – "), 7.5, align="R")
    word, _, reason = FLAG_TEXTS[share.flag].partition(": ")
    page.put(146, middle - 0.1 if reason else base, word, 8, bold=True, ink=CAUTION if reason else ALERT)
    page.put(146, middle + 2.7, reason, 5.8, ink=FAINT)
    if share.absolute is not None:
        limits_text = format_interval(share.absolute.limits, ".2f", between=" – ")
        page.put(RIGHT, middle - 0.1, f"{share.absolute.value:.2f}", 8, align="R", bold=True)
        page.put(RIGHT, middle + 2.7, limits_text, 6, align="R", ink=FAINT)


def _chart_x(percent: float) -> float:
    """Position on the axis: a square root, since on a linear axis 1 % of basophils would not be visible."""
    return CHART[0] + (CHART[1] - CHART[0]) * (percent / 100) ** 0.5


def _draw_cells(page: ReportPage, snapshot: Snapshot, y: float) -> float:
    page.put(LEFT, y + 2.6, "Counted cells", 9, bold=True)
    legend = "✓ accepted by a person    ≠ corrected by a person; both are shown first"
    page.put(RIGHT, y + 2.6, legend, 6.2, align="R", ink=FAINT)
    y += 4.6
    counted = snapshot.cells_in(CellState.COUNTED)
    strip = min(STRIP, (STRIPS_END - y) / len(LEUCOCYTES))
    for leucocyte in LEUCOCYTES:
        cells = [cell for cell in counted if cell.label == leucocyte.name]
        cells.sort(key=lambda cell: (not cell.corrected, cell.review is None, cell.number))
        _draw_strip(page, leucocyte, cells, y, strip - BELOW_CELL)
        y += strip
    return y + 1


def _draw_strip(page: ReportPage, leucocyte: Leucocyte, cells: Sequence[Cell], y: float, side: float) -> None:
    middle = y + 0.6 + side / 2
    page.box(LEFT, y + 0.6, 1.1, side, leucocyte.colour)
    page.put(LEFT + 3, middle - 0.4, leucocyte.name.capitalize(), 8, bold=True)
    shown = cells[:SHOWN]
    page.put(LEFT + 3, middle + 3.2, f"{len(shown)} of {len(cells)}" if cells else "none", 7, ink=FAINT)
    for index, cell in enumerate(shown):
        x = STRIP_LEFT + index * PITCH
        page.image(io.BytesIO(cell.image), x, y + 0.6, side, side, keep_aspect_ratio=True)
        mark = "" if cell.review is None else " ≠" if cell.corrected else " ✓"
        reviewed = cell.review is not None
        ink = INK if reviewed else FAINT
        page.put(x + side / 2, y + side + 3, f"{cell.number}{mark}", 5.6, align="C", bold=reviewed, ink=ink)


def _review_paragraphs(page: ReportPage, snapshot: Snapshot) -> list[tuple[str, str]]:
    """What is not counted, who reviewed how many cells, and what they corrected, with a title each."""
    not_counted = [
        f"{count} {words}" for state, words in _NOT_COUNTED.items() if (count := len(snapshot.cells_in(state)))
    ]
    names = {name: reviewer_text(name) for name in snapshot.reviewers}
    corrected: dict[tuple[str, str], list[str]] = {}
    for cell in snapshot.reviewed:
        if cell.corrected:
            corrected.setdefault((correction_text(cell), cell.reviewer), []).append(str(cell.number))
    several = len({reviewer for _, reviewer in corrected}) > 1
    corrections = [
        f"no. {', '.join(numbers)} {change}" + (f" ({names[reviewer]})" if several else "")
        for (change, reviewer), numbers in corrected.items()
    ]
    reviewed = [_reviewed(snapshot, reviewer, name) for reviewer, name in names.items()]
    paragraphs = [("Not counted", not_counted), ("Reviewed", reviewed), ("Corrected", corrections)]
    return [(title, "; ".join(items) or "no cells") for title, items in paragraphs]


def _height_of_review(page: ReportPage, paragraphs: Sequence[tuple[str, str]]) -> float:
    return 2 + sum(0.8 + LINE * len(page.wrap(text, RIGHT - STRIP_LEFT, 7)) for _, text in paragraphs)


def _draw_review(page: ReportPage, paragraphs: Sequence[tuple[str, str]], y: float) -> None:
    y = page.room(y, 4.2)
    page.rule(y)
    y += 4.2
    for title, text in paragraphs:
        y = page.next_line(y)
        page.put(LEFT, y, title, 7, bold=True)
        y = page.put_lines(STRIP_LEFT, y, text, RIGHT - STRIP_LEFT, flows=True) + 0.8


def _reviewed(snapshot: Snapshot, reviewer: str, name: str) -> str:
    cells = [cell for cell in snapshot.reviewed if cell.reviewer == reviewer]
    corrected = sum(cell.corrected for cell in cells)
    return f"{len(cells)} cell{'s' * (len(cells) != 1)} by {name}, {corrected or 'none'} corrected"


def _draw_foot(page: ReportPage, snapshot: Snapshot) -> float:
    """Draw the model and where to sign, upwards from the end of the page, and return where it begins."""
    model, signature = snapshot.model, snapshot.about.signature
    for left, right, text in ((LEFT, 76, "Date"), (84, 140, "Name"), (148, RIGHT, "Signature")):
        page.rule(279.5, left, right, ink=INK)
        page.put(left, 282.4, text, 6.2, ink=FAINT)
    top = 271.0
    if signature is not None:
        page.put(LEFT, 278.2, time_text(signature.time), 6.5)
        page.put(148, 278.2, "signed on the page", 8, ink=FAINT)
        if page.fits(signature.name, 56, 8):
            page.put(84, 278.2, signature.name, 8)
        else:
            page.put(84, 278.2, "see above", 8, ink=FAINT)
            lines = page.wrap(f"Signed by {signature.name}", RIGHT - LEFT, 8)
            if LINE * len(lines) > HEIGHT / 3:
                room = RIGHT - LEFT - 16
                name = page.shorten(page.wrap(signature.name, room, 8), room, 8, _IN_THE_HISTORY)
                lines = [f"Signed by {name}"]
            top -= LINE * len(lines)
            for index, line in enumerate(lines):
                page.put(LEFT, top + 2.6 + LINE * index, line, 8)
    facts = [
        Fact("Model", model.name, LEFT, 46),
        Fact("Version", model.version, 66, 26),
        Fact("Trained on", model.trained_on or "not said", 95, 66),
        Fact("Software", model.software, 164, 30),
    ]
    if _height_of_facts(page, facts, 7.5) > HEIGHT / 3:
        facts = [_shorten_fact(page, fact, 7.5) for fact in facts]
    top -= _height_of_facts(page, facts, 7.5)
    page.put_facts(top, facts, 7.5, 6.2, bold=False)
    page.rule(top - 3.8)
    return top - 3.8


def _shorten_fact(page: ReportPage, fact: Fact, size: float) -> Fact:
    lines = page.wrap(fact.text, RIGHT - LEFT, size)
    if len(lines) > 1:
        page.shortened.append((fact.title, fact.text))
    return fact._replace(text=page.shorten(lines, RIGHT - LEFT, size, _IN_THE_HISTORY))


def _height_of_facts(page: ReportPage, facts: Sequence[Fact], size: float) -> float:
    """How far `put_facts` moves on."""
    gap, leading = 0.52 * size + 0.4, 0.47 * size
    lines = [len(page.wrap(it.text, RIGHT - LEFT, size)) for it in facts if not page.fits(it.text, it.width, size)]
    beside = len(lines) < len(facts)
    return sum(gap + leading * count + 1.6 for count in lines) + beside * (gap + leading)
