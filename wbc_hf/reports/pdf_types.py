"""The laboratory's own types, on the first page of a report. Lengths are in millimetres, sizes of text in points."""

from collections.abc import Sequence
from dataclasses import dataclass

from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.reports.report_page import FAINT, LEFT, ReportPage
from wbc_hf.reports.texts import own_types_notes
from wbc_hf.smear import CellType, Differential, Share

_HEAD, _ROW, _COLUMN = 4.4, 4.2, 91.0  # heights of the titles and of a line, and from one column to the next
_NAME, _LONG_NAME = 26.0, 91.0  # widths of names; long ones leave room for a single column
_SMALL, _LEADING = 6.2, 3.0


@dataclass(frozen=True)
class _Line:
    own: CellType
    count: int
    value: float | None
    limits: tuple[float, float] | None
    unit: str
    absolute: float | None = None

    @property
    def title(self) -> str:
        return self.own.name.capitalize()


def draw_own_types(page: ReportPage, differential: Differential, y: float) -> float:
    """Draw a line for each type that was found, in two columns, and what has to be known of them; return the new `y`.

    What does not fit on a page goes on on the next.
    """
    lines = [_line_of(share) for share in differential.own_shares]
    lines += [_Line(it.own, it.count, it.value, it.limits, "per 100") for it in differential.beside]
    if not lines:
        return y
    found, absent = [it for it in lines if it.count], [it for it in lines if not it.count]
    short = all(page.fits(it.title, _NAME, 7.5, bold=True) for it in found)
    y = _draw_head(page, y)
    y = _draw_columns(page, found, y) if short else _draw_column(page, found, y)
    notes = own_types_notes(differential)
    if absent:
        notes.append(f"Looked for and not found: {', '.join(map(_absence, absent))}")
    y += 3
    for note in notes:
        y = page.put_lines(LEFT, y, note, 2 * _COLUMN - 4, _SMALL, leading=_LEADING, flows=True)
    return y


def _draw_columns(page: ReportPage, lines: Sequence[_Line], y: float) -> float:
    """On each page as many as it has room for, down the first column and then down the second."""
    while lines:
        rows = min((len(lines) + 1) // 2, max(1, int((page.bottom - y) / _ROW)))
        here, lines = lines[: 2 * rows], lines[2 * rows :]
        rows = (len(here) + 1) // 2
        for index, line in enumerate(here):
            _draw_line(page, line, LEFT + _COLUMN * (index // rows), y + _ROW * (index % rows), _NAME)
        y += _ROW * rows
        if lines:
            y = _draw_head(page, page.bottom)
    return y


def _draw_column(page: ReportPage, lines: Sequence[_Line], y: float) -> float:
    for line in lines:
        height = _ROW * len(page.wrap(line.title, _LONG_NAME, 7.5, bold=True))
        if y + height > page.bottom:
            y = _draw_head(page, page.bottom)
        _draw_line(page, line, LEFT, y, _LONG_NAME)
        y += height
    return y


def _draw_head(page: ReportPage, y: float) -> float:
    """Draw the titles, with room for a line below them."""
    y = page.room(y, _HEAD + _ROW)
    page.put(LEFT, y + 2.6, "Types of the laboratory’s own, named by a person", 8, bold=True)
    page.put(LEFT + 2 * _COLUMN - 4, y + 2.6, "% of the counted cells, or per 100 of them", 6.2, align="R", ink=FAINT)
    return y + _HEAD


def _line_of(share: Share) -> _Line:
    assert share.own is not None
    limits = None if share.percent is None else share.limits
    absolute = None if share.absolute is None else share.absolute.value
    return _Line(share.own, share.count, share.percent, limits, "%", absolute)


def _draw_line(page: ReportPage, line: _Line, x: float, y: float, width: float) -> None:
    """Draw a type, whose name has that width and takes more lines where it is wider."""
    base = y + 3
    page.dot(x + 1.2, y + 2, 1, line.own.colour)
    page.put_lines(x + 4, base, line.title, width, 7.5, bold=True, leading=_ROW)
    x += width - _NAME
    page.put(x + 35, base, str(line.count), 7.5, align="R")
    page.put(x + 57, base, f"{format_figure(line.value, '.1f')} {line.unit}", 7.5, align="R", bold=True)
    page.put(x + 74, base, format_interval(line.limits, ".1f", between=" – "), 7, align="R")
    if line.absolute is not None:
        page.put(x + 87, base, f"{line.absolute:.2f}", 7, align="R")


def _absence(line: _Line) -> str:
    limits = "" if line.limits is None else f" ({format_interval(line.limits, '.1f', between=' – ')} {line.unit})"
    return f"{line.own}{limits}"
