"""The tab of one cell: its class, how sure the model is, a heat map, and the most similar reference cells."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import gradio as gr
from PIL import Image

from wbc_hf.data import count_pixels, find_pages, read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Neighbour, Predictor, ReferenceCells, heat_map, overlay
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import PictureKind, find_cells, kind_of_picture
from wbc_hf.web.examples import CELL_CREDIT, example_cells
from wbc_hf.web.rendering import example_buttons, render, render_problem, thumbnail_url
from wbc_hf.web.status_text import STATUS_TEXTS
from wbc_hf.web.turns import turn
from wbc_hf.web.uploads import AT_ONCE, PREVIEW_SIDE, Answer, Upload, answer_uploads, read_uploads

NO_PICTURE = "The answer appears here as soon as there is a picture."

HEAT_SIDE = 320  # pixels


@dataclass(frozen=True)
class ShownAnswer:
    """What the tab shows of an answer.

    Attributes:
        answer: Its image is the preview.
        size: Width and height of the image that was given, in pixels.
        neighbours: The most similar reference cells.
        is_field: Whether it looks like a photograph of a field.
        left_out: How many further pages or frames the file has, which are not shown.
    """

    answer: Answer
    size: tuple[int, int]
    neighbours: Sequence[Neighbour] = ()
    is_field: bool = False
    left_out: int = 0


class Inputs:
    """What one visitor gave to the tab.

    Attributes:
        newest: Number of the newest input. The browser numbers them.
        unexplained: The newest answer with its number, until its heat map is computed; HTML if there is no picture.
        counting: Hold it to change the number of the newest input.
        computing: Hold it to answer, so that one visitor's inputs are answered one after the other.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.unexplained: tuple[int, ShownAnswer | str] | None = None
        self.counting, self.computing = threading.Lock(), threading.Lock()

    def __deepcopy__(self, _: object) -> "Inputs":
        """Start anew: so does Gradio give each visitor a state of their own."""
        return Inputs()


class CellTab:
    """The tab of one cell, to be made within a `gr.Tab`.

    The newest input wins. The browser numbers the inputs and sends each at once. The server drops what it computes for
    an older one, and the browser shows an answer only if there is no newer input. Gradio's own
    `trigger_mode="always_last"` cannot do that: it sends the last event with the data of the first, or with the
    picture that the first answer has put in its place.

    Args:
        predictor: The model.
        references: Cells to compare with, or None.
    """

    def __init__(self, predictor: Predictor, references: ReferenceCells | None):
        self.predictor, self.references = predictor, references
        self.examples = example_cells()
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
                names = [name.capitalize() for name in CLASS_NAMES]
                images = [read_image(example.source) for example in self.examples]
                examples = example_buttons("Or try one of these", names, images, CELL_CREDIT)
            with gr.Column():
                result = gr.HTML(render("empty", text=NO_PICTURE))
        answer = gr.JSON(visible=False)
        number, inputs = gr.Number(visible=False), gr.State(Inputs())
        options = AT_ONCE | {"trigger_mode": "multiple", "show_progress_on": result}
        events = (
            picture.input(
                self.on_picture,
                [picture, number, inputs],
                answer,
                js="file => [file, wbc.numberOf(file), null]",
                preprocess=False,
                **options,
            ),
            examples.click(self.on_example, [number, inputs], answer, js="() => [wbc.countInput(), null]", **options),
        )
        for event in events:
            explained = event.then(self.on_answered, inputs, answer, **options)
            for answered in (event, explained):
                answered.then(None, answer, [picture, result], js="wbc.showNewest")

    def on_picture(self, file: dict | None, number: int, inputs: Inputs) -> dict:
        """Answer the picture that was given, or say that there is none."""
        return self._answer_newest(read_uploads(file), number, inputs)

    def on_example(self, event: gr.EventData, number: int, inputs: Inputs) -> dict:
        """Answer one of the examples."""
        return self._answer_newest([self.examples[event.number]], number, inputs)

    def on_answered(self, inputs: Inputs) -> dict:
        """Give the newest answer once more, now with its heat map, which takes longer.

        Whichever answer the browser got last: two that are sent at nearly the same time may arrive in either order.
        """
        with inputs.computing:
            newest, inputs.unexplained = inputs.unexplained, None
            if newest is None or newest[0] < inputs.newest:
                return gr.skip()
            number, shown = newest
            if isinstance(shown, str):
                return _numbered(number, shown)
            html = self.explain(shown)
            return gr.skip() if number < inputs.newest else _numbered(number, html, shown.answer.image)

    def _answer_newest(self, uploads: Sequence[Upload], number: int, inputs: Inputs) -> dict:
        with inputs.counting:
            inputs.newest = max(inputs.newest, number)
        with inputs.computing:
            if number < inputs.newest:
                return gr.skip()
            shown = self.answer(uploads)
            if number < inputs.newest:
                return gr.skip()
            inputs.unexplained = number, shown
            if isinstance(shown, str):
                return _numbered(number, shown)
            return _numbered(number, render_answer(shown), shown.answer.image)

    def answer(self, uploads: Sequence[Upload]) -> ShownAnswer | str:
        """Answer the first file, with a preview that a browser can show whatever the file's format.

        Returns:
            HTML where there is no file, or where it cannot be read.
        """
        if not uploads:
            return render("empty", text=NO_PICTURE)
        try:
            (answer,) = answer_uploads(self.predictor, uploads[:1])
            if isinstance(answer, UnreadableImageError):
                return render_problem("Not classified", f"{answer.name} {answer.reason}")
            is_cell = answer.prediction.status != "not_a_cell"
            with turn(count_pixels(answer.image)):
                neighbours = self.references.nearest(answer.image) if self.references and is_cell else ()
                is_field = kind_of_picture(find_cells(answer.image), answer.image.size) is PictureKind.FIELD
        except WbcError as error:
            return render_problem("Not classified", str(error))
        pages = find_pages(uploads[0].source)
        preview = answer.image.copy()
        preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        return ShownAnswer(
            replace(answer, image=preview),
            answer.image.size,
            neighbours,
            is_field,
            len(pages.numbers) - 1 + pages.frames,
        )

    def explain(self, shown: ShownAnswer) -> str:
        """Render an answer, with its heat map where there is one."""
        prediction, preview, heat = shown.answer.prediction, shown.answer.image, None
        if prediction.status != "not_a_cell":
            with suppress(WbcError):  # not a ResNet, or another image processor: the answer stands without a map
                heat = overlay(preview, heat_map(self.predictor, preview, prediction.label))
        return render_answer(shown, heat)


def _numbered(number: int, html: str, preview: Image.Image | None = None) -> dict:
    """What the browser gets: number of the input, the answer, and a preview that it can show whatever the file is.

    The preview is in the answer itself. Gradio would write it to the same file for each of the two answers to one
    input, and a browser that reads the file while it is written again shows no picture at all.
    """
    return {"number": number, "html": html, "preview": preview and thumbnail_url(preview, PREVIEW_SIDE)}


def render_answer(shown: ShownAnswer, heat: Image.Image | None = None) -> str:
    """Render an answer: the class, how sure the model is, what to make of it, and what speaks for it.

    Args:
        shown: The answer.
        heat: The cell under the heat map of its class.
    """
    return render(
        "answer",
        shown=shown,
        prediction=shown.answer.prediction,
        status=STATUS_TEXTS[shown.answer.prediction.status],
        heat=heat and thumbnail_url(heat, HEAT_SIDE),
    )
