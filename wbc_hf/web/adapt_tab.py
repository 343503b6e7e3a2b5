"""The tab of adaptation: the model is adapted to the cells that a person has reviewed, and can be saved."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import gradio as gr

from wbc_hf.adaptation import (
    MIN_CELLS,
    MIN_CLASSES,
    MIN_PICTURES,
    SCORES,
    Adaptation,
    count_supply,
    gather_cells,
    only_reviewed,
)
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS
from wbc_hf.reports import RESEARCH_USE
from wbc_hf.smear import Cell
from wbc_hf.web.adapting import ADAPTATIONS, adapt_model
from wbc_hf.web.rendering import render, render_problem
from wbc_hf.web.session import Sessions
from wbc_hf.web.uploads import AT_ONCE, PROGRESS

NO_RESULT = "How the model did on held-back cells, before and after, appears here."
NO_CELLS = "No cell is reviewed yet: give photographs on the tab Specimen, and say there what the cells are."
TOO_FEW = (
    f"Not enough yet: at least {MIN_CLASSES} classes with {MIN_CELLS} reviewed cells each are needed, and cells of "
    f"{MIN_PICTURES} pictures."
)


class AdaptTab:
    """The tab of adaptation, to be made within `tab`.

    Args:
        tab: The tab.
        sessions: Where the specimens with the reviewed cells are.
        predictor: The model.
    """

    def __init__(self, tab: gr.Tab, sessions: Sessions, predictor: Predictor):
        self.sessions, self.predictor = sessions, predictor
        with gr.Row(equal_height=False, elem_classes="wbc-row"):
            with gr.Column(scale=4):
                gr.HTML(
                    "<div><p>The cells that you have reviewed on the tab <b>Specimen</b> teach the model your "
                    "laboratory's stain, light and camera, beside the cells that you have not. A part of them at a "
                    "time is held back, for the figures.</p></div>"
                )
                overview = gr.HTML(render_cells(()))
                button = gr.Button("Adapt the model to these cells", variant="primary", size="md", interactive=False)
            with gr.Column(scale=5):
                result = gr.HTML(render("empty", text=NO_RESULT), elem_classes="wbc-result")
                download = gr.DownloadButton("Save the adapted model (ZIP)", size="md", visible=False)
        tab.select(self.on_shown, None, [overview, button], show_progress="hidden", **AT_ONCE)
        button.click(self.on_adapt, None, [result, download], show_progress_on=result, **ADAPTATIONS)

    def on_shown(self, request: gr.Request) -> tuple[str, gr.Button]:
        """Show how many cells are reviewed."""
        try:
            cells = self._reviewed_cells(request)
        except WbcError as error:
            return render_problem("Not shown", str(error)), gr.Button(interactive=False)
        return render_cells(cells), gr.Button(interactive=can_adapt(cells))

    def on_adapt(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Iterator[tuple]:
        """Adapt the model to the reviewed cells of the visitor."""
        try:
            session = self.sessions.of(request.session_hash)
            cells = gather_cells(session.specimen.cells, session.key, session.check.origin)
            adapted = adapt_model(self.predictor, cells, lambda step, share: progress(share, desc=step), lambda: False)
        except WbcError as error:
            yield render_problem("Not adapted", str(error)), gr.update(visible=False)
            return
        folder = adapted.folder.rename(adapted.folder.with_name(f"adapted-model-{datetime.now(UTC):%Y%m%dT%H%MZ}"))
        archive = shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
        # Gradio copies the file to where it keeps temporary ones for a while; then this resumes, and `adapted` goes.
        yield render_adaptation(adapted.adaptation), gr.update(value=archive, visible=True)

    def _reviewed_cells(self, request: gr.Request) -> list[Cell]:
        return only_reviewed(self.sessions.of(request.session_hash).specimen.cells)


def can_adapt(cells: Sequence[Cell]) -> bool:
    """Whether reviewed cells of a specimen suffice to hold some back and to learn from the others."""
    return count_supply(cells, "").labels_suffice


def render_cells(cells: Sequence[Cell]) -> str:
    """Render how many reviewed cells there are of each class, and what is missing."""
    counts = Counter(cell.label for cell in cells)
    missing = "" if can_adapt(cells) else TOO_FEW if cells else NO_CELLS
    return render(
        "reviewed_cells",
        counts={name: counts[name] for name in CLASS_NAMES},
        enough=ENOUGH_CELLS,
        missing=missing,
        total=len(cells),
        pictures=len({cell.picture for cell in cells}),
    )


def render_adaptation(adaptation: Adaptation) -> str:
    """Render the scores on held-back cells before and after an adaptation to labelled cells."""
    return render("adaptation", adaptation=adaptation, scores=SCORES, notice=RESEARCH_USE)
