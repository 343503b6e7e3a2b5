"""The first page of a report, A4, to read and to sign. All lengths are in millimetres, sizes of text in points."""

import io
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import matplotlib
import uharfbuzz  # noqa: F401  for fpdf, which tells too late where it is missing
from fpdf import FPDF
from fpdf.enums import WrapMode
from fpdf.fonts import TTFFont

from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.labels import LEUCOCYTES, Leucocyte
from wbc_hf.reports.texts import FLAG_TEXTS, RESEARCH_USE, WORST_CASE, correction_text, reviewer_text, time_text
from wbc_hf.smear import ENOUGH_COUNTED, Cell, CellState, Picture, Share, Snapshot

# matplotlib's font: it has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters.
_LACKING = "□"
_LACKING_NOTE = (
    f"{_LACKING} stands for a letter that this page's font lacks, such as a Chinese one. CSV, JSON and FHIR hold the "
    "whole name."
)
_LEFT_TO_RIGHT = "\u200e"  # a letter without width, which keeps the figure after a Hebrew name out of that name
# Of the format characters, which nobody sees, these join letters, as Persian and others need it.
_KEPT = {"\u200c", "\u200d", _LEFT_TO_RIGHT}
_FONTS = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}

WIDTH, MARGIN = 210.0, 16.0
LEFT, RIGHT = MARGIN, WIDTH - MARGIN
INK, FAINT, HAIRLINE, BAND = "#1f2328", "#6b7280", "#d5d8dd", "#e4e7eb"
CAUTION, ALERT = "#b45309", "#b91c1c"

CHART = (85.0, 125.0)  # ends of the axis in each row
CHART_TICKS = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # percent
ROW = 9.2  # height of a row of the table
STRIP = 17.0  # height of a row of cells
STRIP_LEFT = 44.0
CELL = 11.6  # side of a cell
SHOWN = 12  # cells of a class
PITCH = (RIGHT - STRIP_LEFT - CELL) / (SHOWN - 1)  # from one cell to the next
PIXELS_PER_POINT = 3  # of a cell, 216 to the inch
LINE = 3.6
REVIEWER_LINES, CORRECTION_LINES = 2, 6
NAME_WIDTH = 50.0  # of a reviewer, at most

_NOT_COUNTED = {
    CellState.WAITING: "waiting for review",
    CellState.REJECTED: "rejected by a person",
    CellState.CUT: "cut off by the border",
    CellState.DUPLICATE: "seen in another picture",
    CellState.REMOVED: "removed with their picture",
}


def draw_report(snapshot: Snapshot, draw_more: Callable[["ReportPage", Snapshot], None]) -> bytes:
    """Draw the report, see `wbc_hf.reports.to_pdf`.

    Args:
        snapshot: The specimen.
        draw_more: Draws the pages after the first.
    """
    page = ReportPage(snapshot)
    y = _draw_head(page, snapshot)
    y = _draw_notices(page, snapshot, y)
    y = _draw_table(page, snapshot, y)
    y = _draw_cells(page, snapshot, y)
    _draw_review(page, snapshot, y)
    _draw_foot(page, snapshot)
    draw_more(page, snapshot)
    return bytes(page.output())


