"""The pages of a report after the first: slides, every cell with its picture, numbers of patient, order, history."""

import io
from collections.abc import Sequence

from wbc_hf.labels import LEUCOCYTES
from wbc_hf.reports.history import history_lines
from wbc_hf.reports.pdf import CELL, FAINT, INK, LEFT, RIGHT, SHOWN, ReportPage
from wbc_hf.reports.slide_page import draw_slide
from wbc_hf.reports.texts import RESEARCH_USE, time_text
from wbc_hf.smear import Action, Cell, CellState, Event, Snapshot

# In millimetres.
_TEXT_LEFT, _TOP, _BOTTOM, _FOOT = 72.0, 28.0, 276.0, 289.5
_IN_A_ROW = 12
_PITCH = (RIGHT - LEFT - CELL) / (_IN_A_ROW - 1)
_ROW = 18.0
_MOST_LINES = 60  # of one event


def draw_more(page: ReportPage, snapshot: Snapshot) -> None:
    """Add as many pages as slides, cells and history take, and number all; none where the first says everything."""
    groups = _groups(snapshot)
    # The reading of pictures and slides is left out: the JSON export holds it.
    acts = [event for event in snapshot.history if event.action not in (Action.READ, Action.SLIDE)]
    facts = _facts(snapshot)
    on_first_page = all(len(cells) <= SHOWN for title, cells in groups[:-1]) and not groups[-1][1]
    if on_first_page and not acts and not facts and not snapshot.slides:
        return
    _number(page)
    for slide in snapshot.slides:
        draw_slide(page, snapshot, slide, LEFT, RIGHT)
        _number(page)
    if not on_first_page:
        _draw_cells(page, snapshot, groups)
    if acts or facts:
        _draw_history(page, snapshot, facts, acts)


def _groups(snapshot: Snapshot) -> list[tuple[str, list[Cell]]]:
    """The counted cells by class, those that a person corrected first; last those that a person rejected."""
    counted = snapshot.cells_in(CellState.COUNTED)
    groups = [(it.name.capitalize(), [cell for cell in counted if cell.label == it.name]) for it in LEUCOCYTES]
    groups.append(("None of the five, by a person: not counted", list(snapshot.cells_in(CellState.REJECTED))))
    return [(title, sorted(cells, key=lambda it: (not it.corrected, it.number))) for title, cells in groups]


def _draw_cells(page: ReportPage, snapshot: Snapshot, groups: Sequence[tuple[str, list[Cell]]]) -> None:
    legend = "✓ accepted by a person    ≠ corrected by a person, with the model's class"
    y = _begin(page, snapshot, "Cells")
    page.put(LEFT, y + 2.6, legend, 6.5, ink=FAINT)
    y += 6
    for title, cells in groups:
        if not cells:
            continue
        if y + 6 + _ROW > _BOTTOM:
            y = _begin(page, snapshot, "Cells")
        page.put(LEFT, y + 2.6, f"{title}: {len(cells)}", 8, bold=True)
        y += 5
        for start in range(0, len(cells), _IN_A_ROW):
            if y + _ROW > _BOTTOM:
                y = _begin(page, snapshot, "Cells")
            for index, cell in enumerate(cells[start : start + _IN_A_ROW]):
                _draw_cell(page, cell, LEFT + index * _PITCH, y)
            y += _ROW
        y += 1


def _draw_cell(page: ReportPage, cell: Cell, x: float, y: float) -> None:
    page.image(io.BytesIO(cell.image), x, y, CELL, CELL, keep_aspect_ratio=True)
    mark = "" if cell.review is None else " ≠" if cell.corrected else " ✓"
    page.put(x + CELL / 2, y + CELL + 2.2, f"{cell.number}{mark}", 5.6, align="C", bold=cell.review is not None)
    if cell.corrected:
        page.put(x + CELL / 2, y + CELL + 4.4, cell.prediction.label[:11], 4.6, align="C", ink=FAINT)


def _draw_history(
    page: ReportPage, snapshot: Snapshot, facts: Sequence[tuple[str, str]], acts: Sequence[Event]
) -> None:
    y = _begin(page, snapshot, "History")
    for name, value in facts:
        page.put(LEFT, y + 2.6, name, 7, bold=True)
        y = page.put_items(_TEXT_LEFT, y, [value], _MOST_LINES) + 0.6
    y += 2
    for time, text in history_lines(acts):
        if y > _BOTTOM:
            y = _begin(page, snapshot, "History")
        page.put(LEFT, y + 2.6, time_text(time), 7, ink=FAINT)
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


def _begin(page: ReportPage, snapshot: Snapshot, title: str) -> float:
    page.add_page()
    _number(page)
    page.put(LEFT, 21, title, 13, bold=True)
    name = page.shorten(snapshot.specimen or "not named", 90, 9, bold=True)
    page.put(RIGHT, 21, name, 9, align="R", bold=True)
    page.rule(25, ink=INK, width=0.35)
    page.put(LEFT, _FOOT, RESEARCH_USE, 6.5, ink=FAINT)
    return _TOP


def _number(page: ReportPage) -> None:
    page.put(RIGHT, _FOOT, f"page {page.page_no()} of {{nb}}", 6.5, align="R", ink=FAINT)
