"""The tab of adaptation: the cells that a person has reviewed go in, a model that suits their laboratory comes out."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from wbc_hf.adaptation import (
    MIN_CELLS,
    MIN_CLASSES,
    SCORES,
    Adaptation,
    AdaptationCell,
    Scores,
    enough_labelled,
)
from wbc_hf.adaptation import adapt as adapt_model
from wbc_hf.data import read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.inference.predictor import Predictor
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS, class_index
from wbc_hf.reports import RESEARCH_USE
from wbc_hf.smear import Cell, CellState, Specimen
from wbc_hf.web.html import colour_of, dot, plural, render_empty, render_problem
from wbc_hf.web.session import Sessions

MIN_PICTURES = 2  # the cells of one are never parted: of a single one, none can be held back

NO_RESULT = "How the model did on held-back cells, before and after, appears here."
NO_CELLS = "No cell is reviewed yet: give photographs on the tab Specimen, and say there what the cells are."
TOO_FEW = (
    f"Not enough yet: at least {MIN_CLASSES} classes with {MIN_CELLS} reviewed cells each are needed, and cells of "
    f"{MIN_PICTURES} pictures."
)
HARD_CELLS = (
    "Most cells that are reviewed are those that the model was not sure of, so figures over them are worse than over "
    "all cells. Accept some of the counted ones too."
)

# One adaptation takes all cores for a minute or two: a second waits for the first.
ADAPTING = {"concurrency_id": "adaptations", "concurrency_limit": 1, "api_visibility": "private"}


# ---- what the tab does, without the page


def reviewed_cells(specimen: Specimen) -> list[Cell]:
    """The cells that are exported to train with: those of one of the five classes by the word of a person."""
    return [cell for cell in specimen.cells if cell.state is CellState.COUNTED and cell.review is not None]


def can_adapt(cells: Sequence[Cell]) -> bool:
    """Whether some of them can be held back, and others be left to learn from."""
    counts = Counter(cell.label for cell in cells)
    return enough_labelled(counts) and len({cell.picture for cell in cells}) >= MIN_PICTURES


def adapt(
    predictor: Predictor, cells: Sequence[Cell], folder: Path, progress: Callable[[str, float], None] | None = None
) -> tuple[Adaptation, Path]:
    """Adapt the page's model to reviewed cells.

    Cells of one picture share its stain and its light: they are held back together.

    Args:
        predictor: Whose model it is.
        cells: As `reviewed_cells` gives them.
        folder: Where files may be left.
        progress: Told what is being done and how far it is, 0 to 1.

    Returns:
        What was done and measured, and the adapted model's folder as a ZIP.

    Raises:
        WbcError: From `wbc_hf.adaptation.adapt`.
    """
    taught = [
        AdaptationCell(read_image(cell.image), class_index(cell.label), f"picture {cell.picture}") for cell in cells
    ]
    output = folder / f"adapted-model-{datetime.now(UTC):%Y%m%dT%H%MZ}"
    adaptation = adapt_model(predictor.name, taught, output, progress=progress)
    return adaptation, Path(shutil.make_archive(str(output), "zip", folder, output.name))


# ---- how it looks


def render_cells(cells: Sequence[Cell]) -> str:
    """How many reviewed cells there are of each class, and what is missing."""
    counts = Counter(cell.label for cell in cells)
    bars = "".join(_class_bar(name, counts[name]) for name in CLASS_NAMES)
    notes = [f"A full bar: {ENOUGH_CELLS} cells, which is good. Of rare classes fewer will do."]
    if cells:
        pictures = plural(len({cell.picture for cell in cells}), "picture")
        notes = [f"<b>{plural(len(cells), 'reviewed cell')}</b> of {pictures}.", *notes, HARD_CELLS]
    if not can_adapt(cells):
        notes.insert(0, f"<b>{TOO_FEW if cells else NO_CELLS}</b>")
    return f'<ul class="wbc-bars" aria-label="Reviewed cells of each class">{bars}</ul>{_notes(notes)}'


def _class_bar(name: str, count: int) -> str:
    width = min(100, 100 * count // ENOUGH_CELLS)
    filled = f'<span style="width:{width}%;background:{colour_of(name)}"></span>' if count else ""
    return (
        f'<li><span class="wbc-bar-name">{name.capitalize()}</span><span class="wbc-bar" aria-hidden="true">{filled}'
        f'</span><span class="wbc-bar-value">{count}</span></li>'
    )


def render_adaptation(adaptation: Adaptation) -> str:
    """What was done, how right the model is on held-back cells before and after, and what to do with the file.

    Args:
        adaptation: To labelled cells.
    """
    before, after = adaptation.scores_before, adaptation.scores_after
    rows = "".join(
        _row(title[0].upper() + title[1:], adaptation.held_back, _with_limits(before, name), _with_limits(after, name))
        for name, title in SCORES.items()
    )
    rows += "".join(
        _row(
            f"{dot(name)}{name.capitalize()}, recall",
            count,
            _percent(before.recall[name]),
            _percent(after.recall[name]),
        )
        for name, count in adaptation.labelled.items()
        if count
    )
    notes = [
        f"The {adaptation.held_back} cells were held back in {adaptation.folds} parts: each was answered by a model "
        "that was adapted without any cell of its picture. The model in the file was adapted to all of them.",
        "Small figures are 95 % limits, over pictures. Where those of before and after meet, more cells would tell.",
        *map(escape, adaptation.remarks),
    ]
    return (
        f'<div class="wbc-model">{_verdict(adaptation)}<div class="wbc-wide"><table><thead><tr>'
        '<th scope="col">On held-back cells</th><th scope="col">Cells</th><th scope="col">Before</th>'
        f'<th scope="col">After</th></tr></thead><tbody>{rows}</tbody></table></div>{_notes(notes)}'
        "<p>Save the file, unpack it, and start the page with the folder in it: <code>python app.py --model FOLDER"
        f"</code>. The file is kept here for an hour. <b>{RESEARCH_USE}</b></p></div>"
    )


def _verdict(adaptation: Adaptation) -> str:
    if adaptation.warning:
        return f'<div class="wbc-status wbc-caution" role="status">{escape(adaptation.warning)}</div>'
    return (
        f'<div class="wbc-status wbc-good" role="status"><strong>Adapted</strong> to {adaptation.cells} cells: '
        "of those held back, more are answered right than before.</div>"
    )


def _row(title: str, cells: int, before: str, after: str) -> str:
    return f'<tr><th scope="row">{title}</th><td>{cells}</td><td>{before}</td><td>{after}</td></tr>'


def _with_limits(scores: Scores, name: str) -> str:
    limits = scores.intervals[name]
    small = "no interval" if limits is None else format_interval(limits, ".1%", between=" – ")
    return f"<b>{_percent(getattr(scores, name))}</b> <small>{small}</small>"


def _percent(share: float | None) -> str:
    """Of a class that was never held back there is none."""
    return format_figure(share, ".1%")


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="wbc-notes">{"".join(f"<li>{note}</li>" for note in notes)}</ul>'


def render_about() -> str:
    """What the tab is for, and what its figures are of."""
    return (
        "<div><p>The cells that you have reviewed on the tab <b>Specimen</b> teach the model your "
        "laboratory's stain, light and camera. A part of them at a time is held back, for the figures.</p></div>"
    )


# ---- the tab


def add_adapt_tab(tab: gr.Tab, sessions: Sessions, predictor: Predictor) -> None:
    """Lay out the tab and say what happens in it; to be called within it."""
    with gr.Row(equal_height=False, elem_classes="wbc-row"):
        with gr.Column(scale=4):
            gr.HTML(render_about())
            overview = gr.HTML(render_cells(()))
            button = gr.Button("Adapt the model to these cells", variant="primary", size="md", interactive=False)
        with gr.Column(scale=5):
            result = gr.HTML(render_empty(NO_RESULT), elem_classes="wbc-result")
            download = gr.DownloadButton("Save the adapted model (ZIP)", size="md", visible=False)

    watched = gr.Progress()  # Gradio looks for it among the defaults

    def on_shown(request: gr.Request) -> tuple[str, gr.Button]:
        try:
            cells = reviewed_cells(sessions.of(request.session_hash).specimen)
        except WbcError as error:
            return render_problem("Not shown", str(error)), gr.Button(interactive=False)
        return render_cells(cells), gr.Button(interactive=can_adapt(cells))

    def on_adapt(request: gr.Request, progress: gr.Progress = watched) -> Iterator[tuple]:
        with TemporaryDirectory() as folder:
            try:
                cells = reviewed_cells(sessions.of(request.session_hash).specimen)
                adaptation, archive = adapt(
                    predictor, cells, Path(folder), lambda what, share: progress(share, desc=what)
                )
            except WbcError as error:
                yield render_problem("Not adapted", str(error)), gr.update(visible=False)
                return
            # Gradio copies the file to where it keeps temporary ones for a while; then this goes on and removes it.
            yield render_adaptation(adaptation), gr.update(value=str(archive), visible=True)

    tab.select(on_shown, None, [overview, button], queue=False, api_visibility="private", show_progress="hidden")
    button.click(on_adapt, None, [result, download], show_progress_on=result, **ADAPTING)
