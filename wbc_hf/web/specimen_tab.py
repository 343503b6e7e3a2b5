"""The tab of a specimen: fields in, cells reviewed by a person, a differential out."""

import base64
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import gradio as gr

from wbc_hf.data import read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Neighbour, ReferenceCells
from wbc_hf.reports import EXPORTS, Export, file_name
from wbc_hf.smear import Cell, ChangedMeanwhileError, Picture, ReferenceRanges, differentiate_cells
from wbc_hf.web.examples import FIELD_CREDIT, example_fields
from wbc_hf.web.fields import parse_leucocytes
from wbc_hf.web.intake import Intake
from wbc_hf.web.keeping import Keeping
from wbc_hf.web.laboratory_panel import LaboratoryPanel
from wbc_hf.web.loading_back import is_document, load_back
from wbc_hf.web.remarks import Remark, RemarkKind, render_remarks
from wbc_hf.web.rendering import example_buttons, plural, read_text, render, render_problem
from wbc_hf.web.session import Session, Sessions
from wbc_hf.web.slides import SlideFolder, check_given, find_rest, render_slides
from wbc_hf.web.specimen_html import (
    describe_gallery,
    make_thumbnails,
    render_card,
    render_differential,
    render_field,
    render_gallery_frame,
    render_legend,
    render_pager,
)
from wbc_hf.web.uploads import AT_ONCE, MAX_PICTURES, SPECIMENS, Upload, read_uploads

FORGOTTEN = "This specimen was not touched for long and is forgotten: give its photographs once more"

FIND_OUT, FIELDS, CELLS = "Find out", "Whole fields", "One cell each"
# Leucocytes, counted or waiting: a manual differential ends at 100 or 200.
ALL = "the end"
GOALS = {ALL: None, "100 cells": 100, "200 cells": 200, "500 cells": 500}
IS_FIELD = {FIND_OUT: None, FIELDS: True, CELLS: False}
# Seconds between two looks while pictures are read: until the first is there, and afterwards, when what is sent grows
# with the specimen.
LOOK_EVERY, SHOW_EVERY = 0.03, 0.5
OTHERWISE = "{count} of {total} look like {seen}, but were read as “{chosen}”."


