"""How a specimen looks: a field with its numbered boxes, the chosen cell, the gallery, the table."""

import io
from collections import Counter
from html import escape

from PIL import Image

from wbc_hf.evaluation import format_interval
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import FEW_CELLS
from wbc_hf.smear import NEVER_COUNTED, Cell, CellState, Differential, Flag, Share
from wbc_hf.web.cell_html import render_bars
from wbc_hf.web.html import colour_of, data_url, dot, format_percent, image_url, plural, render_empty
from wbc_hf.web.session import Shown, View
from wbc_hf.web.status_text import STATUS_TEXTS

THUMBNAIL_SIDE = 112  # pixels; shown at less, so that it is sharp on a fine screen
AXIS_TICKS = (0, 100)  # percent
MAX_THUMBNAILS = 60  # in the gallery at once: they are sent anew with every change

NO_CELL = "Click on a box, or on a cell of the gallery."

FORGET = "Put this specimen away? Its pictures and what was said of its cells are forgotten. Save first what you need."

TAKE_OUT = "Take this picture out? Its cells are not counted any more. It cannot be put back."

NO_CLASS = "None of these"

STATE_TEXTS = {
    CellState.COUNTED: "counted",
    CellState.WAITING: "waits for review",
    CellState.REJECTED: "none of the five, not counted",
    CellState.CUT: "cut off by the border, not counted",
    CellState.DUPLICATE: "seen before, not counted",
    CellState.REMOVED: "taken out with the picture, not counted",
}

FLAG_TITLES = {Flag.NONE: "", Flag.HIGH: "High", Flag.LOW: "Low", Flag.MAYBE_HIGH: "High?", Flag.MAYBE_LOW: "Low?"}
POSSIBLY = "High? and Low?: outside the range, but so few cells do not prove it."


# ---- the field


def render_pager(view: View) -> str:
    """Which picture of how many this is, with buttons for the others."""
    number, count = view.picture.number, len(view.pictures)
    width, height = view.picture.size
    cells = plural(len(view.cells_of_picture), "cell")
    what = "Field" if view.picture.is_field else "Picture"
    return (
        '<div class="wbc-pager">'
        + _button("picture", max(1, number - 1), "‹", label="Previous picture", disabled=number == 1)
        + f"<p><b>{what} {number} of {count}</b> <span>{escape(view.picture.name)}, {width} × {height} pixels, "
        f"{cells}</span></p>"
        + _button("picture", min(count, number + 1), "›", label="Next picture", disabled=number == count)
        + _changes(view)
        + _button("clear", 0, "New specimen", confirm=FORGET)
        + "</div>"
    )


def _changes(view: View) -> str:
    """What a person can do to the picture under the lens."""
    if view.picture.removed:
        return "<p><b>Taken out</b></p>"
    buttons = _button("remove", view.picture.number, "Take out", confirm=TAKE_OUT)
    if view.picture.is_field:
        buttons = '<button type="button" class="wbc-button wbc-point">Missed cell</button>' + buttons
    return buttons


def render_field(view: View) -> str:
    """The picture under the lens with a numbered box for each cell."""
    width, height = view.picture.size
    # Lengths in pixels of the picture that look alike whatever its size.
    unit = max(width, height) / 640
    boxes = "".join(_box(cell, view, unit) for cell in view.cells_of_picture)
    return (
        f'<div class="wbc-field"><img alt="" src="{data_url(view.picture.preview, "image/jpeg")}">'
        f'<svg class="wbc-boxes" data-number="{view.picture.number}" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="Leucocytes in {escape(view.picture.name)}">{boxes}</svg></div>'
    )


def _box(cell: Cell, view: View, unit: float) -> str:
    x0, y0, x1, y1 = cell.box
    chosen = view.cell is not None and cell.number == view.cell.number
    counted = cell.state in (CellState.COUNTED, CellState.WAITING)
    shown_class = cell.label if counted else None
    tag = f"{cell.number} {_short(cell)}"
    size = 15 * unit
    wide, high = (0.66 * len(tag) + 0.6) * size, 1.3 * size
    # Above the box, or within it where that would be out of sight.
    top = y0 - high if y0 >= high else y0
    left = min(x0, max(0, view.picture.size[0] - wide))
    return (
        f'<g class="wbc-box wbc-{cell.state}{" wbc-chosen" if chosen else ""}" role="button" tabindex="0" '
        f'data-action="cell" data-number="{cell.number}" data-focus="box-{cell.number}" data-class="{shown_class}" '
        f'aria-pressed="{str(chosen).lower()}" aria-label="{escape(_describe(cell))}" '
        f'style="--colour:{colour_of(shown_class)}">'
        f'<rect class="wbc-halo" x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>'
        f'<rect class="wbc-line" x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>'
        '<g class="wbc-label">'
        f'<rect class="wbc-tag" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'
        f'<text x="{left + 0.3 * size:.1f}" y="{top + 0.98 * size:.1f}" font-size="{size:.1f}">{escape(tag)}</text>'
        "</g></g>"
    )


