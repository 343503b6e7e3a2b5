"""The pages of a report, with text in any letters and a few shapes. Lengths are in millimetres, sizes in points."""

import logging
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

import matplotlib
import uharfbuzz  # noqa: F401  for fpdf, which tells too late where it is missing
from fpdf import FPDF
from fpdf.fonts import TTFFont

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
from wbc_hf.reports.texts import RESEARCH_USE, user_texts
from wbc_hf.smear import Snapshot

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

WIDTH, HEIGHT, MARGIN = 210.0, 297.0, 16.0
LEFT, RIGHT = MARGIN, WIDTH - MARGIN
BOTTOM, FOOT = 276.0, 289.5  # of what stands on a page, and its last line
INK, FAINT, HAIRLINE = "#1f2328", "#6b7280", "#d5d8dd"
LINE = 3.6
CELL = 11.6  # side of a cell
SHOWN = 12  # cells of a class on the first page
PIXELS_PER_POINT = 3  # of a cell, 216 to the inch
_ROUNDING = 0.01  # of widths that are added


class Fact(NamedTuple):
    """A title and what it says, in a place of that width; in lines of its own where it is wider."""

    title: str
    text: str
    x: float
    width: float
    below: str = ""  # in small letters


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
