"""The first page of a report, A4, to read and to sign. All lengths are in millimetres, sizes of text in points.

Names are never cut: what does not fit in its place gets lines of its own, and what does not fit on a page goes on the
next.
"""

import io
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

import matplotlib
import uharfbuzz  # noqa: F401  for fpdf, which tells too late where it is missing
from fpdf import FPDF
from fpdf.fonts import TTFFont

from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.labels import LEUCOCYTES, Leucocyte
from wbc_hf.reports.fonts import FOLDER, FontFile, find_fonts
from wbc_hf.reports.letters import (
    clusters,
    code_points,
    keep_figures_out,
    needs_shaping,
    pieces,
    visible,
    without_variants,
)
from wbc_hf.reports.pdf_types import draw_own_types
from wbc_hf.reports.texts import (
    FLAG_TEXTS,
    RESEARCH_USE,
    WORST_CASE,
    correction_text,
    local_text,
    reviewer_text,
    time_text,
    user_texts,
)
from wbc_hf.smear import ENOUGH_COUNTED, Cell, CellState, Differential, Picture, Share, Snapshot

logger = logging.getLogger(__name__)

# matplotlib's font: it has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters.
_FONTS = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
_NO_FONT = (
    "“[U+…]” holds the Unicode numbers of letters that no font of this computer has: install one that has them, such "
    f"as Noto, or name its folder in {FOLDER}. CSV, JSON and FHIR hold the whole text."
)
# In place of the number of pages, which is known in the end: no text has these, they would stand as numbers.
_PAGES = "\U0010fffc\U0010fffd"
_REST_OF_NAME = "…, in whole from page 1 on"
_IN_THE_HISTORY = "…, in whole in the history"

WIDTH, HEIGHT, MARGIN = 210.0, 297.0, 16.0
LEFT, RIGHT = MARGIN, WIDTH - MARGIN
BOTTOM, FOOT = 276.0, 289.5  # of what stands on a page, and its last line
INK, FAINT, HAIRLINE, BAND = "#1f2328", "#6b7280", "#d5d8dd", "#e4e7eb"
CAUTION, ALERT = "#b45309", "#b91c1c"

CHART = (85.0, 125.0)  # ends of the axis in each row
CHART_TICKS = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # percent
ROW = 9.2  # height of a row of the table
STRIP = 17.0  # height of a row of cells, where there is room for it
STRIPS_END = 215.6  # of all five, so that the review has room below them
STRIP_LEFT = 44.0
CELL = 11.6  # side of a cell
BELOW_CELL = STRIP - CELL
SHOWN = 12  # cells of a class
PITCH = (RIGHT - STRIP_LEFT - CELL) / (SHOWN - 1)  # from one cell to the next
PIXELS_PER_POINT = 3  # of a cell, 216 to the inch
LINE = 3.6
_ROUNDING = 0.01  # of widths that are added
_HEAD_OF_TABLE, _FOOT_OF_TABLE = 4.8, 17.5
_HEAD_OF_CELLS = 4.6

_NOT_COUNTED = {
    CellState.WAITING: "waiting for review",
    CellState.REJECTED: "rejected by a person",
    CellState.CUT: "cut off by the border",
    CellState.DUPLICATE: "seen in another picture",
    CellState.REMOVED: "removed with their picture",
}


class Fact(NamedTuple):
    """A title and what it says, in a place of that width; in lines of its own where it is wider."""

    title: str
    text: str
    x: float
    width: float
    below: str = ""  # in small letters


def draw_report(snapshot: Snapshot, draw_more: Callable[["ReportPage", Snapshot, bool], None]) -> bytes:
    """Draw the report, see `wbc_hf.reports.to_pdf`.

    `draw_more` draws the pages after the first, and is given whether that shows cells.
    """
    page = ReportPage(snapshot)
    try:
        return _draw(page, snapshot, draw_more)
    except Exception:
        if not page.asked_fonts:
            raise
        # Whatever is wrong with a font of this computer, there is a report.
        logger.warning("A font of this computer cannot be used: the report says which letters lack.", exc_info=True)
        return _draw(ReportPage(snapshot, more_fonts=False), snapshot, draw_more)