def render_legend() -> str:
    """Which colour is which class, and what a broken line means."""
    classes = "".join(f"<span>{dot(name)}{name.capitalize()}</span>" for name in CLASS_NAMES)
    return (
        f'<div class="wbc-legend">{classes}<span><i class="wbc-dashes"></i>waits for review</span>'
        f"<span>{dot(None)}not counted</span>"
        '<label><input type="checkbox" class="wbc-keys" checked>keyboard: A, 1–5, 0, U</label></div>'
    )


# ---- the chosen cell


def render_card(view: View) -> str:
    """The chosen cell: how it looks, what the model says, what a person said, and buttons to say something else."""
    cell = view.cell
    if cell is None:
        return render_empty(NO_CELL) if view.cells else ""
    picture = view.pictures[cell.picture - 1]
    status = STATUS_TEXTS[cell.prediction.status]
    return (
        f'<div class="wbc-card" data-number="{cell.number}"><img alt="Cell {cell.number}" '
        f'src="{data_url(cell.image, "image/png")}"><div class="wbc-said">'
        f'<div class="wbc-file">Cell {cell.number} <span>{escape(picture.name)}</span></div>'
        f'<div class="wbc-class">{_headline(cell)}</div>'
        f'<div class="wbc-status wbc-{_tone(cell, status.tone)}" role="status">{_verdict(cell)}</div></div>'
        f"{_actions(cell, view.last)}<details><summary>What the model says</summary>"
        f'<p class="wbc-hint"><b>{status.title}.</b> {status.sentence}</p>{render_bars(cell.prediction)}</details>'
        "</div>"
    )


def _headline(cell: Cell) -> str:
    if cell.label is None:
        return f"{dot(None)}<b>None of the five</b>"
    if cell.review is None and cell.prediction.status == "not_a_cell":
        return f"{dot(None)}<b>No leucocyte?</b>"
    by_person = cell.review is not None
    right = "by a person" if by_person else format_percent(cell.prediction.probability)
    return f"{dot(cell.label)}<b>{escape(cell.label.capitalize())}</b><span>{right}</span>"


def _verdict(cell: Cell) -> str:
    """What becomes of a cell, in one line."""
    if cell.state is CellState.REMOVED:
        return "<strong>Taken out</strong> with its picture: not counted."
    if cell.state is CellState.DUPLICATE:
        return f"<strong>Seen before</strong> The same leucocyte as cell {cell.duplicate_of}: not counted again."
    if cell.state is CellState.CUT:
        return "<strong>Cut off</strong> The border of the field cuts it: not counted."
    if cell.review is not None:
        who = f" by {escape(cell.review.reviewer)}" if cell.review.reviewer else ""
        model = escape(cell.prediction.label)
        counted = "not counted" if cell.state is CellState.REJECTED else "counted"
        if cell.corrected:
            return f"<strong>Corrected{who}:</strong> the model said {model}. Now {counted}."
        return f"<strong>Accepted{who}:</strong> {counted}."
    status = STATUS_TEXTS[cell.prediction.status]
    if cell.state is CellState.COUNTED:
        return f"<strong>{status.title}</strong> Counted."
    return f"<strong>{status.title}</strong> Waits for your word, not counted yet."


def _tone(cell: Cell, tone: str) -> str:
    if cell.state in (*NEVER_COUNTED, CellState.REJECTED):
        return "neutral"
    return "good" if cell.review is not None else tone


def _actions(cell: Cell, last: Cell | None) -> str:
    if cell.state in NEVER_COUNTED:
        return ""
    classes = "".join(
        _button(
            "label",
            cell.number,
            f"{dot(name)}{name.capitalize()}",
            key=str(index + 1),
            value=name,
            pressed=cell.review is not None and cell.label == name,
        )
        for index, name in enumerate(CLASS_NAMES)
    )
    classes += _button(
        "label", cell.number, f"{dot(None)}{NO_CLASS}", key="0", pressed=cell.state is CellState.REJECTED
    )
    first = ""
    if cell.review is not None:
        first = _button("withdraw", cell.number, "Take back", key="u")
    elif cell.suggestion is not None and cell.prediction.status != "not_a_cell":
        first = _button(
            "label", cell.number, f"Accept {cell.suggestion}", key="a", value=cell.suggestion, primary=True
        )
    if cell.review is None and last is not None and last.review is not None and not last.removed:
        first += _button("withdraw", last.number, f"Undo cell {last.number}", key="u")
    return (
        f'<div class="wbc-actions"><div class="wbc-first">{first}</div><div class="wbc-classes">{classes}</div></div>'
    )


