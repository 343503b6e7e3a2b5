"""HTML of a specimen: the field with its numbered boxes, the chosen cell, the gallery, the differential."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from wbc_hf.inference import Neighbour
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import FEW_CELLS, WORST_CASE, own_types_notes
from wbc_hf.smear import (
    CLASS_KEYS,
    NEVER_COUNTED,
    REVIEW_KEYS,
    Cell,
    CellState,
    CellType,
    CellTypes,
    Differential,
    Flag,
    read_pictures,
)
from wbc_hf.web.rendering import render, thumbnail_url
from wbc_hf.web.session import Session, View
from wbc_hf.web.status_text import STATUS_TEXTS

THUMBNAIL_SIDE = 144  # pixels; shown at half of that, so that it is sharp on a fine screen, or at all of it
MAX_THUMBNAILS = 100  # in one answer

NO_CELL = "Click on a box, or on a cell of the gallery."
POSSIBLY = "High? and Low?: outside the range, but so few cells do not prove it."

STATE_TEXTS = {
    CellState.COUNTED: "counted",
    CellState.WAITING: "waits for review",
    CellState.BESIDE: "counted per 100 leucocytes",
    CellState.REJECTED: "none of the five, not counted",
    CellState.CUT: "cut off by the border, not counted",
    CellState.DUPLICATE: "seen before, not counted",
    CellState.REMOVED: "taken out with the picture, not counted",
}
NOT_COUNTED = (CellState.CUT, *NEVER_COUNTED, CellState.REJECTED)
MAYBE = (Flag.MAYBE_HIGH, Flag.MAYBE_LOW)

Columns = Sequence[str | CellType | None]  # of the gallery: what each is of, in the order of `names_of`


@dataclass(frozen=True)
class Named:
    """What a person may name a cell.

    Attributes:
        of: A class, a type of the laboratory's own, or None for none of these.
        key: Of the keyboard.
    """

    of: str | CellType | None
    key: str

    @property
    def value(self) -> str:
        """What the browser sends; "" for none of these."""
        return "" if self.of is None else str(self.of)

    @property
    def tag(self) -> str:
        """What is written on a cell of it."""
        return "none" if self.of is None else _short(self.of)

    def names(self, cell: Cell) -> bool:
        """Whether a person has named a cell so."""
        return cell.review is not None and (cell.own or cell.label) == self.of

    @property
    def state(self) -> CellState:
        """In which state a cell is that was named so."""
        if self.of is None:
            return CellState.REJECTED
        return CellState.BESIDE if isinstance(self.of, CellType) and not self.of.leucocyte else CellState.COUNTED


def names_of(types: CellTypes) -> list[Named]:
    """All that a person may name a cell, in the order of buttons, keys and columns: none of these comes last."""
    *keys, none = CLASS_KEYS
    classes = [Named(name, key) for name, key in zip(CLASS_NAMES, keys, strict=True)]
    return [*classes, *(Named(it, it.key) for it in types), Named(None, none)]


def render_pager(view: View) -> str:
    """Render which picture is shown, and the buttons that concern it and its neighbours."""
    return render("pager", view=view)


def render_field(view: View) -> str:
    """Render a numbered box for each cell of the shown picture; the viewer under it asks for the picture itself."""
    return render("field", view=view, boxes=[_Box(cell, view) for cell in view.cells_of_picture])


class _Box:
    """The box of a cell and the tag on it, in pixels of the picture."""

    def __init__(self, cell: Cell, view: View):
        assert view.picture is not None
        self.cell = cell
        self.chosen = view.cell is not None and cell.number == view.cell.number
        named = cell.state in (CellState.COUNTED, CellState.BESIDE, CellState.WAITING)
        self.label = (cell.own or _label_or_proposal(cell)) if named else None
        self.x, self.y, right, bottom = cell.box
        self.width, self.height = right - self.x, bottom - self.y
        self.tag = f"{cell.number} {_tag(cell)}"
        # What a screen reader says of it; it begins with what is written on it.
        self.description = f"{self.tag}: {_label_or_proposal(cell) or 'none of the five'}, {STATE_TEXTS[cell.state]}"
        # Tags look alike whatever the size of the picture.
        self.font_size = size = 15 * max(view.picture.size) / 640
        self.tag_width, self.tag_height = (0.66 * len(self.tag) + 0.6) * size, 1.3 * size
        # Above the box, or within it where that would be out of sight.
        self.tag_y = self.y - self.tag_height if self.y >= self.tag_height else self.y
        self.tag_x = min(self.x, max(0, view.picture.size[0] - self.tag_width))


def render_card(view: View, neighbours: Sequence[Neighbour] = ()) -> str:
    """Render the chosen cell: its image, what the model says, what a person says, and the buttons of the review.

    Args:
        view: What is shown.
        neighbours: The reference cells that are most similar to the chosen one.
    """
    cell = view.cell
    if cell is None:
        return render("no_cell", text=NO_CELL, beside=view.beside) if view.cells else ""
    status = STATUS_TEXTS[cell.prediction.status]
    reviewed = "good" if cell.review is not None else status.tone
    return render(
        "card",
        cell=cell,
        status=status,
        tone="neutral" if cell.state in NOT_COUNTED else reviewed,
        view=view,
        never_counted=NEVER_COUNTED,
        names=names_of(view.types),
        neighbours=neighbours,
    )


def render_legend(types: CellTypes) -> str:
    """Render the colours of classes and own types, and the keys."""
    return render("legend", names=names_of(types), taken=REVIEW_KEYS)


def render_gallery_frame(types: CellTypes) -> str:
    """Render the gallery without cells: a column for each class and own type, and the buttons. The browser fills it.

    Two columns come after those of `names_of`, in which no cell can be put: of types that the settings do not know,
    seen only where there are some, and of cells that are never counted.
    """
    return render("gallery", names=names_of(types), states=STATE_TEXTS)


def describe_gallery(session: Session) -> str:
    """Describe all cells as JSON for the gallery, without their images; "" where there is no picture.

    Of each cell: its number, column, state, tag, how unsure the model is, and whether a person reviewed it. Each text
    has a higher `version` than those before it; `reading` says that more cells may come, `signed` why no review can be
    changed.
    """
    with session.lock:
        view = session.view
        if not view.pictures:
            return ""
        session.version += 1
        columns = [it.of for it in names_of(view.types)]
        return json.dumps(
            {
                "key": session.key,
                "version": session.version,
                "ticket": session.ticket,
                "chosen": view.cell and view.cell.number,
                "undo": "" if view.signed else view.undo,
                "signed": view.signed,
                "reading": session.readings > 0,
                "cells": [_summary(cell, columns) for cell in view.cells],
            },
            separators=(",", ":"),
        )


def make_thumbnails(session: Session, numbers: Sequence[int]) -> dict[str, object]:
    """Make small images of cells as data URLs, by number, with the key of their specimen; at most `MAX_THUMBNAILS`."""
    cells = session.specimen.cells
    known = [number for number in numbers if 1 <= number <= len(cells)][:MAX_THUMBNAILS]
    images = read_pictures(cells[number - 1].crop for number in known)
    urls = {
        str(number): str(thumbnail_url(Image.open(io.BytesIO(image)), THUMBNAIL_SIDE))
        for number, image in zip(known, images, strict=True)
    }
    return {"key": session.key, "urls": urls}


def _summary(cell: Cell, columns: Columns) -> list[object]:
    unsure = round(_unsureness(cell), 3)
    return [cell.number, _column(cell, columns), cell.state, _tag(cell), unsure, int(cell.review is not None)]


def _column(cell: Cell, columns: Columns) -> int:
    """The column of a cell: that of its class or own type, without a review that of its proposed class."""
    if cell.state in (CellState.CUT, *NEVER_COUNTED):
        return len(columns) + 1
    named = cell.own or _label_or_proposal(cell)
    return columns.index(named) if named in columns else len(columns)


def _unsureness(cell: Cell) -> float:
    """How unsure the model is: 0 to 1; above 1 where its probability says nothing, the more unlike known cells."""
    prediction = cell.prediction
    if prediction.status in ("unfamiliar", "not_a_cell"):
        return 1 + (prediction.distance or 0)
    return 1 - prediction.probability


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
    notes += own_types_notes(differential)
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


def _label_or_proposal(cell: Cell) -> str | None:
    return cell.proposal if cell.review is None else cell.label


def _tag(cell: Cell) -> str:
    """Three letters that tell the classes apart without colours, with a question mark while the cell waits."""
    fixed = {CellState.REMOVED: "out", CellState.CUT: "cut", CellState.DUPLICATE: f"= {cell.duplicate_of}"}
    if cell.state in fixed:
        return fixed[cell.state]
    label = _label_or_proposal(cell)
    if cell.state is CellState.WAITING:
        return "no?" if label is None else f"{label[:3].capitalize()}?"
    return "none" if label is None else _short(label)


def _short(name: str | CellType) -> str:
    return str(name)[:3].capitalize()