def _draw(page: "ReportPage", snapshot: Snapshot, draw_more: Callable[["ReportPage", Snapshot, bool], None]) -> bytes:
    page.add_page()
    page.bottom = _draw_foot(page, snapshot) - 1.5
    y = _draw_head(page, snapshot)
    y = _draw_notices(page, snapshot, y)
    y = page.room(y, _HEAD_OF_TABLE + len(LEUCOCYTES) * ROW + _FOOT_OF_TABLE)
    y = _draw_table(page, snapshot, y)
    y = draw_own_types(page, snapshot.differential, LEFT, y)
    page.heading = "Review"
    paragraphs = _review_paragraphs(page, snapshot)
    cells_height = _HEAD_OF_CELLS + len(LEUCOCYTES) * STRIP + 1
    # Where long names take its room, they are on the pages that follow.
    fits = y + cells_height + _height_of_review(page, paragraphs) <= page.bottom
    if fits or y + cells_height + 12 <= page.bottom:
        y = _draw_cells(page, snapshot, y)
        _draw_review(page, paragraphs, y)
        draw_more(page, snapshot, True)
    else:
        _draw_review(page, paragraphs, y)
        draw_more(page, snapshot, not snapshot.cells_in(CellState.COUNTED))
    return page.finish()


class ReportPage(FPDF):
    """A4 pages with the few shapes that the report needs.

    Attributes:
        bottom: Where what stands on the current page ends.
        heading: Of the pages that are begun where something does not fit.
        asked_fonts: Whether the fonts of this computer were asked for letters.
        shortened: Titles and texts of which the first page has the first lines alone.
    """

    def __init__(self, snapshot: Snapshot, *, more_fonts: bool = True):
        super().__init__()
        self.bottom, self.heading = BOTTOM, "Differential"
        self.asked_fonts = False
        self.shortened: list[tuple[str, str]] = []
        self._snapshot, self._may_have_more = snapshot, more_fonts
        self._more: dict[FontFile, str] = {}
        self._nowhere: set[str] = set()  # letters that none of the fonts of this computer has
        self._undrawn = False
        self._widths: dict[tuple[str, float, str], float] = {}
        self.alias_nb_pages(_PAGES)
        self.set_title(f"Leucocyte differential {visible(snapshot.specimen)}".strip())
        self.set_subject(RESEARCH_USE)
        self.set_creator(snapshot.model.software)
        self.set_creation_date(snapshot.time)
        self.set_auto_page_break(False)
        self.c_margin = 0
        self.oversized_images, self.oversized_images_ratio = "DOWNSCALE", PIXELS_PER_POINT
        for style, file in _FONTS.items():
            self.add_font("DejaVu", style, Path(matplotlib.get_data_path(), "fonts", "ttf", file))

    # ---- pages

    def begin(self, heading: str) -> float:
        """Begin a page with a heading and the names of specimen and patient, and return where the rest begins."""
        self._end_page()
        self.add_page()
        self.heading, self.bottom = heading, BOTTOM
        y = self.put_lines(LEFT, 21, heading, RIGHT - LEFT, 13, bold=True, leading=5.4) - 0.6
        for name, lines in self._names:
            self.put(LEFT, y, name, 7, ink=FAINT)
            for line in lines:
                self.put(LEFT + 18, y, line, 8, bold=True)
                y += LINE
        self.rule(y - 1.8, ink=INK, width=0.35)
        return y + 1.2

    def room(self, y: float, height: float) -> float:
        """Where something so high stands: at `y`, or on a new page."""
        return y if y + height <= self.bottom else self.begin(self.heading)

    def next_line(self, y: float, below: float = 0) -> float:
        """The baseline of a line: `y`, or on a new page where this one has no room for it and so much below it."""
        return y if y + below <= self.bottom else self.begin(self.heading) + 2.6

    def finish(self) -> bytes:
        """The finished document."""
        self._end_page()
        return bytes(self.output())

    @cached_property
    def _names(self) -> list[tuple[str, list[str]]]:
        """What every page names, in lines: whole, or the first lines where that leaves too little of a page."""
        about, width = self._snapshot.about, RIGHT - LEFT - 18
        texts = [("Specimen", self._snapshot.specimen or "not named"), ("Patient", about.patient)]
        names = [
            (title, self.wrap(text, width, 8, bold=True))
            for title, text in [*texts, ("Order", about.order)]
            if text.strip()
        ]
        if LINE * sum(len(lines) for _, lines in names) <= HEIGHT / 3:
            return names
        return [(title, [self.shorten(lines, width, 8, _REST_OF_NAME, bold=True)]) for title, lines in names]

    def _end_page(self) -> None:
        """Write what stands at the end of each page: its number, and what no font has."""
        self.put(LEFT, FOOT, RESEARCH_USE, 6.5, ink=FAINT)
        self._style(6.5, ink=FAINT)
        self._draw_text(RIGHT, FOOT, f"page {self.page_no()} of {_PAGES}", "R")
        if self._undrawn:
            self._undrawn = False
            self.put_lines(LEFT, FOOT + 2.6, _NO_FONT, RIGHT - LEFT, 5, ink=FAINT, leading=2)

    # ---- text

    def put(
        self, x: float, y: float, text: str, size: float = 8, *, align: str = "L", bold: bool = False, ink: str = INK
    ) -> None:
        """Write a line of text with its baseline at `y`, and its left end, centre or right end at `x`.

        Where numbers stand for letters, the letters can be copied.
        """
        self._style(size, bold, ink)
        runs = self._runs(keep_figures_out(visible(text).rstrip()), note=True)
        if len(runs) == 1 and runs[0][1] == "":
            self._draw_text(x, y, runs[0][0], align)
            return
        widths = [self._width_of(shown) for shown, _ in runs]
        x -= {"L": 0.0, "C": sum(widths) / 2, "R": sum(widths)}[align]
        for (shown, said), width in zip(runs, widths, strict=True):
            if said:
                self._out(f"/Span <</ActualText <FEFF{said.encode('utf-16-be').hex().upper()}>>> BDC")
            self._draw_text(x, y, shown, "L")
            if said:
                self._out("EMC")
            x += width

    def put_lines(
        self,
        x: float,
        y: float,
        text: str,
        width: float,
        size: float = 7,
        *,
        bold: bool = False,
        ink: str = INK,
        leading: float | None = None,
        flows: bool = False,
    ) -> float:
        """Write a text on as many lines of at most `width` as it takes, the first with its baseline at `y`.

        They are `leading` apart, by default `LINE`; with `flows` they go on on the next page where this one ends.
        Returns the baseline of a line after the last.
        """
        for line in self.wrap(text, width, size, bold=bold):
            y = self.next_line(y) if flows else y
            self.put(x, y, line, size, bold=bold, ink=ink)
            y += leading or LINE
        return y

    def wrap(self, text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
        """Split a text into lines, between words where that is possible.

        A line ends between a letter and its marks only where those alone are wider than it.
        """
        lines, line, used = [], "", 0.0
        for piece in pieces(visible(text).strip()):
            if used + self._width(piece.rstrip(), size, bold) > width and line:
                lines.append(line)
                line, used = "", 0.0
            if (wide := self._width(piece, size, bold)) <= width or self._width(piece.rstrip(), size, bold) <= width:
                line, used = line + piece, used + wide
                continue
            for cluster in clusters(piece):
                whole = self._width(cluster, size, bold) <= width
                for part in (cluster,) if whole else cluster:
                    wide = self._width(part, size, bold)
                    if used + wide > width and line:
                        lines.append(line)
                        line, used = "", 0.0
                    line, used = line + part, used + wide
        return [*lines, line] if line.strip() or not lines else lines

    def fits(self, text: str, width: float, size: float, *, bold: bool = False) -> bool:
        """Whether a text needs no more than one line of that width."""
        first, *more = self.wrap(text, width, size, bold=bold)
        return not more and self._width(first.rstrip(), size, bold) <= width + _ROUNDING

    def shorten(self, lines: Sequence[str], width: float, size: float, rest: str, *, bold: bool = False) -> str:
        """The first of several lines, with words in place of the others; a single one as it is."""
        if len(lines) == 1:
            return lines[0]
        room = width - self._width(rest, size, bold)
        return self.wrap(lines[0], room, size, bold=bold)[0].rstrip() + rest

    def put_facts(self, y: float, facts: Sequence[Fact], size: float, title_size: float, *, bold: bool) -> float:
        """Write facts side by side, and before them those that are wider than their place, and return the new `y`.

        What does not fit on the page goes on on the next.
        """
        wide = [it for it in facts if not self.fits(it.text, it.width, size, bold=bold)]
        gap, leading = 0.52 * size + 0.4, 0.47 * size
        for fact in wide:
            y = self.next_line(y, gap)
            self.put(LEFT, y, fact.title, title_size, ink=FAINT)
            y += gap
            y = self.put_lines(LEFT, y, fact.text, RIGHT - LEFT, size, bold=bold, leading=leading, flows=True) + 1.6
        beside = [it for it in facts if it not in wide]
        if beside:
            y = self.next_line(y, gap + 0.36 * size)
        for fact in beside:
            x = fact.x - beside[0].x + LEFT
            self.put(x, y, fact.title, title_size, ink=FAINT)
            self.put(x, y + gap, fact.text, size, bold=bold)
            self.put(x, y + gap + 0.36 * size, fact.below, title_size, ink=FAINT)
        return y + gap + leading + 2.4 * any(it.below for it in beside) if beside else y

    def _style(self, size: float, bold: bool = False, ink: str = INK) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(ink)

    def _draw_text(self, x: float, y: float, text: str, align: str) -> None:
        width = {"L": WIDTH, "C": 2 * x, "R": x}[align]
        self.set_xy(x if align == "L" else 0, y - 0.3 * self.font_size)
        self._shape(text)
        self.cell(width, 0, text, align=align)

    def _shape(self, text: str) -> None:
        """Join and stack letters that ask for it; names run their own way within a report that runs to the right."""
        self.set_text_shaping(needs_shaping(text), direction="ltr")

    def _width_of(self, shown: str) -> float:
        self._shape(shown)
        return self.get_string_width(shown)

    def _width(self, text: str, size: float, bold: bool) -> float:
        key = (text, size, "B" if bold else "")
        if key not in self._widths:
            self._style(size, bold)
            self._widths[key] = sum(self._width_of(shown) for shown, _ in self._runs(text, note=False))
        return self._widths[key]

    def _runs(self, text: str, *, note: bool) -> list[tuple[str, str]]:
        """What is drawn, in parts: letters and ""; or the Unicode numbers of letters that no font has, and those.

        With `note` the page will say what the numbers are.
        """
        if text.isascii():
            return [(text, "")]
        text = without_variants(text)
        lacking = self._lacking(text)
        self._undrawn |= note and bool(lacking)
        parts = [(lacks, "".join(part)) for lacks, part in groupby(text, key=lacking.__contains__)]
        return [(f"[{code_points(part)}]", part) if lacks else (part, "") for lacks, part in parts]

    def _lacking(self, text: str) -> set[str]:
        """Letters of a text that no font has, once those of this computer were asked."""
        lacking = {letter for letter in set(text) if ord(letter) not in cast(TTFFont, self.current_font).cmap}
        if not lacking:
            return lacking
        lacking = self._without_those_of(("dejavu", *self._more.values()), lacking)
        if lacking - self._nowhere and self._may_have_more:
            self._ask_fonts(lacking - self._nowhere)
            lacking = self._without_those_of(self._more.values(), lacking)
        self.set_fallback_fonts(["DejaVu", *self._more.values()], exact_match=False)
        return lacking

    def _ask_fonts(self, letters: set[str]) -> None:
        """Look for letters among the fonts of this computer; the first time for all letters of the report.

        Each look opens every font, so that one for each name would take seconds.
        """
        if not self.asked_fonts:
            self.asked_fonts = True
            letters = letters.union(*map(visible, set(user_texts(self._snapshot))))
        letters = self._without_those_of(("dejavu", *self._more.values()), set(without_variants("".join(letters))))
        self._nowhere |= find_fonts(letters, self._use)

    def _use(self, font: FontFile) -> Collection[int]:
        """Take a font into the document, and return the Unicode numbers of its letters; none where it is unusable."""
        if font not in self._more:
            family = f"more{len(self._more)}"
            try:
                self.add_font(family, "", font.path, collection_font_number=font.number)
            except Exception as error:  # the font is the user's, and whatever is wrong with it another may do
                logger.warning("%s: this font cannot be used, another is looked for: %r", font.path, error)
                return ()
            self._more[font] = family
        return cast(TTFFont, self.fonts[self._more[font]]).cmap

    def _without_those_of(self, families: Iterable[str], letters: set[str]) -> set[str]:
        cmaps = [cast(TTFFont, self.fonts[family]).cmap for family in families]
        return {letter for letter in letters if not any(ord(letter) in cmap for cmap in cmaps)}

    # ---- shapes

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