# ---- the gallery


def render_gallery(view: View, thumbnails: dict[int, str]) -> str:
    """Small pictures of the cells that wait, that are counted, or of all.

    Args:
        view: What lies under the lens.
        thumbnails: By number of the cell, its picture as an address; what is missing is added.
    """
    if not view.cells:
        return ""
    states = Counter(cell.state for cell in view.cells)
    titles = {
        Shown.WAITING: f"Wait for review <b>{states[CellState.WAITING]}</b>",
        Shown.COUNTED: f"Counted <b>{states[CellState.COUNTED]}</b>",
        Shown.ALL: f"All cells <b>{len(view.cells)}</b>",
    }
    chips = "".join(
        _button("gallery", 0, title, value=shown, pressed=view.shown is shown) for shown, title in titles.items()
    )
    cells = view.gallery
    if not cells:
        text = (
            "No cell waits for review: the report is ready."
            if view.shown is Shown.WAITING
            else "No cell is counted yet."
        )
        body = render_empty(text)
    else:
        # Those round the chosen one, where there are more than can be shown.
        place = next((index for index, cell in enumerate(cells) if view.cell and cell.number >= view.cell.number), -1)
        start = max(0, min(place - MAX_THUMBNAILS // 2, len(cells) - MAX_THUMBNAILS))
        part = cells[start : start + MAX_THUMBNAILS]
        body = f'<div class="wbc-cells">{"".join(_thumbnail(cell, view, thumbnails) for cell in part)}</div>'
        if len(part) < len(cells):
            body += f'<p class="wbc-hint">{len(part)} of {len(cells)}, those round the chosen one.</p>'
    return f'<div class="wbc-gallery"><div class="wbc-chips" role="group" aria-label="Show">{chips}</div>{body}</div>'


def _thumbnail(cell: Cell, view: View, thumbnails: dict[int, str]) -> str:
    if cell.number not in thumbnails:
        thumbnails[cell.number] = image_url(Image.open(io.BytesIO(cell.image)), THUMBNAIL_SIDE)
    chosen = view.cell is not None and cell.number == view.cell.number
    return (
        f'<button type="button" class="wbc-{cell.state}" data-action="cell" data-number="{cell.number}" '
        f'data-focus="cell-{cell.number}" aria-pressed="{str(chosen).lower()}" aria-label="{escape(_describe(cell))}">'
        f'<img alt="" src="{thumbnails[cell.number]}">'
        f"<span>{dot(cell.label)}{cell.number} {escape(_short(cell))}</span></button>"
    )


# ---- the table


def render_differential(differential: Differential, view: View, problem: str = "") -> str:
    """The table, and under it what a reader has to know of it.

    Args:
        differential: Of the counted cells.
        view: For the cells that are not counted.
        problem: Something that a person gave and that cannot be used, or "".
    """
    absolute = differential.leucocyte_count is not None
    rows = "".join(_row(share, absolute) for share in differential.shares)
    head = '<th scope="col">10⁹/l</th>' if absolute else ""
    return (
        '<div class="wbc-differential"><div class="wbc-wide"><table><thead><tr><th scope="col">Class</th>'
        '<th scope="col">Cells</th><th scope="col">%</th><th scope="col">95 % limits</th>'
        f'<th scope="col" class="wbc-chart">{_scale()}</th><th scope="col" class="wbc-usual">Range</th>{head}'
        '<th scope="col">Flag</th>'
        f'</tr></thead><tbody>{rows}</tbody><tfoot><tr><th scope="row">Counted</th><td>{differential.total}</td>'
        f'<td colspan="{6 if absolute else 5}"></td></tr></tfoot></table></div>'
        f"{_notes(differential, view, problem)}</div>"
    )


def _row(share: Share, absolute: bool) -> str:
    percent = "–" if share.percent is None else f"{share.percent:.1f}"
    limits = "–" if share.percent is None else format_interval(share.limits, ".1f", between=" – ")
    title = FLAG_TITLES[share.flag]
    kind = "wbc-maybe" if share.flag in (Flag.MAYBE_HIGH, Flag.MAYBE_LOW) else "wbc-sure"
    flag = f'<span class="wbc-flag {kind}">{title}</span>' if title else ""
    cubed = f"<td>{_absolute(share)}</td>" if absolute else ""
    return (
        f'<tr><th scope="row">{dot(share.label)}{share.label.capitalize()}</th><td>{share.count}</td>'
        f'<td><b>{percent}</b></td><td>{limits}</td><td class="wbc-chart">{_chart(share)}</td>'
        f'<td class="wbc-usual">{format_interval(share.reference, "g", between=" – ")}</td>{cubed}<td>{flag}</td></tr>'
    )


def _absolute(share: Share) -> str:
    if share.absolute is None:
        return "–"
    limits = format_interval(share.absolute.limits, ".2f", between=" – ")
    return f"{share.absolute.value:.2f}<small>{limits}</small>"


def _chart(share: Share) -> str:
    """The percentage with its limits, over the reference range, on a root axis."""
    low, high = map(_place, share.reference)
    drawing = f'<rect class="wbc-range" x="{low:.2f}" y="1" width="{high - low:.2f}" height="10"/>'
    if share.percent is not None:
        left, right = map(_place, share.limits)
        drawing += (
            f'<line x1="{left:.2f}" x2="{right:.2f}" y1="6" y2="6"/>'
            f'<ellipse cx="{_place(share.percent):.2f}" cy="6" rx="1.6" ry="3.6"/>'
        )
    return (
        '<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true" '
        f'style="--colour:{colour_of(share.label)}">{drawing}</svg>'
    )


def _scale() -> str:
    ticks = "".join(f'<span style="left:{_place(percent):.1f}%">{percent}</span>' for percent in AXIS_TICKS)
    return f'<div class="wbc-scale" aria-hidden="true">{ticks}</div>'


def _place(percent: float) -> float:
    """On a straight axis 1 % of basophils could not be seen beside 60 % of neutrophils; on that of roots it can."""
    return 10 * percent**0.5


def _notes(differential: Differential, view: View, problem: str) -> str:
    states = Counter(cell.state for cell in view.cells)
    notes = []
    if problem:
        notes.append(f'<li class="wbc-wrong" role="alert">{escape(problem)}</li>')
    if states[CellState.WAITING]:
        wait = "waits" if states[CellState.WAITING] == 1 else "wait"
        notes.append(
            f"<li><b>{plural(states[CellState.WAITING], 'cell')}</b> {wait} for review, not counted yet.</li>"
        )
    if view.cells and not differential.enough:
        notes.append(f"<li>{FEW_CELLS}</li>")
    if any(share.flag in (Flag.MAYBE_HIGH, Flag.MAYBE_LOW) for share in differential.shares):
        notes.append(f"<li>{POSSIBLY}</li>")
    dropped = [
        f"{states[state]} {STATE_TEXTS[state].removesuffix(', not counted')}"
        for state in (*NEVER_COUNTED, CellState.REJECTED)
        if states[state]
    ]
    if dropped:
        notes.append(f"<li>Not counted: {', '.join(dropped)}.</li>")
    notes.append(f"<li>Reference ranges: {escape(differential.ranges_source)}.</li>")
    return f'<ul class="wbc-notes">{"".join(notes)}</ul>'


# ---- progress


def render_progress(done: int, total: int, name: str) -> str:
    """How far the reading of pictures is."""
    return (
        f'<div class="wbc-progress" role="status"><progress max="{total}" value="{done}"></progress>'
        f"<span>Picture {done + 1} of {total}: {escape(name)}</span></div>"
    )


def render_signed_in(name: str) -> str:
    """Under whose name cells are reviewed, and the way out for the next at the same machine."""
    return f'<p class="wbc-hint">Signed in as <b>{escape(name)}</b> · <a href="logout">sign out</a></p>'


# ---- pieces


def _short(cell: Cell) -> str:
    """Three letters for a box: they tell the classes apart without colours. A question mark while the cell waits."""
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


def _button(
    action: str,
    number: int,
    content: str,
    *,
    label: str = "",
    key: str = "",
    value: str = "",
    pressed: bool | None = None,
    primary: bool = False,
    disabled: bool = False,
    confirm: str = "",
) -> str:
    """A button that the page's script turns into an event.

    Args:
        content: HTML.
        label: What a screen reader says, where that is not the content.
        key: Of the keyboard, that does the same.
        pressed: Whether it is the one that holds, of several; None of a button that just does something.
        confirm: What the browser asks first.
    """
    attributes = {
        "class": "wbc-button wbc-primary" if primary else "wbc-button",
        "data-action": action,
        "data-number": str(number),
        "data-value": value,
        "data-focus": "accept" if primary else f"{action}-{value or label}",
        "aria-label": label,
        "data-key": key,
        "aria-keyshortcuts": key,
        "data-confirm": confirm,
    }
    written = "".join(f' {name}="{escape(text)}"' for name, text in attributes.items() if text)
    if pressed is not None:
        written += f' aria-pressed="{str(pressed).lower()}"'
    written += " disabled" if disabled else ""
    hint = f"<kbd>{key.upper()}</kbd>" if key else ""
    return f'<button type="button"{written}>{content}{hint}</button>'
