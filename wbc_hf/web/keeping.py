"""The part of the page that keeps specimens: the work list, fields of a specimen, sign-off, a second reading."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import gradio as gr

from wbc_hf.errors import WbcError
from wbc_hf.smear import (
    NONE_OF_FIVE,
    Agreement,
    ChangedMeanwhileError,
    ReferenceRanges,
    Specimen,
    amend,
    compare_readers,
    open_points,
    sign,
)
from wbc_hf.web.fields import parse_leucocytes
from wbc_hf.web.rendering import read_text, render, render_problem
from wbc_hf.web.roles import Roles
from wbc_hf.web.session import Session, Sessions
from wbc_hf.web.uploads import AT_ONCE

if TYPE_CHECKING:
    from wbc_hf.store import KeptSpecimen, SpecimenStore, WorkItem

SHOWN = 30  # lines of the work list
EVERY_STATE = "every state"
STATES = (EVERY_STATE, "new", "in review", "signed")
FIELDS = ("patient", "order", "slide", "comment")
WRITTEN = ("name", "leucocyte_count", *FIELDS)


class Keeping:
    """The work list and what belongs to signing, to be laid out within the tab of a specimen.

    Args:
        sessions: Of the visitors.
        ranges: Reference ranges of the laboratory.
        store: Where specimens are kept; None where they are not, and nothing but signing is offered.
        roles: What users may do; None for everything.
        ask_after: After how long unsigned specimens are asked about.
    """

    def __init__(
        self,
        sessions: Sessions,
        ranges: ReferenceRanges,
        store: "SpecimenStore | None",
        roles: Roles | None,
        ask_after: timedelta,
    ):
        self.sessions, self.ranges, self.store = sessions, ranges, store
        self.roles, self.ask_after = roles or Roles(), ask_after

    def lay_out_list(self) -> None:
        """Add the work list; nothing is seen of it without a store."""
        self.opened = gr.Accordion("Work list", open=False, visible=self.store is not None, elem_classes="wbc-work")
        with self.opened:
            with gr.Row():
                self.words = gr.Textbox("", label="Find", placeholder="number, name, patient", max_length=80, scale=4)
                self.state = gr.Dropdown(list(STATES), value=EVERY_STATE, label="State", scale=1, min_width=140)
            self.list = gr.HTML("", js_on_load=read_text("actions.js"))

    def lay_out_signing(self) -> None:
        """Add the fields of a specimen and the sign-off."""
        with gr.Accordion("Patient, order, signature", open=False, elem_classes="wbc-signing"):
            with gr.Row():
                self.fields = [
                    gr.Textbox("", label=name.capitalize(), max_length=500 if name == "comment" else 80, min_width=110)
                    for name in FIELDS
                ]
            with gr.Row():
                self.reason = gr.Textbox("", label="Reason for signing or amending", max_length=500, scale=4)
                self.sign = gr.Button("Sign", size="md", variant="primary", scale=1, min_width=110)
                self.amend = gr.Button("Amend", size="md", scale=1, min_width=110, visible=False)
                self.second = gr.Button("Second reading", size="md", scale=1, min_width=110, visible=False)
            self.signed = gr.HTML()
        self.outputs = [self.list, *self.fields, self.reason, self.sign, self.amend, self.second, self.signed]

    def listen(
        self,
        page: gr.Blocks,
        session: gr.State,
        known: list[gr.Textbox],
        results: list[gr.components.Component],
        show_opened: Callable[[Session, str], dict],
        refresh: Callable[[Session], dict],
    ) -> None:
        """Connect fields and buttons.

        Args:
            page: The page.
            session: The visitor's.
            known: Fields of the name, the total leucocyte count and the reviewer.
            results: Everything that `show_opened` renders.
            show_opened: Shows a specimen that was opened, and a note.
            refresh: Shows the specimen that is open as it is now.
        """
        self._show_opened, self._refresh = show_opened, refresh
        given = [session, *known, *self.fields]
        self._written = dict(zip(WRITTEN, (*known[:2], *self.fields), strict=True))
        changed = [*results, *self.outputs]
        hidden = AT_ONCE | {"show_progress": "hidden"}
        for field in self._written.values():
            field.blur(self.on_field, given, [self.signed, *self._written.values()], **hidden)
        self.sign.click(self.on_sign, [*given, self.reason], changed, **AT_ONCE)
        self.amend.click(self.on_amend, [*given, self.reason], changed, **AT_ONCE)
        if self.store is None:
            return
        self.second.click(self.on_second_reading, session, changed, **AT_ONCE)
        found = [self.words, self.state]
        self.list.click(self.on_list, [session, *found], changed, **hidden)
        for change in (self.words.change, self.state.input, self.opened.expand, page.load):
            change(self.on_find, found, self.list, **hidden)

    # ---- the work list

    def on_find(self, words: str, state: str, request: gr.Request) -> str:
        """List what is found."""
        return self.render_list(words, state, request.username or "")

    def on_list(
        self, event: gr.EventData, session: Session | None, words: str, state: str, request: gr.Request
    ) -> dict:
        """Open or delete a specimen of the list."""
        assert self.store is not None
        user, key = request.username or "", str(event.value)
        try:
            if event.action == "open":
                specimen = self.store.open(key)
                self.roles.check_see(user, specimen.owner)
                session = session or self.sessions.of(request.session_hash)
                session.take(specimen)
                return self._show_opened(session, f"Opened {specimen.about.name or 'a specimen without a name'}.")
            if event.action == "delete":
                self._delete(key, user, session)
        except WbcError as error:
            return {self.list: render_problem("Not done", str(error)) + self.render_list(words, state, user)}
        return {self.list: self.render_list(words, state, user)}

    def render_list(self, words: str = "", state: str = EVERY_STATE, user: str = "") -> str:
        """Render the specimens that a user may see, those that changed last first."""
        if self.store is None:
            return ""
        from wbc_hf.store import State

        try:
            found = self.store.find(
                words, None if state == EVERY_STATE else State(state), self.roles.only_of(user), most=SHOWN
            )
        except WbcError as error:
            return render_problem("Not read", str(error))
        return render(
            "work_list",
            items=found.items,
            total=found.total,
            old=datetime.now(UTC) - self.ask_after,
            days=self.ask_after.days,
            fault=self.store.reading_only,
        )

    def _delete(self, key: str, user: str, session: Session | None) -> None:
        assert self.store is not None
        # What it is deleted for holds until it is: nobody signs it in between.
        self.store.delete(key, lambda it: self.roles.check_delete(user, it.owner, signed=was_signed(it)))
        if session is not None and getattr(session.specimen, "key", None) == key:
            session.take(session.new_specimen())

    # ---- fields and signing

    def on_field(self, session: Session | None, name: str, leucocytes: str, reviewer: str, *fields: str) -> dict:
        """Keep what a person wrote into the fields of a specimen; show what somebody else wrote there meanwhile."""
        if session is None or not session.specimen.pictures:
            return {self.signed: ""}
        try:
            with session.lock:
                self._describe(session, name, leucocytes, reviewer, fields)
        except ChangedMeanwhileError as error:
            about, given = session.specimen.about, (name, leucocytes, *fields)
            now = {it: about.text_of(it) for it in WRITTEN}
            changed = {it: now[it] for it, value in zip(WRITTEN, given, strict=True) if value.strip() != now[it]}
            problem = render_problem("Look once more", str(error))
            return {self.signed: problem} | {self._written[it]: text for it, text in changed.items()}
        except WbcError as error:
            return {self.signed: render_problem("Not kept", str(error))}
        return {self.signed: self._say(session)}

    def on_sign(self, session: Session | None, name: str, leucocytes: str, reviewer: str, *rest: str) -> dict:
        """Sign, unless something stands against it that no comment explains."""
        *fields, reason = rest

        def act(session: Session, who: str) -> None:
            _check_seen(session, session.specimen.last_event)
            self._describe(session, name, leucocytes, who, fields)
            snapshot = session.specimen.snapshot(session.model, self.ranges, session.types)
            seen = len(snapshot.history)
            _check_seen(session, seen)
            sign(session.specimen, open_points(snapshot, session.check), who, reason, seen)

        return self._do(session, act, reviewer)

    def on_amend(self, session: Session | None, name: str, leucocytes: str, reviewer: str, *rest: str) -> dict:
        """Open a signed specimen again."""
        return self._do(session, lambda it, who: amend(it.specimen, who, rest[-1]), reviewer)

    def on_second_reading(self, session: Session | None, request: gr.Request) -> dict:
        """Begin an independent reading of the same pictures, without the words of the first reader."""
        if session is None or self.store is None or not isinstance(getattr(session.specimen, "key", None), str):
            return gr.skip()  # of an empty answer Gradio says that outputs are missing
        first: KeptSpecimen = session.specimen  # type: ignore[assignment]
        try:
            first.catch_up()
            second = self.store.begin(request.username or "")
            second.load_unread(first, first.key)
        except WbcError as error:
            return {self.signed: render_problem("Not begun", str(error))}
        session.take(second)
        return self._show_opened(session, "A second reading: what the first reader said is not shown.")

    def state_of(self, session: Session) -> dict:
        """Fields and buttons as they are now."""
        about = session.specimen.about
        signed, read = about.signature is not None, bool(session.specimen.pictures)
        values: dict = {field: about.text_of(name) for name, field in self._written.items()}
        return values | {
            self.reason: "",
            self.sign: gr.Button(visible=not signed),
            self.amend: gr.Button(visible=signed),
            self.second: gr.Button(visible=self.store is not None and read and not about.second_of),
            self.signed: self._say(session),
        }

    def _do(self, session: Session | None, action: Callable[[Session, str], None], reviewer: str) -> dict:
        if session is None:
            return gr.skip()  # of an empty answer Gradio says that outputs are missing
        user = session.user
        try:
            self.roles.check_sign(user)
            with session.lock, session.meanwhile.doing(user or reviewer):
                action(session, user or reviewer)
        except ChangedMeanwhileError as error:
            with session.lock:
                said = session.meanwhile.look(fields=True)
            told = f"{error} Meanwhile, by others: {said}." if said else str(error)
            return self._refresh(session) | {self.signed: render_problem("Not done", told)}
        except WbcError as error:
            return {self.signed: render_problem("Not done", str(error))}
        return self._refresh(session) | {self.list: self.render_list(user=user)}

    def _describe(self, session: Session, name: str, leucocytes: str, reviewer: str, fields: Sequence[str]) -> None:
        values = dict(zip(FIELDS, map(str.strip, fields), strict=True))
        count = parse_leucocytes(leucocytes)
        session.meanwhile.describe(session.user or reviewer, name=name.strip(), leucocyte_count=count, **values)

    def _say(self, session: Session) -> str:
        """Who signed, how often it was amended, and how far two readers agree."""
        about, agreement = session.specimen.about, None
        # Not before the second reader has signed, who would learn what the first one said.
        if about.second_of and about.signature is not None and self.store is not None:
            try:
                agreement = compare_readings(self.store.open(about.second_of), session.specimen)
            except WbcError:
                agreement = None  # the first reading was deleted
        return render("signed", about=about, agreement=agreement)


def was_signed(item: "WorkItem") -> bool:
    """Whether a specimen is signed, or was before it was opened to amend: its history says who stood for what."""
    return item.state.value == "signed" or item.amended > 0


def _check_seen(session: Session, last: int) -> None:
    """Refuse to sign what others did and the signer was not shown, up to the event with this number."""
    if session.meanwhile.news(last):
        raise ChangedMeanwhileError("Not signed, since others did more. Look at it, and sign then.")


def compare_readings(first: Specimen, second: Specimen) -> Agreement:
    """Compare what two readers said of the same cells, those that both have reviewed."""
    said, readers, beside = [], [], set()
    for specimen in (first, second):
        reviewed = [cell for cell in specimen.cells if cell.review is not None and not cell.removed]
        said.append({cell.number: cell.label or NONE_OF_FIVE for cell in reviewed})
        beside |= {cell.own.name for cell in reviewed if cell.own is not None and not cell.own.leucocyte}
        readers.append(", ".join(sorted({cell.reviewer for cell in reviewed if cell.reviewer})))
    names = (readers[0] or "first reader", readers[1] or "second reader")
    return compare_readers(said[0], said[1], names, beside)
