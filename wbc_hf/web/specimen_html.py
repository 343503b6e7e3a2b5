"""HTML of a specimen: the field with its numbered boxes, the chosen cell, the gallery, the differential."""

import io
from collections import Counter

from PIL import Image

from wbc_hf.reports import FEW_CELLS, WORST_CASE
from wbc_hf.smear import NEVER_COUNTED, Cell, CellState, Differential, Flag
from wbc_hf.web.rendering import render, thumbnail_url
from wbc_hf.web.session import Shown, View
from wbc_hf.web.status_text import STATUS_TEXTS

THUMBNAIL_SIDE = 112  # pixels; shown at less, so that it is sharp on a fine screen
MAX_THUMBNAILS = 60  # in the gallery at once: they are sent anew with every change

NO_CELL = "Click on a box, or on a cell of the gallery."
POSSIBLY = "High? and Low?: outside the range, but so few cells do not prove it."

STATE_TEXTS = {
    CellState.COUNTED: "counted",
    CellState.WAITING: "waits for review",
    CellState.REJECTED: "none of the five, not counted",
    CellState.CUT: "cut off by the border, not counted",
    CellState.DUPLICATE: "seen before, not counted",
    CellState.REMOVED: "taken out with the picture, not counted",
}
NOT_COUNTED = (CellState.CUT, *NEVER_COUNTED, CellState.REJECTED)
MAYBE = (Flag.MAYBE_HIGH, Flag.MAYBE_LOW)


def render_pager(view: View) -> str:
    """Render which picture is shown, and the buttons that concern it and its neighbours."""
    return render("pager", picture=view.picture, count=len(view.pictures), cells=len(view.cells_of_picture))


def render_field(view: View) -> str:
    """Render a numbered box for each cell of the shown picture; the viewer under it asks for the picture itself."""
    boxes = [_Box(cell, view) for cell in view.cells_of_picture]
    return render(
        "field",
        picture=view.picture,
        boxes=boxes,
        chosen=view.cell and view.cell.number,
        secret=view.secret,
        in_full=view.in_full,
        describe=_describe,
    )


class _Box:
    """The box of a cell and the tag on it, in pixels of the picture."""

    def __init__(self, cell: Cell, view: View):
        assert view.picture is not None
        self.cell = cell
        self.chosen = view.cell is not None and cell.number == view.cell.number
        self.label = cell.label if cell.state in (CellState.COUNTED, CellState.WAITING) else None
        self.x, self.y, right, bottom = cell.box
        self.width, self.height = right - self.x, bottom - self.y
        self.tag = f"{cell.number} {_tag(cell)}"
        # Tags look alike whatever the size of the picture.
        self.font_size = size = 15 * max(view.picture.size) / 640
        self.tag_width, self.tag_height = (0.66 * len(self.tag) + 0.6) * size, 1.3 * size
        # Above the box, or within it where that would be out of sight.
        self.tag_y = self.y - self.tag_height if self.y >= self.tag_height else self.y
        self.tag_x = min(self.x, max(0, view.picture.size[0] - self.tag_width))


def render_card(view: View) -> str:
    """Render the chosen cell: its image, what the model says, what a person says, and the buttons of the review."""
    cell = view.cell
    if cell is None:
        return render("no_cell", text=NO_CELL, neighbours=view.neighbours) if view.cells else ""
    status = STATUS_TEXTS[cell.prediction.status]
    reviewed = "good" if cell.review is not None else status.tone
    tone = "neutral" if cell.state in NOT_COUNTED else reviewed
    picture = view.pictures[cell.picture - 1]
    return render(
        "card",
        cell=cell,
        picture=picture,
        status=status,
        tone=tone,
        last=view.last,
        never_counted=NEVER_COUNTED,
        neighbours=view.neighbours,
    )


def render_gallery(view: View, thumbnails: dict[int, str]) -> str:
    """Render small images of the cells that wait, that are counted, or of all.

    Args:
        view: What is shown.
        thumbnails: Of each cell by its number, as data URLs; missing ones are added.
    """
    if not view.cells:
        return ""
    states = Counter(cell.state for cell in view.cells)
    filters = [
        (Shown.WAITING, "Wait for review", states[CellState.WAITING]),
        (Shown.COUNTED, "Counted", states[CellState.COUNTED]),
        (Shown.ALL, "All cells", len(view.cells)),
    ]
    cells = view.gallery
    # Those round the chosen one, where there are more than can be shown.
    place = next((index for index, cell in enumerate(cells) if view.cell and cell.number >= view.cell.number), -1)
    start = max(0, min(place - MAX_THUMBNAILS // 2, len(cells) - MAX_THUMBNAILS))
    part = cells[start : start + MAX_THUMBNAILS]
    for cell in part:
        if cell.number not in thumbnails:
            thumbnails[cell.number] = thumbnail_url(Image.open(io.BytesIO(cell.image)), THUMBNAIL_SIDE)
    return render(
        "gallery",
        filters=filters,
        shown=view.shown,
        cells=part,
        total=len(cells),
        chosen=view.cell and view.cell.number,
        thumbnails=thumbnails,
        describe=_describe,
        tag=_tag,
    )


def render_differential(differential: Differential, view: View, problem: str = "") -> str:
    """Render the table, and under it what a reader has to know of it.

    Args:
        differential: Of the counted cells.
        view: For the cells that are not counted.
        problem: What is wrong with the total leucocyte count that a person gave, or "".
    """
    states = Counter(cell.state for cell in view.cells)
    notes = []
    if view.cells and not differential.enough:
        notes.append(FEW_CELLS)
    if any(share.flag in MAYBE for share in differential.shares):
        notes.append(POSSIBLY)
    if differential.waiting:
        notes.append(WORST_CASE)
    not_counted = [
        f"{states[state]} {STATE_TEXTS[state].removesuffix(', not counted')}" for state in NOT_COUNTED if states[state]
    ]
    if not_counted:
        notes.append(f"Not counted: {', '.join(not_counted)}.")
    notes.append(f"Reference ranges: {differential.ranges_source}.")
    return render(
        "differential",
        differential=differential,
        maybe=MAYBE,
        problem=problem,
        notes=notes,
    )


def _tag(cell: Cell) -> str:
    """Three letters that tell the classes apart without colours, with a question mark while the cell waits."""
    if cell.state is CellState.REMOVED:
        return "out"
    if cell.state is CellState.CUT:
        return "cut"
    if cell.state is CellState.DUPLICATE:
        return f"= {cell.duplicate_of}"
    if cell.label is None:
        return "none"
    return cell.label[:3].capitalize() + ("?" if cell.state is CellState.WAITING else "")


def _describe(cell: Cell) -> str:
    return f"Cell {cell.number}, {cell.label or 'none of the five'}, {STATE_TEXTS[cell.state]}"