class ReportPage(FPDF):
    """An A4 page with the few shapes that the report needs."""

    def __init__(self, snapshot: Snapshot):
        super().__init__()
        self.lacks_letters = False
        self.set_title(f"Leucocyte differential {_visible(snapshot.specimen)}".strip())
        self.set_subject(RESEARCH_USE)
        self.set_creator(snapshot.model.software)
        self.set_creation_date(snapshot.time)
        self.set_auto_page_break(False)
        self.c_margin = 0
        self.oversized_images, self.oversized_images_ratio = "DOWNSCALE", PIXELS_PER_POINT
        for style, file in _FONTS.items():
            self.add_font("DejaVu", style, Path(matplotlib.get_data_path(), "fonts", "ttf", file))
        self.add_page()

    def put(
        self, x: float, y: float, text: str, size: float = 8, *, align: str = "L", bold: bool = False, ink: str = INK
    ) -> None:
        """Write a line of text with its baseline at `y`, and its left end, centre or right end at `x`."""
        self._style(size, bold, ink)
        width, text = {"L": WIDTH, "C": 2 * x, "R": x}[align], self._printable(text)
        self.set_xy(x if align == "L" else 0, y - 0.3 * self.font_size)
        self._shape(text)
        self.cell(width, 0, text, align=align)

    def put_items(self, x: float, y: float, items: Sequence[str], lines: int, size: float = 7) -> float:
        """Write items on so many lines at most, the last of which says how many are left out; return the new `y`."""
        self._style(size)
        items, width = [self._printable(item) for item in items], RIGHT - x
        kept = len(items)
        self._shape(*items)
        if len(self._wrap(_joined(items, kept), width)) > lines:
            kept = bisect_right(range(1, kept), lines, key=lambda n: len(self._wrap(_joined(items, n), width)))
        self.set_xy(x, y)
        self.multi_cell(width, LINE, _joined(items, kept), align="L")
        return self.get_y()

    def shorten(self, text: str, width: float, size: float, *, bold: bool = False) -> str:
        """Replace the middle of a text that is wider than `width` by an ellipsis."""
        self._style(size, bold)
        text = self._printable(" ".join(text.split()))
        self._shape(text)
        if self.get_string_width(text) <= width:
            return text
        room = (width - self.get_string_width("…")) / 2
        start, end = (self._wrap(half, room, WrapMode.CHAR)[0] for half in (text, text[::-1]))
        return f"{start}…{end[::-1]}"

    def rule(
        self, y: float, left: float = LEFT, right: float = RIGHT, ink: str = HAIRLINE, width: float = 0.2
    ) -> None:
        self.set_draw_color(ink)
        self.set_line_width(width)
        self.line(left, y, right, y)

    def box(self, x: float, y: float, width: float, height: float, ink: str) -> None:
        self.set_fill_color(ink)
        self.rect(x, y, width, height, style="F")

    def dot(self, x: float, y: float, radius: float, ink: str) -> None:
        self.set_fill_color(ink)
        self.circle(x, y, radius, style="F")

    def frame(self, x: float, y: float, width: float, height: float, ink: str) -> None:
        self.set_draw_color(ink)
        self.set_line_width(0.2)
        self.rect(x, y, width, height)

    def ring(self, x: float, y: float, radius: float, ink: str) -> None:
        self.set_draw_color(ink)
        self.set_line_width(0.35)
        self.circle(x, y, radius)

    def _style(self, size: float, bold: bool = False, ink: str = INK) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(ink)

    def _printable(self, text: str) -> str:
        known, text = cast(TTFFont, self.current_font).cmap, _visible(text)
        self.lacks_letters |= any(ord(letter) not in known for letter in text)
        return "".join(letter if ord(letter) in known else _LACKING for letter in text)

    def _shape(self, *texts: str) -> None:
        """Write what follows from right to left and joined where its letters ask for it."""
        self.set_text_shaping(any(map(_runs_left, texts)))

    def _wrap(self, text: str, width: float, mode: WrapMode = WrapMode.WORD) -> list[str]:
        return cast(list[str], self.multi_cell(width, text=text, wrapmode=mode, dry_run=True, output="LINES"))


def _visible(text: str) -> str:
    """Accents on their letters; no format characters, which turn the text around them; controls as spaces."""
    kinds = {letter: unicodedata.category(letter) for letter in set(text)}
    text = "".join(" " if kinds[it] == "Cc" else it for it in text if kinds[it] != "Cf" or it in _KEPT)
    return unicodedata.normalize("NFC", text)


def _runs_left(text: str) -> bool:
    """Whether letters of a text are written from right to left."""
    return any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)


def _joined(items: Sequence[str], kept: int) -> str:
    rest = len(items) - kept
    return "; ".join(items[:kept]) + (f"; … and {rest} more" if rest else "")


def _draw_head(page: ReportPage, snapshot: Snapshot) -> float:
    page.put(LEFT, 21, "Leucocyte differential", 17, bold=True)
    page.put(RIGHT, 20.6, RESEARCH_USE, 8.5, align="R", bold=True, ink=CAUTION)
    page.rule(25, ink=INK, width=0.35)
    differential = snapshot.differential
    facts = [
        (LEFT, 56, "Specimen", snapshot.specimen or "not named"),
        (76, 43, "Recorded (UTC)", f"{snapshot.time:%d %b %Y, %H:%M}"),
        (122, 26, "Pictures", _count_pictures(snapshot.pictures)),
        (150, 17, "Cells counted", str(differential.total)),
    ]
    if differential.leucocyte_count is not None:
        facts.append((170, 24, "Leucocytes, 10⁹/l", f"{differential.leucocyte_count:g}"))
    for x, width, name, value in facts:
        page.put(x, 30.5, name, 6.5, ink=FAINT)
        page.put(x, 35.6, page.shorten(value, width, 9, bold=True), 9, bold=True)
    return 39.5


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
        page.box(LEFT, y, 1.1, 4.6, CAUTION)
        page.put(LEFT + 3, y + 3.4, notice, 7.5)
        y += 5.6
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
    for share, leucocyte in zip(differential.shares, LEUCOCYTES, strict=True):
        _draw_share(page, share, leucocyte.colour, y)
        y += ROW
        page.rule(y)
    for tick in CHART_TICKS:
        page.put(_chart_x(tick), y + 2.8, str(tick), 5.5, align="C", ink=FAINT)
    page.put(LEFT, y + 4.2, "All counted", 8, bold=True)
    page.put(50, y + 4.2, str(differential.total), 8, align="R", bold=True)
    if absolute:
        page.put(RIGHT, y + 4.2, f"{differential.leucocyte_count:g}", 8, align="R", bold=True)
    y += 8.6
    notes = (
        "Limits: exact binomial (Clopper-Pearson), of counting alone. "
        "Flags without “possibly” hold for the whole of the limits. The axis is a square root.",
        f"Reference ranges: {differential.ranges_source}.",
    )
    for note in notes:
        page.put(LEFT, y, page.shorten(note, RIGHT - LEFT, 6.2), 6.2, ink=FAINT)
        y += 3.1
    return y + 2.6


