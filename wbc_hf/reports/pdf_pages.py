"""The pages of a report after the first: slides, every cell with its picture, numbers of patient, order, history."""

import io
from collections.abc import Sequence

from wbc_hf.labels import LEUCOCYTES
from wbc_hf.reports.history import history_lines
from wbc_hf.reports.report_page import CELL, FAINT, INK, LEFT, LINE, RIGHT, SHOWN, ReportPage
from wbc_hf.reports.slide_page import draw_slide
from wbc_hf.reports.texts import time_text
from wbc_hf.smear import Action, Cell, CellState, Event, Snapshot

# In millimetres.
_TEXT_LEFT = 72.0
_IN_A_ROW = 12
_PITCH = (RIGHT - LEFT - CELL) / (_IN_A_ROW - 1)
_ROW = 18.0


def draw_more(page: ReportPage, snapshot: Snapshot, shows_cells: bool) -> None:
    """Add as many pages as slides, cells and history take; none where the first says everything.

    `shows_cells` tells whether the first page shows the first cells of each class.
    """
    groups = _groups(snapshot)
    # The reading of pictures and slides is left out: the JSON export holds it.
    acts = [event for event in snapshot.history if event.action not in (Action.READ, Action.SLIDE)]
    facts = [*_facts(snapshot), *page.shortened]
    # The first page shows cells of the five classes alone, as many as it has room for.
    counts = [len(cells) for _, cells in groups]
    five, others = counts[: len(LEUCOCYTES)], counts[len(LEUCOCYTES) :]
    on_first_page = shows_cells and max(five) <= SHOWN and not any(others)
    for slide in snapshot.slides:
        draw_slide(page, snapshot, slide)
    if not on_first_page:
        _draw_cells(page, groups)
    if acts or facts:
        _draw_history(page, facts, acts)


def _groups(snapshot: Snapshot) -> list[tuple[str, list[Cell]]]:
    """The counted cells by class and own type, those that a person corrected first; last those that were rejected."""
    counted = snapshot.cells_in(CellState.COUNTED)
    groups = [(it.name.capitalize(), [cell for cell in counted if cell.label == it.name]) for it in LEUCOCYTES]
    beside = snapshot.cells_in(CellState.BESIDE)
    for share in snapshot.differential.own_shares:
        groups.append((share.label.capitalize(), [cell for cell in counted if cell.own == share.own]))
    for it in snapshot.differential.beside:
        groups.append((f"Beside the leucocytes, {it.own}", [cell for cell in beside if cell.own == it.own]))
    groups.append(("None of the five, by a person: not counted", list(snapshot.cells_in(CellState.REJECTED))))
    return [(title, sorted(cells, key=lambda it: (not it.corrected, it.number))) for title, cells in groups]


def _draw_cells(page: ReportPage, groups: Sequence[tuple[str, list[Cell]]]) -> None:
    legend = "✓ accepted by a person    ≠ corrected by a person, with the model's class"
    y = page.begin("Cells")
    page.put(LEFT, y + 2.6, legend, 6.5, ink=FAINT)
    y += 6
    for title, cells in groups:
        if not cells:
            continue
        title = f"{title}: {len(cells)}"
        y = page.room(y, 1.4 + LINE * len(page.wrap(title, RIGHT - LEFT, 8, bold=True)) + _ROW)
        y = page.put_lines(LEFT, y + 2.6, title, RIGHT - LEFT, 8, bold=True) - 1.2
        for start in range(0, len(cells), _IN_A_ROW):
            y = page.room(y, _ROW)
            for index, cell in enumerate(cells[start : start + _IN_A_ROW]):
                _draw_cell(page, cell, LEFT + index * _PITCH, y)
            y += _ROW
        y += 1


def _draw_cell(page: ReportPage, cell: Cell, x: float, y: float) -> None:
    page.image(io.BytesIO(cell.image), x, y, CELL, CELL, keep_aspect_ratio=True)
    mark = "" if cell.review is None else " ≠" if cell.corrected else " ✓"
    page.put(x + CELL / 2, y + CELL + 2.2, f"{cell.number}{mark}", 5.6, align="C", bold=cell.review is not None)
    if cell.corrected:
        lines = page.wrap(cell.prediction.label, _PITCH - 0.4, 4.6)
        for index, line in enumerate(lines):
            page.put(x + CELL / 2, y + CELL + 4.3 + 1.8 * index, line, 4.6, align="C", ink=FAINT)


def _draw_history(page: ReportPage, facts: Sequence[tuple[str, str]], acts: Sequence[Event]) -> None:
    y = page.begin("History") + 2.6
    for title, text in [*facts, *((time_text(time), text) for time, text in history_lines(acts))]:
        y = page.next_line(y)
        is_fact = (title, text) in facts
        page.put(LEFT, y, title, 7, bold=is_fact, ink=INK if is_fact else FAINT)
        y = page.put_lines(_TEXT_LEFT, y, text, RIGHT - _TEXT_LEFT, flows=True) + 0.6


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What is known of the specimen and does not stand on the first page, as a title and a text each."""
    about = snapshot.about
    facts = [("Patient", about.patient), ("Order", about.order), ("Slide", about.slide), ("Comment", about.comment)]
    if about.signature is not None:
        facts.append(("Signed", f"{about.signature.name}, {time_text(about.signature.time)}"))
        facts.append(("Comment of the signer", about.signature.comment))
    if about.amended:
        facts.append(("Amended", f"{about.amended} time{'s' * (about.amended > 1)} after it had been signed"))
    if about.second_of:
        facts.append(("Second reading", "of the same pictures, without the words of the first reader"))
    return [(title, text) for title, text in facts if text.strip()]
