"""A record on one A4 page, for a person to read and to sign.

The page is drawn through matplotlib's object API on one set of axes, in millimetres from the upper left corner. Text
stays text (TrueType), so that a PDF reader finds and copies it.
"""

import io
import threading
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import PIL.Image
import PIL.ImageOps
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Circle, Rectangle

from wbc_hf.evaluation import format_interval
from wbc_hf.labels import LEUCOCYTES
from wbc_hf.reports.texts import FLAG_TEXTS, RESEARCH_USE, correction_text, reviewer_text
from wbc_hf.smear import ENOUGH_COUNTED, Cell, CellState, Picture, Share, Snapshot

PAGE = (210.0, 297.0)  # width and height, mm
MARGIN = 16.0
LEFT, RIGHT = MARGIN, PAGE[0] - MARGIN
MM_PER_INCH, POINTS_PER_INCH = 25.4, 72
MEASURED_POINTS = 200

INK, FAINT, HAIRLINE, BAND = "#1f2328", "#6b7280", "#d5d8dd", "#e4e7eb"
CAUTION, ALERT = "#b45309", "#b91c1c"

CHART = (85.0, 125.0)  # left and right end of the little axis in each row, mm
CHART_TICKS = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # percent
ROW = 9.2  # height of a row of the table, mm
STRIP = 17.0  # of a row of cells
STRIP_LEFT = 44.0
CELL = 11.6  # side of a cell, mm
SHOWN = 12  # cells of a class
PITCH = (RIGHT - STRIP_LEFT - CELL) / (SHOWN - 1)  # from one cell to the next, mm
CELL_PIXELS = 90  # about 190 to the inch
REVIEWER_LINES, CORRECTION_LINES = 2, 6
NAME_WIDTH = 50.0  # of a reviewer, mm at most

# Fonts and their caches are shared by all figures, and are not safe in several threads.
_DRAWING = threading.Lock()


def to_pdf(record: Snapshot) -> bytes:
    """One A4 page: the differential with limits and ranges, the cells, what was corrected, and where to sign."""
    content = io.BytesIO()
    about = {
        "Title": f"Leucocyte differential {record.specimen}".strip(),
        "Subject": RESEARCH_USE,
        "Creator": record.model.software,
        "CreationDate": record.time,
    }
    with _DRAWING, rc_context({"pdf.fonttype": 42, "font.family": "DejaVu Sans"}):
        page = Figure(figsize=(PAGE[0] / MM_PER_INCH, PAGE[1] / MM_PER_INCH))
        axes = page.add_axes((0, 0, 1, 1), xlim=(0, PAGE[0]), ylim=(PAGE[1], 0))
        axes.set_axis_off()
        axes.autoscale(False)
        _draw(_Pen(axes), record)
        page.savefig(content, format="pdf", metadata=about)
    return content.getvalue()


def _draw(pen: "_Pen", record: Snapshot) -> None:
    y = _draw_head(pen, record)
    y = _draw_notices(pen, record, y)
    y = _draw_table(pen, record, y)
    y = _draw_cells(pen, record, y)
    _draw_review(pen, record, y)
    _draw_foot(pen, record)


