"""What programs can ask: everything that the page does, by name, over HTTP, with `gradio_client` or as MCP tools.

Nothing is remembered between two calls. What a person corrects on the page, a program gives along with the pictures.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from PIL import Image

from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference.heat_maps import heat_map, overlay
from wbc_hf.inference.predictor import Predictor
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.reports import EXPORTS, file_name, to_json
from wbc_hf.smear import CellCounter, ReferenceRanges, Snapshot, Specimen, check_leucocyte_count
from wbc_hf.web.cell_tab import Explainer
from wbc_hf.web.model_tab import describe_model
from wbc_hf.web.uploads import (
    MAX_FILES,
    ONE_CELL,
    SPECIMENS,
    UNREADABLE,
    Answer,
    Upload,
    answer_uploads,
    read_or_error,
    read_uploads,
    too_many,
)

FIELD, CELL = "field", "cell"
MAX_NEIGHBOURS = 100


def to_record(answer: Answer | UnreadableImageError) -> dict:
    """What programs get for one picture of one cell."""
    if isinstance(answer, UnreadableImageError):
        return {"file": answer.name, "status": UNREADABLE, "problem": answer.reason}
    prediction = answer.prediction
    return {
        "file": answer.name,
        "label": prediction.label,
        "probability": prediction.probability,
        "status": prediction.status,
        "probabilities": dict([(prediction.label, prediction.probability), *prediction.alternatives]),
    }


def classify(predictor: Predictor, uploads: Sequence[Upload]) -> dict:
    """One answer.

    Raises:
        gr.Error: No file, or one that cannot be read; the message names it and says why.
    """
    if not uploads:
        raise _error("No file was given.")
    (answer,) = answer_uploads(predictor, uploads[:1])
    if isinstance(answer, UnreadableImageError):
        raise _error(str(answer))
    return to_record(answer)


def classify_many(predictor: Predictor, uploads: Sequence[Upload]) -> list[dict]:
    """Answers in order. A file that cannot be read has the status "unreadable" and a problem.

    Raises:
        gr.Error: More than `MAX_FILES` files.
    """
    _check_count(uploads)
    return [to_record(answer) for answer in answer_uploads(predictor, uploads)]


@dataclass(frozen=True)
class CountRequest:
    """What a program asks of pictures of one specimen; Gradio hands on whatever types it was sent.

    Attributes:
        show: "field" or "cell": what each picture shows.
        name: Of the specimen.
        leucocytes: Total leucocyte count in 10⁹/l; None and 0 are none.
        corrections: What a person says of cells: by number, as an earlier call gave it, a class, or None for none of
            the five.
        reviewer: Who says so.
    """

    show: str = FIELD
    name: str = ""
    leucocytes: float | None = None
    corrections: Mapping[str, str | None] = field(default_factory=dict)
    reviewer: str = ""

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WbcError: A value of another type or outside its range.
        """
        if self.show not in (FIELD, CELL):
            raise WbcError(f"{self.show}: pictures show a {FIELD!r} or a {CELL!r}.")
        if not isinstance(self.leucocytes, int | float | None):
            raise WbcError(f"{self.leucocytes!r}: a total leucocyte count is a number, in 10⁹/l.")
        check_leucocyte_count(self.leucocytes)
        if not isinstance(self.corrections, Mapping):
            raise WbcError(
                f'{self.corrections!r}: corrections are classes by number of the cell, as {{"3": "monocyte"}}.'
            )
        for number, label in self.corrections.items():
            if not number.isdecimal():
                raise WbcError(f"{number}: cells are named by their numbers.")
            if not isinstance(label, str | None):
                raise WbcError(f"{label!r}: a class is a name, or null for none of the five.")


def count(
    predictor: Predictor, ranges: ReferenceRanges, uploads: Sequence[Upload], asked: CountRequest
) -> tuple[Snapshot, list[dict]]:
    """The differential of pictures of one specimen, and which files could not be read.

    Raises:
        gr.Error: No files, too many of them, or a value that is not allowed.
    """
    _check_count(uploads)
    if not uploads:
        raise _error("No file was given.")
    specimen, unreadable = Specimen(str(asked.name or "").strip()), []
    with _told():
        asked.check()
        counter = CellCounter(predictor, specimen)
        for upload in uploads:
            image = read_or_error(upload)
            if isinstance(image, UnreadableImageError):
                unreadable.append(to_record(image))
            else:
                counter.add_image(image, upload.name, whole_field=asked.show == FIELD)
        specimen.leucocyte_count = check_leucocyte_count(asked.leucocytes)
        for number, label in asked.corrections.items():
            specimen.review(int(number), label, str(asked.reviewer or ""))
    return specimen.snapshot(predictor.identity, ranges), unreadable


