"""The tab of one cell: what it is, how sure the model is, what speaks for it, and which known cells look like it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from wbc_hf.data import paint_cells
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference.heat_maps import heat_map, overlay
from wbc_hf.inference.predictor import Predictor
from wbc_hf.inference.reference_cells import ReferenceCells
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.web.cell_html import render_answer, render_examples
from wbc_hf.web.html import INDEX_JS, render_empty, render_problem
from wbc_hf.web.uploads import ONE_CELL, PREVIEW_SIDE, Upload, answer_uploads, read_uploads

NO_PICTURE = "The answer appears here as soon as there is a picture."

PAINTED_SIDE, PAINTED_SEED = 256, 11

# What the page itself calls: not for programs, one at a time, and of several in a row the last.
LATEST = ONE_CELL | {"api_visibility": "private", "trigger_mode": "always_last"}


@dataclass(frozen=True)
class Explainer:
    """Answers for one cell with what they rest on.

    Attributes:
        predictor: The model.
        references: Known cells to compare with, or None.
    """

    predictor: Predictor
    references: ReferenceCells | None

    def show(self, uploads: Sequence[Upload]) -> Iterator[tuple[Image.Image | None, str]]:
        """The picture as it was read, which a browser can show whatever the file's format, and the answer as HTML.

        Comes twice where there is more to say: the answer at once, then with what it rests on, which takes longer.
        """
        if not uploads:
            yield None, render_empty(NO_PICTURE)
            return
        (answer,) = answer_uploads(self.predictor, uploads[:1])
        if isinstance(answer, UnreadableImageError):
            yield None, render_problem("Not classified", f"{answer.name} {answer.reason}")
            return
        preview = answer.image.copy()
        preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        yield preview, render_answer(answer)
        if answer.prediction.status == "not_a_cell":
            return
        try:
            heat = overlay(preview, heat_map(self.predictor, preview, answer.prediction.label))
        except WbcError:
            return  # of another network or image processor than a ResNet's there is no map, and the answer stands
        neighbours = self.references.nearest(answer.image) if self.references else ()
        yield preview, render_answer(answer, heat, neighbours)


def add_cell_tab(explainer: Explainer) -> None:
    """Lay out the tab and say what happens in it; to be called within a `gr.Tab`."""
    examples = [Image.fromarray(cell) for cell in paint_cells(range(len(CLASS_NAMES)), PAINTED_SIDE, PAINTED_SEED)]

    def on_picture(file: dict | None) -> Iterator[tuple[Image.Image | None, str]]:
        yield from explainer.show(read_uploads(file))

    def on_example(event: gr.EventData) -> Iterator[tuple[Image.Image | None, str]]:
        yield from explainer.show([Upload(examples[event.index], f"Painted {CLASS_NAMES[event.index]}")])

    with gr.Row(equal_height=False, elem_classes="wbc-row"):
        with gr.Column():
            picture = gr.Image(
                label="Picture of one cell",
                show_label=False,  # it would cover a corner of the picture
                sources=["upload", "clipboard"],
                format="png",
                height=340,
                buttons=[],
                elem_classes=["wbc-picture", "wbc-upload"],
            )
            painted = gr.HTML(
                render_examples("Or try a painted cell", [name.capitalize() for name in CLASS_NAMES], examples),
                js_on_load=INDEX_JS,
            )
        with gr.Column():
            result = gr.HTML(render_empty(NO_PICTURE))
    picture.input(on_picture, picture, [picture, result], preprocess=False, show_progress_on=result, **LATEST)
    painted.click(on_example, None, [picture, result], show_progress_on=result, **LATEST)
