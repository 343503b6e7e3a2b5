"""The page in which a laboratory asks a model: one cell, or many files at once. Nothing is fetched from outside."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from wbc_hf.data import PAINTED_TITLE, paint_cells, read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.serving.predictor import Predictor
from wbc_hf.serving.rendering import (
    CSS,
    Answer,
    render_answer,
    render_empty,
    render_examples,
    render_problem,
    render_table,
    to_record,
)

MAX_FILES = 100
MAX_FILE_SIZE = "20mb"
MAX_WAITING = 32  # requests, before the page says that it is busy
CLEAN_EVERY, KEEP_FOR = 600, 3600  # seconds: what people upload does not stay
PREVIEW_SIDE = 640  # pixels
CHUNK = 8  # files read and answered together: few, because each may hold 50 million pixels

EXAMPLE_SIDE, EXAMPLE_SEED = 256, 11

NO_PICTURE = "The answer appears here as soon as there is a picture."
NO_FILES = "A table of answers appears here as soon as there are files."
RESEARCH_USE = "Research use, not for diagnosis."
PAINTED_ONLY = "Demonstration model: trained on painted cells, it knows nothing of real ones."

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "Consolas", "monospace")

# What the page itself calls: not for programs, one at a time, and of several in a row the last.
LATEST = {"api_visibility": "private", "concurrency_id": "model", "trigger_mode": "always_last"}

# One handler for all examples: the page says which of them was clicked.
EXAMPLES_JS = """
element.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) trigger('click', {index: Number(button.dataset.index)});
});
"""

# A click on a column's head sorts by it, a second one the other way. Files that could not be read stay at the end.
SORTING_JS = """
element.addEventListener('click', event => {
    const head = event.target.closest('th');
    if (!head) return;
    const body = head.closest('table').tBodies[0], column = head.cellIndex + 1;
    const up = head.getAttribute('aria-sort') !== 'ascending';
    const key = row => row.cells[column].dataset.key || row.cells[column].textContent;
    const compare = (a, b) => key(a).localeCompare(key(b), undefined, {numeric: true}) * (up ? 1 : -1);
    const [good, bad] = [false, true].map(bad => [...body.rows].filter(r => r.matches('.wbc-unreadable') === bad));
    body.append(...good.sort(compare), ...bad);
    for (const other of head.parentElement.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
});
"""


@dataclass(frozen=True)
class Upload:
    """A file on this machine, and what it was called where it came from."""

    path: str
    name: str


# ---- what the page does, without the page


def read_uploads(given: dict | list[dict] | None) -> list[Upload]:
    """The files in what Gradio hands to a handler that has `preprocess=False`.

    With preprocessing Gradio opens pictures first, and what it cannot open ends in its words, not in those of
    `read_image`; it also gives files another name. It checks in both cases that a file is one that was uploaded.
    """
    files = [given] if isinstance(given, dict) else given or []
    return [Upload(file["path"], file["orig_name"] or Path(file["path"]).name) for file in files]


def answer_uploads(predictor: Predictor, uploads: Sequence[Upload]) -> Iterator[Answer | UnreadableImageError]:
    """For each file, in order, an answer or what is wrong with it."""
    for start in range(0, len(uploads), CHUNK):
        chunk = uploads[start : start + CHUNK]
        images = [_read_or_error(upload) for upload in chunk]
        predictions = iter(predictor.predict([image for image in images if isinstance(image, Image.Image)]))
        for upload, image in zip(chunk, images, strict=True):
            if isinstance(image, UnreadableImageError):
                yield image
            else:
                size = image.size
                image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
                yield Answer(upload.name, next(predictions), image, size)


def show_one(predictor: Predictor, uploads: Sequence[Upload]) -> tuple[Image.Image | None, str]:
    """The picture as it was read, which a browser can show whatever the file's format, and the answer as HTML."""
    if not uploads:
        return None, render_empty(NO_PICTURE)
    (answer,) = answer_uploads(predictor, uploads)
    if isinstance(answer, UnreadableImageError):
        return None, render_problem("Not classified", f"{answer.name} {answer.reason}")
    return answer.preview, render_answer(answer)


def show_many(predictor: Predictor, uploads: Sequence[Upload], progress: gr.Progress) -> str:
    """A table with a row per file, as HTML."""
    if not uploads:
        return render_empty(NO_FILES)
    if len(uploads) > MAX_FILES:
        return render_problem("Too many files", _too_many(len(uploads)))
    answers = progress.tqdm(answer_uploads(predictor, uploads), total=len(uploads), unit="pictures")
    return render_table(list(answers), predictor.labels)


def classify(predictor: Predictor, uploads: Sequence[Upload]) -> dict:
    """One answer for a program.

    Raises:
        gr.Error: No file, or one that cannot be read; the message names it and says why.
    """
    if not uploads:
        raise gr.Error("No file was given.", print_exception=False)
    (answer,) = answer_uploads(predictor, uploads)
    if isinstance(answer, UnreadableImageError):
        raise gr.Error(str(answer), print_exception=False)
    return to_record(answer)


def classify_many(predictor: Predictor, uploads: Sequence[Upload]) -> list[dict]:
    """Answers for a program, in order. A file that cannot be read has the status "unreadable" and a problem.

    Raises:
        gr.Error: More than `MAX_FILES` files.
    """
    if len(uploads) > MAX_FILES:
        raise gr.Error(_too_many(len(uploads)), print_exception=False)
    return [to_record(answer) for answer in answer_uploads(predictor, uploads)]


def trained_on_painted_cells(predictor: Predictor) -> bool:
    """Whether a model saw painted cells only; False where its folder does not say what it was trained on."""
    return predictor.trust is not None and predictor.trust.trained_on == PAINTED_TITLE


def _read_or_error(upload: Upload) -> Image.Image | UnreadableImageError:
    try:
        return read_image(upload.path, upload.name)
    except UnreadableImageError as error:
        return error


def _too_many(count: int) -> str:
    return f"{count} were given, at most {MAX_FILES} are answered at once: split them, or use `wbc-hf predict`"


# ---- the page


def build_page(predictor: Predictor) -> gr.Blocks:
    """The page of one model, not yet served.

    Raises:
        WbcError: The model tells no leucocytes apart.
    """
    if all(class_index(label) is None for label in predictor.labels):
        raise WbcError(
            f"{predictor.name}: tells apart {', '.join(predictor.labels[:3])} …, but no leucocytes. "
            "Fine-tune it first: python train.py --model …"
        )
    with gr.Blocks(title="Leucocytes", analytics_enabled=False, delete_cache=(CLEAN_EVERY, KEEP_FOR)) as page:
        gr.HTML(_header(predictor))
        with gr.Tab("One cell"):
            _add_one_cell(predictor)
        with gr.Tab("Several cells"):
            _add_several_cells(predictor)
        _add_endpoints(predictor)
    return page.queue(max_size=MAX_WAITING)


def launch_page(page: gr.Blocks, host: str, port: int | None) -> str:
    """Serve a page in the background, as it is meant to be served, and say where it is.

    Args:
        page: What `build_page` gave.
        host: Address to listen at.
        port: Port to listen at; None for any that is free.

    Raises:
        WbcError: Nothing can listen at this address and port.
    """
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            theme=_theme(),
            css=CSS,
            max_file_size=MAX_FILE_SIZE,
            share=False,
            footer_links=["api"],
            run_history=False,  # it would keep pictures of cells in the browser
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,  # needs Node.js, which a Space has and a laboratory has not: one page for both
            prevent_thread_lock=True,
            quiet=True,  # its lines advertise public links
        )
    except OSError as error:
        raise WbcError(
            f"{host}:{port}: cannot be listened at, as a rule because another program does. "
            "Choose another port with --port."
        ) from error
    return url