def add_endpoints(explainer: Explainer, ranges: ReferenceRanges) -> None:
    """Add them to a page. They have unseen fields of their own, since Gradio checks what fields are given."""
    predictor = explainer.predictor

    def on_classify(picture: dict | None) -> dict:
        return classify(predictor, read_uploads(picture))

    def on_classify_many(pictures: list[dict] | None) -> list[dict]:
        return classify_many(predictor, read_uploads(pictures))

    def on_explain(picture: dict | None, label: str | None) -> Image.Image:
        image = _one_picture(picture)
        # In any spelling, as everywhere.
        known = {class_index(name): name for name in predictor.labels}
        with _told():
            return overlay(image, heat_map(predictor, image, known.get(class_index(label or ""), label or None)))

    def on_nearest(picture: dict | None, number: float) -> list[dict]:
        if explainer.references is None:
            raise _error("This page was started without reference cells (--references).")
        if not isinstance(number, int | float) or not 1 <= number <= MAX_NEIGHBOURS:
            raise _error(f"{number!r}: between 1 and {MAX_NEIGHBOURS} reference cells can be named.")
        return [
            {"label": neighbour.label, "name": neighbour.name, "similarity": neighbour.similarity}
            for neighbour in explainer.references.nearest(_one_picture(picture), int(number))
        ]

    def on_count(
        pictures: list[dict] | None,
        show: str,
        name: str,
        leucocytes: float | None,
        corrections: dict | None,
        reviewer: str,
        request: gr.Request,
    ) -> dict:
        # Whoever signed in corrects under that name and no other.
        asked = CountRequest(show, name, leucocytes, corrections or {}, request.username or reviewer)
        record, unreadable = count(predictor, ranges, read_uploads(pictures), asked)
        return json.loads(to_json(record)) | {"unreadable": unreadable}

    def on_export(
        form: str,
        pictures: list[dict] | None,
        show: str,
        name: str,
        leucocytes: float | None,
        corrections: dict | None,
        reviewer: str,
        request: gr.Request,
    ) -> Iterator[str]:
        export = next((export for export in EXPORTS if export.key == form), None)
        if export is None:
            raise _error(f"{form}: exports are {', '.join(export.key for export in EXPORTS)}.")
        asked = CountRequest(show, name, leucocytes, corrections or {}, request.username or reviewer)
        record, _ = count(predictor, ranges, read_uploads(pictures), asked)
        with TemporaryDirectory() as folder, _told():
            path = Path(folder) / file_name(record, export)
            path.write_bytes(export.make(record))
            # Gradio copies it to where it keeps temporary files for a while; then this goes on and removes it.
            yield str(path)

    def on_model() -> dict:
        return describe_model(predictor)

    def specimen_fields() -> list[gr.components.Component]:
        return [
            gr.File(label="Pictures", file_count="multiple", visible=False),
            gr.Radio([FIELD, CELL], value=FIELD, label="Show", visible=False),
            gr.Textbox("", label="Specimen", visible=False),
            gr.Number(0, label="Leucocytes", visible=False),
            gr.JSON({}, label="Corrections", visible=False),
            gr.Textbox("", label="Reviewer", visible=False),
        ]

    def one_picture() -> gr.File:
        return gr.File(label="Picture", visible=False)

    answer = gr.JSON(visible=False)
    _add("classify", on_classify, "Says which leucocyte a picture of one cell shows.", [one_picture()], answer)
    _add(
        "classify_many",
        on_classify_many,
        f"Says which leucocyte each picture of one cell shows, of at most {MAX_FILES}.",
        [gr.File(label="Pictures", file_count="multiple", visible=False)],
        answer,
    )
    _add(
        "explain",
        on_explain,
        "Draws over a cell what speaks for a class; without a class, for the likeliest.",
        [one_picture(), gr.Textbox("", label="Class", visible=False)],
        gr.Image(format="png", visible=False),
    )
    _add(
        "nearest",
        on_nearest,
        "Names the reference cells that look most alike, where the page was started with some.",
        [one_picture(), gr.Number(5, precision=0, label="How many", visible=False)],
        answer,
    )
    _add(
        "count",
        on_count,
        "Finds and counts the leucocytes in pictures of one specimen. Corrections say what cells are, by number: "
        f'{{"3": "monocyte", "7": null}}, where null is none of {", ".join(CLASS_NAMES)}.',
        specimen_fields(),
        answer,
        SPECIMENS,
    )
    _add(
        "export",
        on_export,
        f"Counts like /count and gives a file: {', '.join(export.key for export in EXPORTS)}.",
        [
            gr.Radio([export.key for export in EXPORTS], value=EXPORTS[0].key, label="Form", visible=False),
            *specimen_fields(),
        ],
        gr.File(visible=False),
        SPECIMENS,
    )
    _add("model", on_model, "Which model this is, and how good it was in its test.", [], answer)


def _add(
    name: str,
    function: Callable,
    what: str,
    fields: list[gr.components.Component],
    answer: gr.components.Component,
    queue: dict = ONE_CELL,
) -> None:
    function.__name__ = name  # MCP calls its tools so
    gr.on(
        [],
        function,
        fields,
        answer,
        preprocess=False,
        api_name=name,
        api_description=what,
        **queue,
    )


def _one_picture(picture: dict | None) -> Image.Image:
    uploads = read_uploads(picture)
    if not uploads:
        raise _error("No file was given.")
    image = read_or_error(uploads[0])
    if isinstance(image, UnreadableImageError):
        raise _error(str(image))
    return image


@contextmanager
def _told() -> Iterator[None]:
    """What a user can solve is told to the program that asked."""
    try:
        yield
    except WbcError as error:
        raise _error(str(error)) from error


def _check_count(uploads: Sequence[Upload]) -> None:
    if len(uploads) > MAX_FILES:
        raise _error(too_many(len(uploads)))


def _error(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)