class _Pen:
    """Writes and draws on the page: millimetres from the upper left corner, sizes of text in points."""

    def __init__(self, axes: Axes):
        self.axes = axes

    def write(self, x: float, y: float, text: str, size: float = 8, **look: object) -> None:
        """Text with its base line at y. Dollar signs in names are no formula."""
        self.axes.text(
            x, y, _printable(text), fontsize=size, parse_math=False, va="baseline", **({"color": INK} | look)
        )

    def rule(self, y: float, left: float = LEFT, right: float = RIGHT, colour: str = HAIRLINE, width: float = 0.6):
        self.axes.plot((left, right), (y, y), color=colour, linewidth=width, solid_capstyle="butt")

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="none"))

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self.axes.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor="none"))

    def picture(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> None:
        self.axes.imshow(
            pixels, extent=(x, x + width, y + height, y), aspect="auto", interpolation="none", origin="upper"
        )


def _draw_head(pen: _Pen, record: Snapshot) -> float:
    pen.write(LEFT, 21, "Leucocyte differential", 17, weight="bold")
    pen.write(RIGHT, 20.6, RESEARCH_USE, 8.5, ha="right", weight="bold", color=CAUTION)
    pen.rule(25, colour=INK, width=1.0)
    differential = record.differential
    facts = [
        (LEFT, 56, "Specimen", record.specimen or "not named"),
        (76, 43, "Recorded (UTC)", f"{record.time:%d %b %Y, %H:%M}"),
        (122, 24, "Pictures", _count_pictures(record.pictures)),
        (150, 17, "Cells counted", str(differential.total)),
    ]
    if differential.leucocyte_count is not None:
        facts.append((170, 24, "Leucocytes, 10⁹/l", f"{differential.leucocyte_count:g}"))
    for x, width, name, value in facts:
        pen.write(x, 30.5, name, 6.5, color=FAINT)
        pen.write(x, 35.6, _fitted(value, width, 9, bold=True), 9, weight="bold")
    return 39.5


def _count_pictures(pictures: Sequence[Picture]) -> str:
    pictures = [picture for picture in pictures if not picture.removed]
    fields = sum(picture.is_field for picture in pictures)
    if 0 < fields < len(pictures):
        return f"{len(pictures)} ({fields} field{'s' * (fields != 1)})"
    return f"{len(pictures)} {'field' if fields else 'of one cell'}{'s' * (fields > 1)}" if pictures else "none"


def _draw_notices(pen: _Pen, record: Snapshot, y: float) -> float:
    total, waiting = record.differential.total, len(record.cells_in(CellState.WAITING))
    notices = []
    if not record.differential.enough:
        cells = "No cells were" if total == 0 else f"Only {total} cell{' was' if total == 1 else 's were'}"
        notices.append(
            f"{cells} counted: a differential needs {ENOUGH_COUNTED} at least, and the limits below are wide."
        )
    if waiting:
        notices.append(
            "1 cell waits for review and is not counted yet."
            if waiting == 1
            else f"{waiting} cells wait for review and are not counted yet."
        )
    if not record.reviewers and record.cells:
        notices.append("No person has looked at these cells yet: all classes are the model's.")
    for notice in notices:
        pen.box(LEFT, y, 1.1, 4.6, CAUTION)
        pen.write(LEFT + 3, y + 3.4, notice, 7.5)
        y += 5.6
    return y + 1.5


def _draw_table(pen: _Pen, record: Snapshot, y: float) -> float:
    differential = record.differential
    heads = [
        (LEFT, "left", "Class"),
        (50, "right", "Count"),
        (61, "right", "%"),
        (82, "right", "95 % limits"),
        (sum(CHART) / 2, "center", "% with limits, range in grey"),
        (142, "right", "Range, %"),
        (146, "left", "Flag"),
    ]
    if differential.leucocyte_count is not None:
        heads.append((RIGHT, "right", "10⁹/l (limits)"))
    for x, side, text in heads:
        pen.write(x, y + 3, text, 6.5, ha=side, color=FAINT)
    y += 4.8
    pen.rule(y, colour=INK, width=0.7)
    for share, leucocyte in zip(differential.shares, LEUCOCYTES, strict=True):
        _draw_share(pen, share, leucocyte.colour, y)
        y += ROW
        pen.rule(y)
    for tick in CHART_TICKS:
        pen.write(_chart_x(tick), y + 2.8, str(tick), 5.5, ha="center", color=FAINT)
    pen.write(LEFT, y + 4.2, "All counted", 8, weight="bold")
    pen.write(50, y + 4.2, str(differential.total), 8, ha="right", weight="bold")
    if differential.leucocyte_count is not None:
        pen.write(RIGHT, y + 4.2, f"{differential.leucocyte_count:g}", 8, ha="right", weight="bold")
    y += 8.6
    notes = (
        "Limits: exact binomial (Clopper-Pearson), of counting alone. "
        "Flags without “possibly” hold for the whole of the limits. The axis is a square root.",
        f"Reference ranges: {differential.ranges_source}.",
    )
    for note in notes:
        pen.write(LEFT, y, _fitted(note, RIGHT - LEFT, 6.2), 6.2, color=FAINT)
        y += 3.1
    return y + 2.6


def _draw_share(pen: _Pen, share: Share, colour: str, y: float) -> None:
    middle = y + ROW / 2
    base = middle + 1.05
    pen.dot(LEFT + 1.2, middle, 1.2, colour)
    pen.write(LEFT + 4, base, share.label.capitalize(), 8.5, weight="bold")
    pen.write(50, base, str(share.count), 8.5, ha="right")
    pen.write(61, base, "–" if share.percent is None else f"{share.percent:.1f}", 8.5, ha="right", weight="bold")
    limits = "–" if share.percent is None else format_interval(share.limits, ".1f", between=" – ")
    pen.write(82, base, limits, 7.5, ha="right")
    low, high = share.reference
    pen.box(_chart_x(low), y + 1.6, _chart_x(high) - _chart_x(low), ROW - 3.2, BAND)
    pen.rule(middle, *CHART, width=0.4)
    if share.percent is not None:
        pen.rule(middle, *map(_chart_x, share.limits), colour=colour, width=1.8)
        pen.dot(_chart_x(share.percent), middle, 1.15, colour)
    pen.write(142, base, format_interval(share.reference, "g", between=" – "), 7.5, ha="right")
    word, _, reason = FLAG_TEXTS[share.flag].partition(": ")
    tone = CAUTION if reason else ALERT
    pen.write(146, middle - 0.1 if reason else base, word, 8, weight="bold", color=tone)
    pen.write(146, middle + 2.7, reason, 5.8, color=FAINT)
    if share.absolute is not None:
        pen.write(RIGHT, middle - 0.1, f"{share.absolute.value:.2f}", 8, ha="right", weight="bold")
        pen.write(
            RIGHT,
            middle + 2.7,
            format_interval(share.absolute.limits, ".2f", between=" – "),
            6,
            ha="right",
            color=FAINT,
        )


def _chart_x(percent: float) -> float:
    """Place of a percentage on the little axis: its square root, so that 1 % of basophils can be seen beside 100."""
    return CHART[0] + (CHART[1] - CHART[0]) * (percent / 100) ** 0.5


def _draw_cells(pen: _Pen, record: Snapshot, y: float) -> float:
    pen.write(LEFT, y + 2.6, "Counted cells", 9, weight="bold")
    legend = "✓ accepted by a person    ≠ corrected by a person; both are shown first"
    pen.write(RIGHT, y + 2.6, legend, 6.2, ha="right", color=FAINT)
    y += 4.6
    counted = record.cells_in(CellState.COUNTED)
    for leucocyte in LEUCOCYTES:
        cells = sorted((cell for cell in counted if cell.label == leucocyte.name), key=_shown_first)
        _draw_strip(pen, leucocyte.name, leucocyte.colour, cells, y)
        y += STRIP
    return y + 1


def _shown_first(cell: Cell) -> tuple[bool, bool, int]:
    return not cell.corrected, cell.review is None, cell.number


def _draw_strip(pen: _Pen, name: str, colour: str, cells: Sequence[Cell], y: float) -> None:
    pen.box(LEFT, y + 0.6, 1.1, CELL, colour)
    pen.write(LEFT + 3, y + 6, name.capitalize(), 8, weight="bold")
    shown = cells[:SHOWN]
    amount = f"{len(shown)} of {len(cells)}" if cells else "none"
    pen.write(LEFT + 3, y + 9.6, amount, 7, color=FAINT)
    for index, cell in enumerate(shown):
        x = STRIP_LEFT + index * PITCH
        pen.picture(x, y + 0.6, CELL, CELL, _pixels(cell.image))
        mark = "" if cell.review is None else " ≠" if cell.corrected else " ✓"
        look = {"color": FAINT} if cell.review is None else {"color": INK, "weight": "bold"}
        pen.write(x + CELL / 2, y + CELL + 3.0, f"{cell.number}{mark}", 5.6, ha="center", **look)


def _pixels(image: bytes) -> np.ndarray:
    """uint8 (side, side, 3) of a PNG, with white beside what is not square."""
    with PIL.Image.open(io.BytesIO(image)) as cell:
        return np.asarray(PIL.ImageOps.pad(cell.convert("RGB"), (CELL_PIXELS, CELL_PIXELS), color="white"))


def _draw_review(pen: _Pen, record: Snapshot, y: float) -> None:
    states = {
        CellState.WAITING: "waiting for review",
        CellState.REJECTED: "rejected by a person",
        CellState.CUT: "cut off by the border",
        CellState.DUPLICATE: "seen in another picture",
        CellState.REMOVED: "taken out with their picture",
    }
    not_counted = [f"{count} {words}" for state, words in states.items() if (count := len(record.cells_in(state)))]
    paragraphs = [
        ("Not counted", not_counted or ["no cells"], 2),
        ("Reviewed", [_reviewed(record, reviewer) for reviewer in record.reviewers] or ["no cells"], REVIEWER_LINES),
        ("Corrected", _corrections(record) or ["no cells"], CORRECTION_LINES),
    ]
    pen.rule(y)
    y += 0.8
    for title, parts, lines in paragraphs:
        pen.write(LEFT, y + 3.6, title, 7, weight="bold")
        for line in _wrapped(parts, RIGHT - STRIP_LEFT, 7, lines):
            y += 3.6
            pen.write(STRIP_LEFT, y, line, 7)
        y += 0.8


def _reviewed(record: Snapshot, reviewer: str) -> str:
    cells = [cell for cell in record.reviewed if cell.review.reviewer == reviewer]
    corrected = sum(cell.corrected for cell in cells)
    name = _fitted(reviewer_text(reviewer), NAME_WIDTH, 7)
    return f"{len(cells)} cell{'s' * (len(cells) != 1)} by {name}, {corrected or 'none'} corrected"


def _corrections(record: Snapshot) -> list[str]:
    """One for each corrected cell; who said so stands in it where several people corrected."""
    cells = [cell for cell in record.reviewed if cell.corrected]
    alone = len({cell.review.reviewer for cell in cells}) == 1
    return [
        f"no. {cell.number} {correction_text(cell)}"
        + ("" if alone else f" ({_fitted(reviewer_text(cell.review.reviewer), NAME_WIDTH, 7)})")
        for cell in cells
    ]


def _draw_foot(pen: _Pen, record: Snapshot) -> None:
    model = record.model
    pen.rule(257)
    facts = [
        (LEFT, 46, "Model", model.name),
        (66, 26, "Version", model.version),
        (95, 66, "Trained on", model.trained_on or "not said"),
        (164, 30, "Software", model.software),
    ]
    for x, width, name, value in facts:
        pen.write(x, 260.8, name, 6.2, color=FAINT)
        pen.write(x, 264.6, _fitted(value, width, 7.5), 7.5)
    for left, right, text in ((LEFT, 76, "Date"), (84, 140, "Name"), (148, RIGHT, "Signature")):
        pen.rule(280, left, right, colour=INK, width=0.6)
        pen.write(left, 283.2, text, 6.2, color=FAINT)
    pen.write(PAGE[0] / 2, 289.5, RESEARCH_USE, 6.5, ha="center", color=FAINT)


def _wrapped(parts: Sequence[str], width: float, size: float, lines: int) -> list[str]:
    """Parts with semicolons between them, on so many lines at most; the last says how many there are more."""
    written = [parts[0]]
    for index, part in enumerate(parts[1:], 1):
        longer = f"{written[-1]}; {part}"
        # The last line keeps room for the end of the list.
        rest = f"; … and {len(parts) - index - 1} more" if len(written) == lines and index < len(parts) - 1 else ""
        if _width(longer + rest, size) <= width:
            written[-1] = longer
        elif len(written) < lines:
            written[-1] += ";"
            written.append(part)
        else:
            written[-1] += f"; … and {len(parts) - index} more"
            break
    return written


@lru_cache(1024)
def _fitted(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """A text, shortened in its middle to so many millimetres."""
    text = " ".join(text.split())
    if _width(text, size, bold=bold) <= width:
        return text
    too_long = bisect_left(range(len(text)), True, key=lambda n: _width(_shortened(text, n), size, bold=bold) > width)
    return _shortened(text, too_long - 1)


def _shortened(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def _width(text: str, size: float, *, bold: bool = False) -> float:
    """In millimetres at so many points."""
    font = _font("bold" if bold else "normal")
    font.set_text(_printable(text))
    return font.get_width_height()[0] / 64 * size / MEASURED_POINTS / POINTS_PER_INCH * MM_PER_INCH


def _printable(text: str) -> str:
    """A text with a box for each sign that the font lacks, as of Chinese."""
    known = _known_signs()
    return "".join(sign if ord(sign) in known else "□" for sign in text)


@lru_cache
def _known_signs() -> frozenset[int]:
    return frozenset(_font("normal").get_charmap())


@lru_cache
def _font(weight: str) -> FT2Font:
    """Of its own, since `font_manager.get_font` shares its fonts, and set large: small ones are rounded to pixels."""
    font = FT2Font(font_manager.findfont(f"DejaVu Sans:weight={weight}"))
    font.set_size(MEASURED_POINTS, POINTS_PER_INCH)
    return font