def _theme() -> gr.themes.Base:
    """Gradio's own with the fonts of the reader's system, and its pale greys and greens dark enough to read."""
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS)
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_600",
        loader_color="*primary_600",
    )


def _add_one_cell(predictor: Predictor) -> None:
    examples = [Image.fromarray(cell) for cell in paint_cells(range(len(CLASS_NAMES)), EXAMPLE_SIDE, EXAMPLE_SEED)]

    def on_picture(file: dict | None) -> tuple[Image.Image | None, str]:
        return show_one(predictor, read_uploads(file))

    def on_example(event: gr.EventData) -> tuple[Image.Image, str]:
        image, name = examples[event.index], CLASS_NAMES[event.index]
        (prediction,) = predictor.predict([image])
        return image, render_answer(Answer(f"Painted {name}", prediction, image, image.size))

    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            picture = gr.Image(
                label="Picture of one cell",
                show_label=False,  # it would cover a corner of the picture
                sources=["upload", "clipboard"],
                format="png",
                height=340,
                buttons=[],
                elem_classes=["wbc-picture", "wbc-upload"],
            )
        with gr.Column(min_width=320):
            result = gr.HTML(render_empty(NO_PICTURE))
    painted = gr.HTML(render_examples(CLASS_NAMES, examples), js_on_load=EXAMPLES_JS)
    picture.input(on_picture, picture, [picture, result], preprocess=False, show_progress_on=result, **LATEST)
    painted.click(on_example, None, [picture, result], show_progress_on=result, **LATEST)


def _add_several_cells(predictor: Predictor) -> None:
    def on_files(files: list[dict] | None, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        return show_many(predictor, read_uploads(files), progress)

    files = gr.File(
        label=f"Pictures of one cell each, up to {MAX_FILES}",
        file_count="multiple",
        height=180,
        elem_classes="wbc-upload",
    )
    result = gr.HTML(render_empty(NO_FILES), js_on_load=SORTING_JS)
    files.change(on_files, files, result, preprocess=False, **LATEST)


def _add_endpoints(predictor: Predictor) -> None:
    """Endpoints for programs. They have unseen fields of their own, since Gradio checks what fields are given."""

    def one(file: dict | None) -> dict:
        return classify(predictor, read_uploads(file))

    def many(files: list[dict] | None) -> list[dict]:
        return classify_many(predictor, read_uploads(files))

    for function, name, count, what in (
        (one, "classify", "single", "Says which leucocyte a picture shows."),
        (many, "classify_many", "multiple", f"Says which leucocyte each picture shows, of at most {MAX_FILES}."),
    ):
        field, answer = gr.File(label="Picture", file_count=count, visible=False), gr.JSON(visible=False)
        gr.on(
            [], function, field, answer, preprocess=False, api_name=name, api_description=what, concurrency_id="model"
        )


def _header(predictor: Predictor) -> str:
    folder = Path(predictor.name)
    name = folder.resolve().name if folder.is_dir() else predictor.name
    demonstration = f"<p>{PAINTED_ONLY}</p>" if trained_on_painted_cells(predictor) else ""
    return (
        f'<header class="wbc-head"><h1>Leucocytes</h1><p>Model <b>{escape(name)}</b></p>'
        f"<p>Says which leucocyte a picture of a stained blood smear shows: {escape(', '.join(predictor.labels))}.</p>"
        f'</header><div class="wbc-notice" role="note"><p><strong>{RESEARCH_USE}</strong></p>{demonstration}</div>'
    )
