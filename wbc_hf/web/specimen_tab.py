"""The tab of a specimen: fields in, cells checked by a person, a differential out."""

import base64
from collections.abc import Callable, Iterator, Sequence

import gradio as gr
import numpy as np
from PIL import Image

from wbc_hf.data import paint_field
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.reports import EXPORTS, Export, file_name
from wbc_hf.smear import CellState, ReferenceRanges, check_leucocyte_count, count_cells, differentiate
from wbc_hf.web.cell_html import render_examples
from wbc_hf.web.html import INDEX_JS, render_problem
from wbc_hf.web.session import Session, Sessions
from wbc_hf.web.specimen_html import (
    render_card,
    render_differential,
    render_field,
    render_gallery,
    render_legend,
    render_pager,
    render_progress,
    render_signed_in,
)
from wbc_hf.web.uploads import MAX_FILE_SIZE, MAX_FILES, SPECIMENS, Upload, read_or_error, read_uploads

FORGOTTEN = "This specimen was not touched for long and is forgotten: give its photographs once more"

PAINTED = "Painted field"
FIELDS, CELLS = "Whole fields", "One cell each"

# A painted smear to try the page with: in each field about as many of each class as in healthy blood, and of the
# rare ones more, so that they are met.
EXAMPLE_SEEDS = (21, 22, 23)
EXAMPLE_CELLS = 8
EXAMPLE_SHARES = (0.05, 0.1, 0.27, 0.1, 0.48)

# Two readings go on side by side, so that one visitor with many pictures does not hold up all others.
READING = SPECIMENS | {"api_visibility": "private", "show_progress": "hidden"}
# Not queued: a queued event that comes just when the one before is answered is lost (Gradio 6.31: the browser closes
# the stream of answers, and with a stream the server drops what waits in it).
AT_ONCE = {"queue": False, "api_visibility": "private"}

# One handler for all buttons: each names its action and the number of the cell or picture that it is about. While a
# missed cell is to be pointed at, a click on the field is its place.
ACTIONS_JS = """
element.addEventListener('click', event => {
    const place = wbc.pointedAt(event);
    if (place) { trigger('click', place); return; }
    const button = event.target.closest('[data-action]');
    if (!button || (button.dataset.confirm && !confirm(button.dataset.confirm))) return;
    const {action, number, value} = button.dataset;
    wbc.remember(button);
    trigger('click', {action, number: Number(number), value: value ?? null});
});
watch('value', () => wbc.refocus());
"""

# Saves what the server sent, so that no file of somebody's is left behind there.
SAVE_JS = "file => file && wbc.save(file)"


# ---- what the tab does, without the page


def take_in(session: Session, upload: Upload, *, is_field: bool) -> str:
    """Read a picture, and say what a person should know of it, or "".

    The first of a specimen that shows a cell is laid under the lens. Later ones are not: whoever reviews cells by then
    is not to be led away from them.

    Raises:
        WbcError: The specimen has no room for it.
    """
    session.check_room(1)
    image = read_or_error(upload)
    if isinstance(image, UnreadableImageError):
        return f"{image.name} {image.reason}"
    picture = session.counter.add_image(image, upload.name, whole_field=is_field)
    cells = [cell for cell in session.specimen.cells if cell.picture == picture.number]
    with session.lock:
        if session.view.picture is None or (session.view.cell is None and cells):
            session.show_picture(picture.number)
    if not cells:
        return f"{upload.name}: no leucocyte was found in it"
    states = {cell.state for cell in cells}
    if CellState.DUPLICATE in states and states <= {CellState.DUPLICATE, CellState.CUT}:
        return f"{upload.name}: shows nothing that was not seen before, so none of its cells is counted again"
    return ""


def act(session: Session, action: str, number: int, value: str | None, reviewer: str) -> None:
    """Do what a button of the page says.

    Args:
        session: Whose button it is.
        action: "picture" or "cell", to show one; "gallery", to choose what it shows; "label", to say what a cell is;
            "withdraw", to take that back; "add", for a cell that was not found; "remove", to take a picture out.
        number: Of the picture or cell.
        value: What the gallery shows, the class of the cell, where None is none of the five, or "x,y" of a new cell.
        reviewer: Who says so.

    Raises:
        WbcError: What is meant is not there, or cannot be said of it.
    """
    with session.lock:
        _act(session, action, number, value, reviewer)


def _act(session: Session, action: str, number: int, value: str | None, reviewer: str) -> None:
    if action == "picture":
        session.show_picture(number)
    elif action == "cell":
        session.show_cell(number)
    elif action == "gallery":
        session.show_gallery(value)
    elif action == "label":
        session.review(number, value, reviewer)
    elif action == "withdraw":
        session.withdraw(number)
    elif action == "remove":
        session.remove(number)
    elif action == "add":
        session.add_cell(number, value)
    else:
        raise WbcError(f"{action}: no button of the page does this.")