class SpecimenTab:
    """The tab of a specimen, to be made within a `gr.Tab` of the page.

    Args:
        page: The page.
        sessions: Where the specimens are.
        ranges: Reference ranges of the laboratory.
        panel: For what concerns the laboratory of the photographs.
        keeping: The work list and sign-off.
        references: Cells to compare the one under review with, or None.
        slides: Whole slides on the server that visitors may read, or None.
    """

    def __init__(
        self,
        page: gr.Blocks,
        sessions: Sessions,
        ranges: ReferenceRanges,
        panel: LaboratoryPanel,
        keeping: Keeping,
        references: ReferenceCells | None,
        slides: SlideFolder | None,
    ):
        self.sessions, self.ranges, self.references, self.folder = sessions, ranges, references, slides
        self.panel, self.keeping = panel, keeping
        self.examples = example_fields()
        self.session = gr.State()
        self._lay_out()
        self._listen(page)

    def _lay_out(self) -> None:
        actions = read_text("actions.js")
        self.keeping.lay_out_list()
        with gr.Row(equal_height=False, elem_classes=["wbc-row", "wbc-intake"]):
            with gr.Column(scale=4):
                self.files = gr.File(
                    label=f"Photographs, a folder or a ZIP file, up to {MAX_PICTURES:,}, or a slide",
                    file_count="multiple",
                    height=150,
                    elem_classes=["wbc-upload", "wbc-many"],
                )
            with gr.Column(scale=4):
                with gr.Row():
                    self.kind = gr.Radio(
                        [FIND_OUT, FIELDS, CELLS],
                        value=FIND_OUT,
                        label="Each photograph shows",
                        elem_classes="wbc-kind",
                        scale=4,
                        min_width=370,
                    )
                    self.goal = gr.Dropdown(list(GOALS), value=ALL, label="Stop at", scale=1, min_width=140)
                with gr.Row(visible=self.folder is not None, elem_classes="wbc-slides"):
                    self.slide = gr.Dropdown(
                        [],
                        label="A slide on the server",
                        allow_custom_value=True,
                        scale=4,
                        min_width=240,
                    )
                    self.read_slide = gr.Button("Read it", size="sm", scale=1, min_width=90)
                self.panel.lay_out_menu()
                self.example = example_buttons(
                    "Or try it on",
                    ["An example smear"],
                    [read_image(self.examples[0].source)],
                    FIELD_CREDIT,
                    elem_classes="wbc-one-example",
                )
        self.progress, self.notice = gr.HTML(), gr.HTML()
        self.stop = gr.Button("Stop reading", size="sm", visible=False, elem_classes="wbc-stop")
        self.go_on = gr.Button("Read on", size="sm", visible=False, elem_classes=["wbc-stop", "wbc-go-on"])
        self.otherwise = gr.Button("", size="sm", visible=False, elem_classes=["wbc-stop", "wbc-otherwise"])
        self.panel.lay_out()
        self.map = gr.HTML()
        with gr.Column(visible=False, elem_classes="wbc-specimen") as self.work:
            with gr.Row(equal_height=False, elem_classes="wbc-row"):
                with gr.Column(scale=5):
                    self.pager = gr.HTML(js_on_load=actions)
                    with gr.Column(elem_classes="wbc-viewer"):
                        self.viewer = gr.HTML(
                            render("viewer"),
                            js_on_load=read_text("viewer.js"),
                            server_functions=[picture_sender(self.sessions)],
                        )
                        self.field = gr.HTML(js_on_load=actions)
                    gr.HTML(render_legend(self.sessions.types), js_on_load=read_text("keys.js"))
                with gr.Column(scale=4):
                    self.card = gr.HTML(js_on_load=actions)
                    self.table = gr.HTML()
            # Its value is JSON, which the script draws: the frame holds no `${value}`, so Gradio renders it once.
            frame = render_gallery_frame(self.sessions.types)
            self.gallery = gr.HTML("", html_template=frame, js_on_load=read_text("gallery.js"))
            with gr.Row():
                self.name = _text_field("Specimen", "number or name", 80)
                self.leucocytes = _text_field("Leucocytes, 10⁹/l", "6.4", 20)
                self.reviewer = _text_field("Reviewed by", "your name", 80)
            self.signed_in = gr.HTML()
            self.keeping.lay_out_signing()
            with gr.Row(elem_classes="wbc-exports", elem_id="wbc-reports"):
                self.exports = [gr.Button(export.title, size="sm", min_width=200) for export in EXPORTS]
            self.refusal = gr.HTML()
        self.sent, self.thumbnails = gr.JSON(visible=False), gr.JSON(visible=False)
        self.views = [self.pager, self.field, self.card, self.gallery, self.table]

    def _listen(self, page: gr.Blocks) -> None:
        hidden = AT_ONCE | {"show_progress": "hidden"}
        reading = SPECIMENS | {"api_visibility": "private", "show_progress": "hidden"}
        results = [self.session, self.files, self.kind, self.progress, self.stop, self.go_on, self.otherwise]
        results += [self.work, self.map, *self.views, *self.panel.outputs, *self.keeping.outputs]
        opened = [*results, self.notice, self.name, self.leucocytes]
        choices = [self.kind, self.goal, self.leucocytes]
        uploading = reading | {"preprocess": False, "trigger_mode": "multiple"}
        self.files.upload(self.on_files, [self.files, *choices], opened, **uploading)
        self.read_slide.click(self.on_slide, [self.slide, *choices], results, **reading)
        self.example.click(self.on_example, [self.session, self.leucocytes], results, **reading)
        self.go_on.click(self.on_go_on, [self.session, *choices], results, **reading)
        self.otherwise.click(self.on_otherwise, [self.session, self.leucocytes], results, **reading)
        self.stop.click(self.on_stop, self.session, self.stop, **AT_ONCE)
        for component in (self.pager, self.viewer, self.field, self.card, self.gallery):
            component.click(
                self.on_action,
                [self.session, self.leucocytes, self.reviewer],
                [*opened, self.sent, self.thumbnails],
                # The gallery sends one change after another by itself.
                trigger_mode="multiple" if component is self.gallery else "once",
                **hidden,
            )
        self.gallery.input(self.on_thumbnails, self.session, self.thumbnails, trigger_mode="multiple", **hidden).then(
            None, self.thumbnails, None, js="given => wbc.takeThumbnails(given)"
        )
        self.leucocytes.change(self.on_leucocytes, [self.session, self.leucocytes], self.table, **hidden)
        for button in self.exports:
            sending = button.click(
                self.on_export,
                [self.session, self.name, self.leucocytes, self.reviewer],
                [self.sent, self.refusal],
                show_progress_on=button,
                **AT_ONCE,
            )
            # The browser saves what the server sent, and it is not kept in Gradio's session either.
            sending.then(None, self.sent, None, js="file => file && wbc.save(file)").then(
                lambda: None, None, self.sent, **AT_ONCE
            )
        known = [self.name, self.leucocytes, self.reviewer]
        self.keeping.listen(page, self.session, known, opened, self.show_opened, self._refresh)
        self.panel.listen(page, self.session, self.leucocytes, [self.work, *self.views], self._show)
        page.load(self.on_load, None, [self.reviewer, self.signed_in], **AT_ONCE)
        if self.folder is not None:
            page.load(self.on_load_slides, None, self.slide, **AT_ONCE)

    def on_load(self, request: gr.Request) -> tuple[gr.Textbox, str]:
        """Fill in the name of a visitor who signed in: they review under that name and no other."""
        if not request.username:
            return gr.Textbox(), ""
        return gr.Textbox(value=request.username, interactive=False), render("signed_in", name=request.username)

    def on_load_slides(self) -> gr.Dropdown:
        """List the slides that are in the server's folder now."""
        return gr.Dropdown(choices=[] if self.folder is None else self.folder.names(), value=None)

    def on_slide(self, name: str | None, kind: str, goal: str, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        """Read a slide of the server's folder into the visitor's specimen."""
        try:
            if self.folder is None:
                raise WbcError("This page reads no slides of the server: start it with --slides FOLDER.")
            path = self.folder.find(str(name or ""))
        except WbcError as error:
            yield {self.progress: render_problem("Not read", str(error))}
            return
        yield from self._read([Upload(str(path), str(name))], kind, goal, leucocytes, request)

    def on_files(
        self, given: list[dict] | None, kind: str, goal: str, leucocytes: str, request: gr.Request
    ) -> Iterator[dict]:
        """Read files into the visitor's specimen, or load back what "Everything (JSON)" wrote."""
        uploads = read_uploads(given)
        if any(map(is_document, uploads)):
            yield self._load_back(uploads, request)
            return
        yield from self._read(list(map(check_given, uploads)), kind, goal, leucocytes, request)

    def on_go_on(
        self, session: Session | None, kind: str, goal: str, leucocytes: str, request: gr.Request
    ) -> Iterator[dict]:
        """Read the photographs that were left when reading stopped, up to the next goal."""
        if session is None:
            yield {self.progress: render_problem("Forgotten", FORGOTTEN), self.go_on: gr.Button(visible=False)}
            return
        try:
            session.check_room()
        except WbcError as error:
            # One sentence, and not one for each of what is left.
            yield {self.progress: render_problem("Not read", str(error))} | self._visible_parts(session)
            return
        unread, session.unread = session.unread, []
        yield from self._read(unread, kind, goal, leucocytes, request)

    def on_otherwise(self, session: Session | None, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        """Read the pictures that look like something else than was chosen as what they look like."""
        if session is None:
            yield {self.progress: render_problem("Forgotten", FORGOTTEN), self.otherwise: gr.Button(visible=False)}
            return
        kind, uploads = _look_like(session), session.read_otherwise()
        # Whatever is given after them is read as what it looks like.
        yield {self.kind: FIND_OUT} | self._visible_parts(session)
        yield from self._read(uploads, kind, ALL, leucocytes, request)

    def on_example(self, session: Session | None, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        """Read the example fields, unless there are photographs that they would be counted with."""
        names = {example.name for example in self.examples}
        pictures = session.specimen.pictures if session else ()
        if any(picture.name not in names for picture in pictures):
            yield {self.progress: render_problem("Not read", "example fields would be counted with your own")}
            return
        yield from self._read(self.examples, FIELDS, ALL, leucocytes, request)

    def on_stop(self, session: Session | None) -> gr.Button:
        """Stop reading. The current picture is finished and kept; `_read` says so."""
        if session is not None:
            session.stopped = True
        return gr.Button(visible=False)

    def on_action(
        self, event: gr.EventData, session: Session | None, leucocytes: str, reviewer: str, request: gr.Request
    ) -> dict:
        """Do what a button of the specimen says."""
        if session is None:
            return {self.progress: render_problem("Forgotten", FORGOTTEN), self.work: gr.Column(visible=False)}
        if event.action == "clear":
            # Also what is shown: Gradio keeps the last value of every component.
            emptied = dict.fromkeys([self.progress, self.notice, self.map, *self.views], "")
            unsent = dict.fromkeys([self.sent, self.thumbnails])
            renewed = self.sessions.renew(request.session_hash)
            parts = self._visible_parts(renewed) | self.keeping.state_of(renewed) | self.panel.state_with_menu(renewed)
            return {self.session: renewed} | unsent | emptied | parts
        try:
            with session.lock:  # no other event shows the ticket without the change
                session.ticket = getattr(event, "ticket", session.ticket)
                session.act(event.action, event.number, event.value, request.username or reviewer)
        except WbcError as error:
            title = "Look once more" if isinstance(error, ChangedMeanwhileError) else "Not done"
            told = render_problem(title, str(error)) + _told_of_others(session)
            return {self.notice: told} | self._show_what_is_there(session, leucocytes)
        shown = self._show(session, leucocytes) | self.panel.state(session)
        return {self.notice: _told_of_others(session)} | shown

    def on_thumbnails(self, event: gr.EventData, session: Session | None) -> dict | None:
        """Make the images of cells that the browser has not got yet."""
        return None if session is None else make_thumbnails(session, event.numbers)

    def on_leucocytes(self, session: Session | None, leucocytes: str) -> str:
        """Render the differential with another total leucocyte count."""
        return render_table(session, self.ranges, leucocytes) if session else ""

    def on_export(
        self, event: gr.EventData, session: Session | None, name: str, leucocytes: str, reviewer: str
    ) -> tuple[dict | None, str]:
        """Make the file of an export button."""
        if session is None:
            return None, render_problem("Forgotten", FORGOTTEN)
        export = next(export for button, export in zip(self.exports, EXPORTS, strict=True) if button is event.target)
        who = session.user or reviewer
        try:
            return make_file(session, export, self.ranges, name=name, leucocytes=leucocytes, reviewer=who), ""
        except WbcError as error:
            return None, render_problem("Not saved", str(error))

    def _load_back(self, uploads: Sequence[Upload], request: gr.Request) -> dict:
        try:
            session = self.sessions.of(request.session_hash)
            said = load_back(session, uploads, request.username or "")
        except WbcError as error:
            return {self.files: None, self.progress: render_problem("Not loaded", str(error))}
        listed = {self.keeping.list: self.keeping.render_list(user=request.username or "")}
        return {self.files: None} | self.show_opened(session, said) | listed

    def show_opened(self, session: Session, said: str) -> dict:
        """Show a specimen that was loaded, with the fields that a person filled in."""
        rest, sentences = find_rest(session.specimen, self.folder)
        session.unread = [*rest]
        progress = render("note", text=" ".join((said, *sentences)))
        return {self.session: session, self.progress: progress} | self._refresh(session)

    def _refresh(self, session: Session) -> dict:
        """Show all of the specimen that is open as it is now, with its fields."""
        leucocytes = session.specimen.about.text_of("leucocyte_count")
        state: dict = {self.notice: "", self.map: render_slides(session.specimen)}
        state |= self.keeping.state_of(session) | self.panel.state(session)
        return state | self._visible_parts(session) | self._show(session, leucocytes)

    def _read(
        self,
        uploads: Sequence[Upload | UnreadableImageError],
        kind: str,
        goal: str,
        leucocytes: str,
        request: gr.Request,
    ) -> Iterator[dict]:
        """Read pictures one after the other, up to a goal, and show each state of the specimen in between."""
        try:
            session = self.sessions.of(request.session_hash)
        except WbcError as error:
            yield {self.files: None, self.progress: render_problem("Not read", str(error))}
            return
        before = len(session.specimen.pictures)
        intake = Intake(session, uploads, IS_FIELD[kind], GOALS[goal])
        with session.lock:
            session.readings, session.stopped, session.doubtful = session.readings + 1, False, []
        try:
            yield {self.session: session, self.files: None} | self._visible_parts(session)
            yield from self._read_and_show(session, intake, leucocytes, request)
        finally:
            with session.lock:
                session.readings -= 1
        if self.sessions.of(request.session_hash) is session:
            pictures = session.specimen.pictures[before:]
            session.doubtful = doubtful_pictures(pictures, kind)
            remarks = intake.remarks + (remarks_of_minority(pictures) if kind == FIND_OUT else [])
            notes = [*intake.notes]
            if count := len(session.doubtful):
                seen = "pictures of one cell each" if kind == FIELDS else "whole fields"
                notes.append(OTHERWISE.format(count=count, total=len(pictures), seen=seen, chosen=kind))
            said = render_remarks(remarks, intake.read, notes)
            self.panel.record(session)
            with session.lock:
                session.start_review()
            shown = self._show(session, leucocytes) if session.shows_picture else {}
            shown |= {self.map: render_slides(session.specimen)}
            yield {self.progress: said} | self._visible_parts(session) | shown | self.panel.state(session)

    def _read_and_show(self, session: Session, intake: Intake, leucocytes: str, request: gr.Request) -> Iterator[dict]:
        """Read in a thread of its own, and show the specimen now and then; stop where nobody looks any more."""
        with ThreadPoolExecutor(1, thread_name_prefix="intake") as threads:
            reading, shown = threads.submit(intake.run), -1
            try:
                while wait([reading], SHOW_EVERY if shown > 0 else LOOK_EVERY).not_done:
                    state: dict = {}
                    if (look := intake.look) is None:
                        if intake.done == shown or not intake.given:
                            continue
                        shown, total = intake.done, len(intake.given)
                        look = f"Picture {shown + 1} of {total}: {intake.current}", shown, total
                        if session.shows_picture and self.sessions.of(request.session_hash) is session:
                            state |= self._show(session, leucocytes)
                        if session.specimen.slides:
                            state |= {self.map: render_slides(session.specimen)}
                    text, done, total = look
                    progress = render("progress", text=text, done=done, total=total)
                    yield {self.progress: progress} | self._visible_parts(session) | state
                reading.result()
            finally:
                intake.abandoned = True

    def _visible_parts(self, session: Session) -> dict:
        """Say what is visible while pictures are read. Every state that `_read` yields must, also if nothing changed.

        Gradio sends the difference from the state before, and its page (6.31) applies that to the object that it may
        not have shown yet. Where answers come faster than the page shows them, because it is still loading or a proxy
        holds them back, "visible" in one state and not in the next is never seen, and the specimen stays hidden.
        """
        of_slide = any(isinstance(it, Upload) and it.field is not None for it in session.unread)
        return {
            self.stop: gr.Button(visible=session.readings > 0 and not session.stopped),
            self.go_on: gr.Button(
                f"Read the other {plural(len(session.unread), 'field' if of_slide else 'photograph')}",
                visible=session.readings == 0 and bool(session.unread),
            ),
            self.otherwise: gr.Button(
                f"Read {'it' if len(session.doubtful) == 1 else 'them'} as {_look_like(session).lower()}",
                visible=session.readings == 0 and bool(session.doubtful),
            ),
            self.work: gr.Column(visible=bool(session.specimen.pictures)),
        }

    def _show_what_is_there(self, session: Session, leucocytes: str) -> dict:
        """Show the specimen, or its gallery alone: one that was deleted has no pictures any more."""
        try:
            return self._show(session, leucocytes) if session.shows_picture else {}
        except WbcError:
            return {self.gallery: describe_gallery(session)}

    def _show(self, session: Session, leucocytes: str) -> dict:
        return dict(zip(self.views, render_views(session, self.ranges, leucocytes, self.references), strict=True))


def _told_of_others(session: Session) -> str:
    """Render what others did meanwhile; "" where they did nothing."""
    said = session.meanwhile.said
    return render("note", text=f"Meanwhile, by others: {said}.") if said else ""


def picture_sender(sessions: Sessions) -> Callable[[dict], str | None]:
    """Make the function by which a visitor's page asks for a picture, so that it is sent once and not at each review.

    It answers the JPEG in base64, or None where there is no such picture.
    """

    def send_picture(asked: dict) -> str | None:
        session = sessions.find(str(asked.get("secret")))
        number, pictures = asked.get("number"), session.specimen.pictures if session else ()
        if session is None or not isinstance(number, int) or not 1 <= number <= len(pictures):
            return None
        content = session.full_pictures.get(number) if asked.get("full") else pictures[number - 1].preview
        return None if content is None else base64.b64encode(content).decode()

    return send_picture


def doubtful_pictures(pictures: Sequence[Picture], chosen: str) -> list[int]:
    """Numbers of the pictures that look like something else than a person chose; none where these are not most."""
    found = [picture.number for picture in pictures if picture.read_otherwise]
    return [] if chosen == FIND_OUT or 2 * len(found) <= len(pictures) else found


def _look_like(session: Session) -> str:
    """What the doubtful pictures are to be read as: the other kind than they were."""
    pictures = session.specimen.pictures
    return CELLS if any(pictures[number - 1].is_field for number in session.doubtful) else FIELDS


def remarks_of_minority(pictures: Sequence[Picture]) -> list[Remark]:
    """Name the pictures that were read otherwise than most of those given with them."""
    cells = [picture for picture in pictures if not picture.is_field]
    fields = [picture for picture in pictures if picture.is_field]
    if not cells or not fields:
        return []
    kind, few = (RemarkKind.AS_CELL, cells) if len(cells) <= len(fields) else (RemarkKind.AS_FIELD, fields)
    return [Remark(kind, picture.name, f"was {kind.value}") for picture in few]


def render_views(
    session: Session, ranges: ReferenceRanges, leucocytes: str, references: ReferenceCells | None = None
) -> tuple[str, str, str, str, str]:
    """Render pager, field, chosen cell, gallery (JSON) and differential as they are now."""
    with session.lock:
        view = session.view
        return (
            render_pager(view),
            render_field(view),
            render_card(view, _neighbours(session, view.cell, references)),
            describe_gallery(session),
            render_table(session, ranges, leucocytes),
        )


def _neighbours(session: Session, cell: Cell | None, references: ReferenceCells | None) -> tuple[Neighbour, ...]:
    """The reference cells that are most similar to a cell; none of what does not look like a cell."""
    if cell is None or references is None or cell.prediction.status == "not_a_cell":
        return ()
    if cell.number not in session.neighbours:
        session.neighbours[cell.number] = references.nearest(cell.views[0])
    return session.neighbours[cell.number]


def render_table(session: Session, ranges: ReferenceRanges, leucocytes: str) -> str:
    """Render the differential as it is now, and what is wrong with the total leucocyte count, if anything."""
    view, total, problem = session.view, None, ""
    try:
        total = parse_leucocytes(leucocytes)
    except WbcError as error:
        problem = str(error)
    return render_differential(differentiate_cells(view.cells, ranges, total, session.types), view, problem)


def make_file(
    session: Session, export: Export, ranges: ReferenceRanges, *, name: str, leucocytes: str, reviewer: str
) -> dict[str, str]:
    """Make an export that the browser saves: its `name`, its media `type`, and its `content` in base64.

    A reviewer's name that is given only now holds for the earlier reviews without a name as well.

    Raises:
        WbcError: The leucocyte count is not allowed, or reviewed cells are asked for and there are none.
    """
    total = parse_leucocytes(leucocytes)
    session.meanwhile.describe(reviewer, name=name.strip(), leucocyte_count=total)
    session.specimen.credit(reviewer)
    snapshot = session.specimen.snapshot(session.model, ranges, session.types)
    content = base64.b64encode(export.make(snapshot)).decode()
    return {"name": file_name(snapshot, export), "type": export.media_type, "content": content}


def _text_field(label: str, placeholder: str, max_length: int) -> gr.Textbox:
    return gr.Textbox("", label=label, placeholder=placeholder, max_length=max_length, min_width=150)