def _draw_share(page: ReportPage, share: Share, colour: str, y: float) -> None:
    middle = y + ROW / 2
    base = middle + 1.05
    limits = None if share.percent is None else share.limits
    page.dot(LEFT + 1.2, middle, 1.2, colour)
    page.put(LEFT + 4, base, share.label.capitalize(), 8.5, bold=True)
    page.put(50, base, str(share.count), 8.5, align="R")
    page.put(61, base, format_figure(share.percent, ".1f"), 8.5, align="R", bold=True)
    page.put(82, base, format_interval(limits, ".1f", between=" – "), 7.5, align="R")
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
    for leucocyte in LEUCOCYTES:
        cells = [cell for cell in counted if cell.label == leucocyte.name]
        cells.sort(key=lambda cell: (not cell.corrected, cell.review is None, cell.number))
        _draw_strip(page, leucocyte, cells, y)
        y += STRIP
    return y + 1


def _draw_strip(page: ReportPage, leucocyte: Leucocyte, cells: Sequence[Cell], y: float) -> None:
    page.box(LEFT, y + 0.6, 1.1, CELL, leucocyte.colour)
    page.put(LEFT + 3, y + 6, leucocyte.name.capitalize(), 8, bold=True)
    shown = cells[:SHOWN]
    page.put(LEFT + 3, y + 9.6, f"{len(shown)} of {len(cells)}" if cells else "none", 7, ink=FAINT)
    for index, cell in enumerate(shown):
        x = STRIP_LEFT + index * PITCH
        page.image(io.BytesIO(cell.image), x, y + 0.6, CELL, CELL, keep_aspect_ratio=True)
        mark = "" if cell.review is None else " ≠" if cell.corrected else " ✓"
        reviewed = cell.review is not None
        ink = INK if reviewed else FAINT
        page.put(x + CELL / 2, y + CELL + 3, f"{cell.number}{mark}", 5.6, align="C", bold=reviewed, ink=ink)


def _draw_review(page: ReportPage, snapshot: Snapshot, y: float) -> None:
    not_counted = [
        f"{count} {words}" for state, words in _NOT_COUNTED.items() if (count := len(snapshot.cells_in(state)))
    ]
    names = {name: page.shorten(reviewer_text(name), NAME_WIDTH, 7) for name in snapshot.reviewers}
    names |= {name: f"{shown}{_LEFT_TO_RIGHT}" for name, shown in names.items() if _runs_left(shown)}
    corrected = [cell for cell in snapshot.reviewed if cell.corrected]
    several = len({cell.reviewer for cell in corrected}) > 1
    corrections = [
        f"no. {cell.number} {correction_text(cell)}" + (f" ({names[cell.reviewer]})" if several else "")
        for cell in corrected
    ]
    paragraphs = [
        ("Not counted", not_counted, 2),
        ("Reviewed", [_reviewed(snapshot, reviewer, name) for reviewer, name in names.items()], REVIEWER_LINES),
        ("Corrected", corrections, CORRECTION_LINES),
    ]
    page.rule(y)
    y += 1.6
    for title, items, lines in paragraphs:
        page.put(LEFT, y + 2.6, title, 7, bold=True)
        y = page.put_items(STRIP_LEFT, y, items or ["no cells"], lines) + 0.8


def _reviewed(snapshot: Snapshot, reviewer: str, name: str) -> str:
    cells = [cell for cell in snapshot.reviewed if cell.reviewer == reviewer]
    corrected = sum(cell.corrected for cell in cells)
    return f"{len(cells)} cell{'s' * (len(cells) != 1)} by {name}, {corrected or 'none'} corrected"


def _draw_foot(page: ReportPage, snapshot: Snapshot) -> None:
    model = snapshot.model
    page.rule(257)
    facts = [
        (LEFT, 46, "Model", model.name),
        (66, 26, "Version", model.version),
        (95, 66, "Trained on", model.trained_on or "not said"),
        (164, 30, "Software", model.software),
    ]
    for x, width, name, value in facts:
        page.put(x, 260.8, name, 6.2, ink=FAINT)
        page.put(x, 264.6, page.shorten(value, width, 7.5), 7.5)
    if (signature := snapshot.about.signature) is not None:
        page.put(LEFT, 278.6, time_text(signature.time), 6.5)
        page.put(84, 278.6, page.shorten(signature.name, 56, 8), 8)
        page.put(148, 278.6, "signed on the page", 8, ink=FAINT)
    for left, right, text in ((LEFT, 76, "Date"), (84, 140, "Name"), (148, RIGHT, "Signature")):
        page.rule(280, left, right, ink=INK)
        page.put(left, 283.2, text, 6.2, ink=FAINT)
    page.put(WIDTH / 2, 289.5, RESEARCH_USE, 6.5, align="C", ink=FAINT)
    if page.lacks_letters:
        page.put(WIDTH / 2, 292.5, _LACKING_NOTE, 5.8, align="C", ink=FAINT)
