"""The page of a report that shows a slide as a whole, with the places of its cells. All lengths are in millimetres."""

import io
from collections.abc import Iterator

from wbc_hf.labels import LEUCOCYTES
from wbc_hf.reports.report_page import LEFT, RIGHT, ReportPage
from wbc_hf.smear import Cell, CellState, SlideMap, Snapshot

_FIELD_READ, _FIELD_NOT_READ = "#0f766e", "#9ca3af"
_WAITING, _DOT = "#b45309", 0.9
_HEADING_LINES, _LEAST_PICTURE = 4, 100.0
_LEGEND = ((5, 34.0), (2, 85.0), (1, 170.0))  # columns, and from one to the next
_CAPTION = (
    "Frames: fields of the monolayer, green ones were read, grey ones were not needed. Dots: counted cells, in the "
    "colours of their classes; rings: cells that wait for review."
)


def draw_slide(page: ReportPage, snapshot: Snapshot, slide: SlideMap) -> None:
    """Draw a new page with the thumbnail of a slide, the fields of its monolayer, and the places of its cells."""
    if len(page.wrap(slide.name, RIGHT - LEFT, 13, bold=True)) <= _HEADING_LINES:
        y = page.begin(slide.name) + 2
    else:
        y = page.put_lines(LEFT, page.begin("Slide") + 2, slide.name, RIGHT - LEFT, 7.5, flows=True)
        y = page.room(y, _LEAST_PICTURE)
    y = page.put_lines(LEFT, y, "  ·  ".join(_facts(snapshot, slide)), RIGHT - LEFT, 7.5)
    top = page.put_lines(LEFT, y, _CAPTION, RIGHT - LEFT) - 1
    scale = min((RIGHT - LEFT) / slide.size[0], (page.bottom - 10 - top) / slide.size[1])
    page.image(io.BytesIO(slide.thumbnail), LEFT, top, slide.size[0] * scale, slide.size[1] * scale)
    read = {picture.name for picture in snapshot.pictures if picture.place and not picture.removed}
    for number, (x0, y0, x1, y1) in enumerate(slide.fields, 1):
        ink = _FIELD_READ if f"{slide.name}, field {number}" in read else _FIELD_NOT_READ
        page.frame(LEFT + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale, ink)
    colours = {leucocyte.name: leucocyte.colour for leucocyte in LEUCOCYTES}
    colours |= {cell.own.name: cell.own.colour for cell in snapshot.cells if cell.own is not None}
    for cell, x, y in _places(snapshot, slide):
        if cell.state in (CellState.COUNTED, CellState.BESIDE) and cell.label in colours:
            page.dot(LEFT + x * scale, top + y * scale, _DOT, colours[cell.label])
        elif cell.state is CellState.WAITING:
            page.ring(LEFT + x * scale, top + y * scale, _DOT, _WAITING)
    _draw_legend(page, top + slide.size[1] * scale + 6, colours)


def _draw_legend(page: ReportPage, y: float, colours: dict[str, str]) -> None:
    fitting = [it for it in _LEGEND if all(page.fits(name, it[1] - 4, 7) for name in colours)]
    columns, pitch = (fitting or _LEGEND[-1:])[0]
    entries = list(colours.items())
    for start in range(0, len(entries), columns):
        row = entries[start : start + columns]
        lines = max(len(page.wrap(name, pitch - 4, 7)) for name, _ in row)
        y = page.next_line(y, 4 * (lines - 1))
        for column, (name, colour) in enumerate(row):
            x = LEFT + pitch * column
            page.dot(x + 1, y - 1, _DOT, colour)
            page.put_lines(x + 3, y, name, pitch - 4, leading=4)
        y += 4 * lines


def _facts(snapshot: Snapshot, slide: SlideMap) -> list[str]:
    by = " (measured by red cells)" if slide.measured else ""
    read = sum(picture.place is not None and picture.place.slide == slide.name for picture in snapshot.pictures)
    return [
        f"{slide.size[0]} × {slide.size[1]} pixels of {slide.pixel_size:.3f} µm{by}",
        f"{read} of {len(slide.fields)} fields read",
    ]


def _places(snapshot: Snapshot, slide: SlideMap) -> Iterator[tuple[Cell, float, float]]:
    """Cells of a slide with their middles in its pixels."""
    for cell in snapshot.cells:
        place = snapshot.pictures[cell.picture - 1].place
        if place is not None and place.slide == slide.name:
            x0, y0, x1, y1 = place.on_slide(cell.box)
            yield cell, (x0 + x1) / 2, (y0 + y1) / 2