def example_fields() -> list[np.ndarray]:
    """Painted fields to try the page with, RGB (480, 640, 3) uint8."""
    fields = []
    for seed in EXAMPLE_SEEDS:
        labels = np.random.default_rng(seed).choice(len(CLASS_NAMES), EXAMPLE_CELLS, p=EXAMPLE_SHARES)
        fields.append(paint_field(labels, seed=seed).image)
    return fields


def render_views(session: Session, ranges: ReferenceRanges, leucocytes: str) -> tuple[str, str, str, str, str]:
    """Pager, field, chosen cell, gallery and table as they are now."""
    view = session.view
    return (
        render_pager(view),
        render_field(view),
        render_card(view),
        render_gallery(view, session.thumbnails),
        render_table(session, ranges, leucocytes),
    )


def render_table(session: Session, ranges: ReferenceRanges, leucocytes: str) -> str:
    """The differential as it is now; a leucocyte count that cannot be is named under it."""
    view, total, problem = session.view, None, ""
    try:
        total = read_leucocytes(leucocytes)
    except WbcError as error:
        problem = str(error)
    return render_differential(differentiate(count_cells(view.cells), ranges, total), view, problem)


def read_leucocytes(written: str) -> float | None:
    """A total leucocyte count as people write it, with a point or a comma; None of an empty field.

    Raises:
        WbcError: It is no number, or one that `check_leucocyte_count` does not allow.
    """
    if not written.strip():
        return None
    try:
        return check_leucocyte_count(float(written.replace(",", ".")))
    except ValueError as error:
        raise WbcError(f"{written}: is no number. A total leucocyte count is given in 10⁹/l, such as 6.4.") from error


def make_file(
    session: Session, export: Export, ranges: ReferenceRanges, *, name: str, leucocytes: str, reviewer: str
) -> dict[str, str]:
    """An export for the browser to save: its name, its media type, and its content in base64.

    Who gives a name only after reviewing has reviewed under that name.

    Raises:
        WbcError: A leucocyte count that cannot be, or reviewed cells are asked for and there are none.
    """
    session.specimen.name, session.specimen.leucocyte_count = name.strip(), read_leucocytes(leucocytes)
    session.specimen.sign(reviewer)
    record = session.specimen.snapshot(session.model, ranges)
    content = base64.b64encode(export.make(record)).decode()
    return {"name": file_name(record, export), "type": export.media_type, "content": content}


# ---- the tab


