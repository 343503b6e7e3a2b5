"""The laboratory of a specimen: noticed, chosen among those that are kept, adapted to in one click, kept."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr

from wbc_hf.adaptation import (
    MIN_CELLS,
    MIN_CLASSES,
    MIN_PICTURES,
    MIN_UNLABELLED,
    TWO_LABORATORIES,
    Adaptation,
    AdaptationCell,
    CellSupply,
    KeptCell,
    Laboratories,
    cells_to_learn,
    count_supply,
    gather_cells,
    labels_needed,
    only_reviewed,
)
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import format_interval
from wbc_hf.inference import Predictor
from wbc_hf.smear import Cell, CellState, Origin
from wbc_hf.web.adapting import ADAPTATIONS, CancelledError, adapt_model
from wbc_hf.web.rendering import plural, render, render_problem
from wbc_hf.web.session import Session, Sessions
from wbc_hf.web.uploads import AT_ONCE, PROGRESS

GOOD_CELLS = 5  # reviewed ones of each class, to begin with
NO_LABORATORY = "none: the model as it is"

ANOTHER = (
    "These {cells} cells look as if they came from another laboratory than those that the model has learned: another "
    "stain, microscope or camera. {waiting} of the cells wait for review. {advice}"
)
REVIEW_FIRST = (
    f"Review some: with {MIN_CELLS} or more cells in each of {MIN_CLASSES} or more classes, better about "
    f"{GOOD_CELLS} of each, from {MIN_PICTURES} photographs or more, the model can be adapted. Without reviews that "
    f"takes {MIN_UNLABELLED} cells."
)
ADAPT_NOW = "Adapt the model to them: the more you have reviewed of each class, the better."
CHANGED = (
    "These photographs do not look like those of {name} as it was kept{when}: perhaps a new lot of stain, a lamp or a "
    "camera. {advice}"
)
ADAPT_AGAIN = "Adapt the model to them, and keep it again."
WITHOUT_LABELS = " Review some cells of each class and adapt again: that is worth more than anything else."


class LaboratoryPanel:
    """The parts of the tab of a specimen that concern its laboratory.

    `menu` belongs where photographs are given, `lay_out` under the progress.

    Args:
        sessions: Of the visitors.
        predictor: The page's model.
        laboratories: Where they are kept; None where the page keeps nothing.
    """

    def __init__(self, sessions: Sessions, predictor: Predictor, laboratories: Laboratories | None):
        self.sessions, self.predictor, self.laboratories = sessions, predictor, laboratories

    def lay_out_menu(self) -> None:
        """Add the menu of the kept laboratories."""
        self.menu = self._menu(value=NO_LABORATORY, label="Laboratory", elem_classes="wbc-laboratory-menu")

    def lay_out(self) -> None:
        """Add what is said of the laboratory, and the buttons."""
        with gr.Column(visible=False, elem_classes="wbc-laboratory") as self.panel:
            self.note = gr.HTML()
            with gr.Row():
                self.adapt = gr.Button("Adapt the model to these photographs", size="md", variant="primary")
                self.cancel = gr.Button("Cancel", size="md", visible=False)
            with gr.Row(visible=False, elem_classes="wbc-keep") as self.keeping:
                self.name = gr.Textbox(
                    "", label="Keep this laboratory as", placeholder="Ward 3, MGG stain", max_length=60, scale=3
                )
                self.keep_cells = gr.Checkbox(False, label="and keep the cells that I reviewed", scale=2)
                self.keep = gr.Button("Keep", size="md", scale=1)
        self.outputs = [self.menu, self.panel, self.note, self.adapt, self.cancel, self.keeping]

    def listen(
        self,
        page: gr.Blocks,
        session: gr.State,
        leucocytes: gr.Textbox,
        results: list[gr.components.Component],
        show: Callable[[Session, str], dict],
    ) -> None:
        """Connect the buttons.

        Args:
            page: The page.
            session: The visitor's.
            leucocytes: The field of the total leucocyte count.
            results: Everything that `show` renders.
            show: Renders a session.
        """
        self.session, self._show = session, show
        shown, options = [*results, *self.outputs], ADAPTATIONS | {"show_progress_on": self.note}
        self.adapt.click(self.on_adapt_specimen, [session, leucocytes], shown, **options)
        self.cancel.click(self.on_cancel, session, self.cancel, **AT_ONCE)
        self.menu.input(self.on_choosing, self.menu, [self.panel, self.note], **AT_ONCE)
        self.menu.input(self.on_choose, [session, self.menu, leucocytes], [session, *shown], **AT_ONCE)
        if self.laboratories is not None:
            self.keep.click(self.on_keep, [session, self.name, self.keep_cells], self.outputs, **AT_ONCE)
            page.load(self.on_open, None, self.menu, **AT_ONCE)

    def on_open(self) -> gr.Dropdown:
        """Offer the laboratories that are kept by now."""
        return self._menu()

    def on_adapt_specimen(
        self, session: Session | None, leucocytes: str, progress: gr.Progress = PROGRESS
    ) -> Iterator[dict]:
        """Adapt the model to the cells of the specimen, and predict them again."""
        if session is None:
            return
        session.cancelled = False
        yield {self.adapt: gr.Button(interactive=False), self.cancel: gr.Button(visible=True)}
        try:
            adapted = adapt_model(
                self.predictor,
                self._gather(session),
                lambda step, share: progress(share, desc=step),
                lambda: session.cancelled,
            )
        except CancelledError as error:
            note = render("laboratory_note", text=f"Cancelled. {error}", tone="neutral")
            yield self.state(session) | {self.note: note}
            return
        except WbcError as error:
            yield self.state(session) | {self.note: render_problem("Not adapted", str(error))}
            return
        session.adapted = adapted
        if adapted.adaptation.warning is None:
            session.use(adapted.predictor, session.laboratory)
        yield self._show(session, leucocytes) | self.state(session)

    def on_cancel(self, session: Session | None) -> gr.Button:
        """Stop the adaptation that runs."""
        if session is not None:
            session.cancelled = True
        return gr.Button(visible=False)

    def on_choosing(self, name: str) -> dict:
        """Say that a kept laboratory is being loaded: the first one of a page takes seconds."""
        if name == NO_LABORATORY:
            return gr.skip()  # of an empty answer Gradio says that outputs are missing
        note = render("laboratory_note", text=f"{name} is being loaded.", tone="neutral")
        return {self.panel: gr.Column(visible=True), self.note: note}

    def on_choose(self, session: Session | None, name: str, leucocytes: str, request: gr.Request) -> dict:
        """Use a kept laboratory, or none, for the cells that are there and for those to come."""
        session = session or self.sessions.of(request.session_hash)
        session.cancelled = True  # what is adapted to the laboratory of before
        try:
            if name == NO_LABORATORY or self.laboratories is None:
                session.use(self.predictor)
            else:
                session.use(self.laboratories.load(name, self.predictor), name)
        except WbcError as error:
            return {self.panel: gr.Column(visible=True), self.note: render_problem("Not used", str(error))}
        session.adapted = None
        shown = self._show(session, leucocytes) if session.specimen.pictures else {}
        return {self.session: session} | shown | self.state_with_menu(session)

    def on_keep(self, session: Session | None, name: str, keep_cells: bool) -> dict:
        """Keep the adapted model under a name, and the reviewed cells where the visitor asks for it."""
        if session is None or session.adapted is None or self.laboratories is None:
            return gr.skip()
        try:
            laboratory = self.laboratories.keep(
                name,
                self.predictor,
                session.adapted.folder,
                session.adapted.adaptation,
                # Unticked, cells that were kept before stay: only `wbc-hf laboratories remove` deletes them.
                keep_cells=True if keep_cells else None,
            )
            if keep_cells:
                self.laboratories.add_cells(name, cells_to_learn(only_reviewed(session.specimen.cells), session.key))
        except WbcError as error:
            return {self.note: render_problem("Not kept", str(error))}
        session.adapted.predictor.rename(laboratory.model_name(self.predictor.identity.name))
        session.adapted, session.laboratory = None, laboratory.name
        return self.state_with_menu(session)

    def record(self, session: Session) -> None:
        """Record what was read under a kept laboratory, so that a change of it is noticed."""
        check = session.check
        if session.laboratory is not None and self.laboratories is not None and check.distance is not None:
            self.laboratories.record_count(
                session.laboratory, check.cells, check.distance, check.origin is Origin.ANOTHER
            )

    def state_with_menu(self, session: Session) -> dict:
        """What is said and offered, after another laboratory was chosen or kept. The menu takes reading the store."""
        return {self.menu: self._menu(value=session.laboratory or NO_LABORATORY)} | self.state(session)

    def state(self, session: Session) -> dict:
        """What is said and offered now."""
        text, tone = self._describe(session)
        adapted = session.adapted is not None and session.adapted.adaptation.warning is None
        origin = session.check.origin
        offered = origin is Origin.ANOTHER or adapted or session.laboratory is not None
        supply = self._supply(session)
        return {
            self.panel: gr.Column(visible=bool(text)),
            self.note: render("laboratory_note", text=text, tone=tone) if text else "",
            self.adapt: gr.Button(
                describe_offer(supply, session.laboratory),
                visible=offered and origin is not Origin.MIXED and supply.suffices,
                interactive=True,
            ),
            self.cancel: gr.Button(visible=False),
            self.keeping: gr.Row(visible=adapted and self.laboratories is not None),
        }

    def _describe(self, session: Session) -> tuple[str, str]:
        """What is said of the laboratory, and in which tone; "" where there is nothing to say."""
        check = session.check
        if session.adapted is not None:
            return describe_outcome(session.adapted.adaptation, session.specimen.cells)
        if check.origin is Origin.MIXED:
            return TWO_LABORATORIES, "caution"
        if session.laboratory is not None and self.laboratories is not None:
            if check.origin is not Origin.ANOTHER:
                return f"Counted under {session.laboratory}.", "good"
            since = None
            with suppress(WbcError):  # removed meanwhile
                since = self.laboratories.show(session.laboratory).drift()
            when = "" if since is None else f", since {since[:10]}"
            advice = ADAPT_AGAIN if self._supply(session).suffices else REVIEW_FIRST
            return CHANGED.format(name=session.laboratory, when=when, advice=advice), "caution"
        if check.origin is Origin.ANOTHER:
            waiting = sum(cell.state is CellState.WAITING for cell in session.specimen.cells)
            advice = ADAPT_NOW if self._supply(session).suffices else REVIEW_FIRST
            return ANOTHER.format(cells=check.cells, waiting=waiting, advice=advice), "caution"
        return "", "neutral"

    def _gather(self, session: Session) -> list[AdaptationCell]:
        """What the model is adapted to: raises a WbcError where that cannot be."""
        if session.specimen.about.signature is not None:
            raise WbcError("This specimen is signed: its cells are not predicted again. Amend it first.")
        kept = self.laboratories.cells(session.laboratory) if self.laboratories and session.laboratory else ()
        return gather_cells(session.specimen.cells, session.key, session.check.origin, kept)

    def _supply(self, session: Session) -> CellSupply:
        """The same in numbers, without reading a picture."""
        kept: Sequence[KeptCell] = ()
        if session.laboratory is not None and self.laboratories is not None:
            with suppress(WbcError):  # removed meanwhile
                kept = self.laboratories.list_cells(session.laboratory)
        return count_supply(session.specimen.cells, session.key, kept)

    def _menu(self, **options: Any) -> gr.Dropdown:
        names = () if self.laboratories is None else self.laboratories.names()
        return gr.Dropdown([NO_LABORATORY, *names], visible=bool(names), **options)


def describe_offer(supply: CellSupply, laboratory: str | None) -> str:
    """What the button of the adaptation says: what the model would learn from."""
    reviewed = f"{plural(supply.reviewed, 'cell')} that you reviewed"
    kept = f"{plural(supply.kept, 'cell')} kept of {laboratory}"
    given = [text for text, count in ((reviewed, supply.reviewed), (kept, supply.kept)) if count]
    with_labels = f", with {' and '.join(given)}" if given and supply.labels_suffice else ""
    return f"Adapt the model to these photographs{with_labels}"


def describe_outcome(adaptation: Adaptation, cells: Sequence[Cell]) -> tuple[str, str]:
    """What an adaptation gave, for a person who decides whether to rely on it, and in which tone."""
    if adaptation.warning is not None:
        return f"{adaptation.warning} The cells are predicted by the model as it was.", "caution"
    states = Counter(cell.state for cell in cells)
    now = f"Now {states[CellState.COUNTED]} cells are counted and {states[CellState.WAITING]} wait. "
    if adaptation.scores_before is None or adaptation.scores_after is None:
        return now + " ".join(adaptation.remarks) + WITHOUT_LABELS, "neutral"
    before, after = adaptation.scores_before.accuracy, adaptation.scores_after.accuracy
    interval = adaptation.scores_after.intervals["accuracy"]
    limits = f" (95 % CI {format_interval(interval, '.0%')})" if interval else ""
    held = f"Of {adaptation.held_back} reviewed cells, each held back once, {after:.0%}{limits} are right; "
    return f"{now}{held}{before:.0%} before. {labels_needed(adaptation)}", "good"