def add_specimen_tab(page: gr.Blocks, sessions: Sessions, ranges: ReferenceRanges) -> None:
    """Lay out the tab and say what happens in it; to be called within a `gr.Tab` of the page."""
    painted_fields = example_fields()
    session = gr.State()

    with gr.Row(equal_height=False, elem_classes=["wbc-row", "wbc-intake"]):
        with gr.Column(scale=5):
            files = gr.File(
                label=f"Photographs of one specimen, up to {MAX_FILES}, {MAX_FILE_SIZE.upper()} each",
                file_count="multiple",
                height=150,
                elem_classes="wbc-upload",
            )
        with gr.Column(scale=4):
            kind = gr.Radio([FIELDS, CELLS], value=FIELDS, label="Each photograph shows", elem_classes="wbc-kind")
            painted = gr.HTML(
                render_examples("Or try it on", ["A painted smear"], [Image.fromarray(painted_fields[0])]),
                js_on_load=INDEX_JS,
                elem_classes="wbc-one-example",
            )
    progress, notice = gr.HTML(), gr.HTML()
    stop = gr.Button("Stop reading", size="sm", visible=False, elem_classes="wbc-stop")
    with gr.Column(visible=False, elem_classes="wbc-specimen") as work:
        with gr.Row(equal_height=False, elem_classes="wbc-row"):
            with gr.Column(scale=5):
                pager = gr.HTML(js_on_load=ACTIONS_JS)
                field = gr.HTML(js_on_load=ACTIONS_JS)
                gr.HTML(render_legend())
            with gr.Column(scale=4):
                card = gr.HTML(js_on_load=ACTIONS_JS)
                table = gr.HTML()
        with gr.Row(equal_height=False, elem_classes="wbc-row"):
            with gr.Column(scale=5):
                gallery = gr.HTML(js_on_load=ACTIONS_JS)
            with gr.Column(scale=4):
                with gr.Row():
                    name_field = gr.Textbox(
                        "", label="Specimen", placeholder="number or name", max_length=80, min_width=110
                    )
                    total_field = gr.Textbox(
                        "", label="Leucocytes, 10⁹/l", placeholder="6.4", max_length=20, min_width=110
                    )
                    reviewer_field = gr.Textbox(
                        "", label="Reviewed by", placeholder="your name", max_length=80, min_width=110
                    )
                signed_in = gr.HTML()
                with gr.Row(elem_classes="wbc-exports"):
                    buttons = [gr.Button(export.title, size="sm", min_width=200) for export in EXPORTS]
                refusal = gr.HTML()
    sent = gr.JSON(visible=False)
    views = [pager, field, card, gallery, table]

    def read(uploads: Sequence[Upload], kind: str, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        try:
            session = sessions.of(request.session_hash)
            session.check_room(len(uploads))
        except WbcError as error:
            yield {files: None, progress: render_problem("Not read", str(error))}
            return
        with session.lock:
            session.readings, session.stopped = session.readings + 1, False
        problems = []
        try:
            yield {session: session, files: None, stop: gr.Button(visible=True)}
            for index, upload in enumerate(uploads):
                yield {progress: render_progress(index, len(uploads), upload.name)}
                if problem := take_in(session, upload, is_field=kind == FIELDS):
                    problems.append(problem)
                if session.specimen.pictures and sessions.of(request.session_hash) is session:
                    yield {work: gr.Column(visible=True)} | draw(session, leucocytes)
                if session.stopped:
                    problems.append(f"stopped: {index + 1} of {len(uploads)} pictures were read and are kept")
                    break
        except WbcError as error:
            problems.append(str(error))
        finally:
            with session.lock:
                session.readings -= 1
        if sessions.of(request.session_hash) is session:
            said = "".join(render_problem("Please look", problem) for problem in problems)
            yield {progress: said, stop: gr.Button(visible=session.readings > 0)}

    def draw(session: Session, leucocytes: str) -> dict:
        with session.lock:
            return dict(zip(views, render_views(session, ranges, leucocytes), strict=True))

    def on_files(given: list[dict] | None, kind: str, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        yield from read(read_uploads(given), kind, leucocytes, request)

    def on_example(session: Session | None, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        pictures = session.specimen.pictures if session else ()
        if any(not picture.name.startswith(PAINTED) for picture in pictures):
            yield {progress: render_problem("Not read", "painted fields would be counted with your own")}
            return
        uploads = [Upload(pixels, f"{PAINTED} {number}") for number, pixels in enumerate(painted_fields, start=1)]
        yield from read(uploads, FIELDS, leucocytes, request)

    def on_stop(session: Session | None) -> gr.Button:
        # What is being read just now is finished and kept; `read` says so.
        if session is not None:
            session.stopped = True
        return gr.Button(visible=False)

    def on_action(
        event: gr.EventData, session: Session | None, leucocytes: str, reviewer: str, request: gr.Request
    ) -> dict:
        if session is None:
            return {progress: render_problem("Forgotten", FORGOTTEN), work: gr.Column(visible=False)}
        if event.action == "clear":
            # Also what was drawn: Gradio keeps the last value of all that it shows.
            hidden = {work: gr.Column(visible=False), stop: gr.Button(visible=False), sent: None}
            emptied = dict.fromkeys([progress, notice, name_field, total_field, *views], "")
            return {session: sessions.renew(request.session_hash)} | hidden | emptied
        try:
            act(session, event.action, event.number, event.value, request.username or reviewer)
        except WbcError as error:
            return {notice: render_problem("Not done", str(error))}
        return {notice: ""} | draw(session, leucocytes)

    def on_leucocytes(session: Session | None, leucocytes: str) -> str:
        return render_table(session, ranges, leucocytes) if session else ""

    def saving(export: Export) -> Callable:
        # A function of its own for each: of a `partial`, Gradio does not see that it wants the request.
        def on_export(
            session: Session | None, name: str, leucocytes: str, reviewer: str, request: gr.Request
        ) -> tuple[dict | None, str]:
            if session is None:
                return None, render_problem("Forgotten", FORGOTTEN)
            who = request.username or reviewer
            try:
                return make_file(session, export, ranges, name=name, leucocytes=leucocytes, reviewer=who), ""
            except WbcError as error:
                return None, render_problem("Not saved", str(error))

        return on_export

    def on_load(request: gr.Request) -> tuple[gr.Textbox, str]:
        # Whoever signed in reviews under that name and no other.
        if not request.username:
            return gr.Textbox(), ""
        return gr.Textbox(value=request.username, interactive=False), render_signed_in(request.username)

    results = [session, files, progress, stop, work, *views]
    files.upload(on_files, [files, kind, total_field], results, preprocess=False, trigger_mode="multiple", **READING)
    painted.click(on_example, [session, total_field], results, **READING)
    stop.click(on_stop, session, stop, **AT_ONCE)
    for component in (pager, field, card, gallery):
        component.click(
            on_action,
            [session, total_field, reviewer_field],
            [session, sent, progress, notice, stop, work, name_field, total_field, *views],
            **AT_ONCE,
            show_progress="hidden",
        )
    total_field.change(on_leucocytes, [session, total_field], table, **AT_ONCE, show_progress="hidden")
    for button, export in zip(buttons, EXPORTS, strict=True):
        sending = button.click(
            saving(export),
            [session, name_field, total_field, reviewer_field],
            [sent, refusal],
            show_progress_on=button,
            **AT_ONCE,
        )
        # What was sent is not kept in the session either.
        sending.then(None, sent, None, js=SAVE_JS).then(lambda: None, None, sent, **AT_ONCE)
    page.load(on_load, None, [reviewer_field, signed_in], **AT_ONCE)
