"""The endpoints for programs: what the page does, over HTTP, with `gradio_client` or as MCP tools.

They keep nothing between two calls. What a person corrects on the page, a program gives along with the pictures.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import gradio as gr
from PIL import Image

from wbc_hf.adaptation import Laboratories, cells_to_learn, is_reviewed, with_usable_labels
from wbc_hf.data import read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Predictor, ReferenceCells, heat_map, overlay
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.reports import EXPORTS, file_name, to_json
from wbc_hf.smear import CellCounter, ReferenceRanges, Snapshot, Specimen, check_leucocyte_count
from wbc_hf.web.adapting import ADAPTATIONS, adapt_model
from wbc_hf.web.model_tab import describe_model
from wbc_hf.web.uploads import (
    MAX_FILES,
    ONE_CELL,
    SPECIMENS,
    Answer,
    Upload,
    answer_uploads,
    read_or_error,
    read_uploads,
)

FIELD, CELL = "field", "cell"
_PROGRESS = gr.Progress()  # Gradio looks for it among the defaults
MAX_NEIGHBOURS = 100
UNREADABLE = "unreadable"


class Endpoints:
    """The endpoints; MCP names its tools after the methods.

    Args:
        predictor: The model.
        references: Cells to compare with, or None.
        ranges: Reference ranges of the laboratory.
        laboratories: Where laboratories are kept, or None.
    """

    def __init__(
        self,
        predictor: Predictor,
        references: ReferenceCells | None,
        ranges: ReferenceRanges,
        laboratories: Laboratories | None = None,
    ):
        self.predictor, self.references, self.ranges = predictor, references, ranges
        self.kept = laboratories

    def add(self) -> None:
        """Add them to a page, within it. They have hidden fields of their own: Gradio checks what fields are given."""
        answer = gr.JSON(visible=False)
        _add(self.classify, "Says which leucocyte a picture of one cell shows.", [_picture_field()], answer)
        _add(
            self.classify_many,
            f"Says which leucocyte each picture of one cell shows, of at most {MAX_FILES}.",
            [_pictures_field()],
            answer,
        )
        _add(
            self.explain,
            "Draws over a cell what speaks for a class; without a class, for the likeliest.",
            [_picture_field(), gr.Textbox("", label="Class", visible=False)],
            gr.Image(format="png", visible=False),
        )
        _add(
            self.nearest,
            "Names the reference cells that look most alike, where the page was started with some.",
            [_picture_field(), gr.Number(5, precision=0, label="How many", visible=False)],
            answer,
        )
        _add(
            self.count,
            "Finds and counts the leucocytes in pictures of one specimen. Corrections say what cells are, by number: "
            f'{{"3": "monocyte", "7": null}}, where null is none of {", ".join(CLASS_NAMES)}.',
            _specimen_fields(),
            answer,
            SPECIMENS,
        )
        forms = [export.key for export in EXPORTS]
        _add(
            self.export,
            f"Counts like /count and gives a file: {', '.join(forms)}.",
            [gr.Radio(forms, value=forms[0], label="Form", visible=False), *_specimen_fields()],
            gr.File(visible=False),
            SPECIMENS,
        )
        _add(self.model, "Which model this is, and how good it was in its test.", [], answer)
        _add(self.laboratories, "Lists the laboratories that are kept.", [], answer)
        _add(
            self.adapt,
            "Adapts the model to pictures of one laboratory, and keeps the result under its name for /count. "
            "Corrections label cells by number, as /count numbers them; without any, nothing is labelled.",
            [
                _pictures_field(),
                gr.Radio([FIELD, CELL], value=FIELD, label="Show", visible=False),
                gr.Textbox("", label="Laboratory", visible=False),
                gr.JSON({}, label="Corrections", visible=False),
                gr.Checkbox(False, label="Keep the corrected cells", visible=False),
            ],
            answer,
            ADAPTATIONS | {"api_visibility": "public"},
        )

    def classify(self, picture: dict | None) -> dict:
        """Classify one cell."""
        (answer,) = answer_uploads(self.predictor, [_one_upload(picture)])
        if isinstance(answer, UnreadableImageError):
            raise _error(str(answer))
        return _to_json(answer)

    def classify_many(self, pictures: list[dict] | None) -> list[dict]:
        """Classify cells, in order. A file that cannot be read has the status "unreadable" and a problem."""
        uploads = read_uploads(pictures)
        _check_number(uploads)
        return [_to_json(answer) for answer in answer_uploads(self.predictor, uploads)]

    def explain(self, picture: dict | None, label: str | None) -> Image.Image:
        """Draw the heat map of a class, in any spelling, over a cell."""
        image = _read_one(picture)
        known = {class_index(name): name for name in self.predictor.labels}
        with _errors_as_answers():
            heat = heat_map(self.predictor, image, known.get(class_index(label or ""), label or None))
            return overlay(image, heat)

    def nearest(self, picture: dict | None, number: float) -> list[dict]:
        """Name the most similar reference cells."""
        if self.references is None:
            raise _error("This page was started without reference cells (--references).")
        if not isinstance(number, int | float) or not 1 <= number <= MAX_NEIGHBOURS:
            raise _error(f"{number!r}: between 1 and {MAX_NEIGHBOURS} reference cells can be named.")
        return [
            {"label": neighbour.label, "name": neighbour.name, "similarity": neighbour.similarity}
            for neighbour in self.references.nearest(_read_one(picture), int(number))
        ]

    def count(
        self,
        pictures: list[dict] | None,
        show: str,
        name: str,
        leucocytes: float | None,
        corrections: dict | None,
        reviewer: str,
        laboratory: str,
        request: gr.Request,
    ) -> dict:
        """Count the leucocytes of a specimen. Whoever signed in corrects under that name and no other."""
        reviewer = request.username or reviewer
        snapshot, unreadable = self.count_specimen(
            read_uploads(pictures), show, name, leucocytes, corrections, reviewer, laboratory
        )
        return json.loads(to_json(snapshot)) | {"unreadable": unreadable}

    def export(
        self,
        form: str,
        pictures: list[dict] | None,
        show: str,
        name: str,
        leucocytes: float | None,
        corrections: dict | None,
        reviewer: str,
        laboratory: str,
        request: gr.Request,
    ) -> Iterator[str]:
        """Count the leucocytes of a specimen, and make one of the exports."""
        export = next((export for export in EXPORTS if export.key == form), None)
        if export is None:
            raise _error(f"{form}: exports are {', '.join(export.key for export in EXPORTS)}.")
        reviewer = request.username or reviewer
        snapshot, _ = self.count_specimen(
            read_uploads(pictures), show, name, leucocytes, corrections, reviewer, laboratory
        )
        with TemporaryDirectory() as folder, _errors_as_answers():
            path = Path(folder) / file_name(snapshot, export)
            path.write_bytes(export.make(snapshot))
            # Gradio copies it to where it keeps temporary files for a while; then this resumes and removes it.
            yield str(path)

    def model(self) -> dict:
        """Describe the model."""
        return describe_model(self.predictor)

    def count_specimen(
        self,
        uploads: Sequence[Upload],
        show: str = FIELD,
        name: str = "",
        leucocytes: float | None = None,
        corrections: Mapping[str, str | None] | None = None,
        reviewer: str = "",
        laboratory: str = "",
    ) -> tuple[Snapshot, list[dict]]:
        """Count the leucocytes in pictures of one specimen, and list the files that cannot be read.

        Gradio passes on values of whatever types it was sent.

        Args:
            uploads: The pictures.
            show: "field" or "cell": what each picture shows.
            name: Of the specimen.
            leucocytes: Total leucocyte count in 10⁹/l; None and 0 are none.
            corrections: Classes by number of the cell, as an earlier call gave it; None for none of the five.
            reviewer: Who corrects.
            laboratory: Name of a kept laboratory; "" for the model as it is.

        Raises:
            gr.Error: No files, too many of them, or a value that is not allowed.
        """
        specimen = Specimen(str(name or "").strip())
        with _errors_as_answers():
            _check(show, leucocytes, corrections or {})
            specimen.leucocyte_count = check_leucocyte_count(leucocytes)
            predictor = self._predictor_of(laboratory)
        unreadable = _read_into(CellCounter(predictor, specimen), uploads, show, corrections or {}, reviewer)
        return specimen.snapshot(predictor.identity, self.ranges), unreadable

    def laboratories(self) -> list[dict]:
        """List the kept laboratories: what each has learned, and since when its specimens look unlike it."""
        return [
            {
                "name": laboratory.name,
                "made": laboratory.made,
                "changed": laboratory.changed,
                "version": laboratory.version,
                "labelled": laboratory.labelled,
                "unlabelled": laboratory.unlabelled,
                "keeps_cells": laboratory.keep_cells,
                "unlike_since": laboratory.drift(),
            }
            for laboratory in (() if self.kept is None else self.kept.list())
        ]

    def adapt(
        self,
        pictures: list[dict] | None,
        show: str,
        laboratory: str,
        corrections: dict | None,
        keep_cells: bool,
        progress: gr.Progress = _PROGRESS,
    ) -> dict:
        """Adapt the model to pictures, and keep the result under the name of their laboratory."""
        specimen, specimen_key = Specimen(), uuid4().hex
        with _errors_as_answers():
            if self.kept is None:
                raise WbcError("This page keeps no laboratories: start it with --laboratories FOLDER.")
            _check(show, None, corrections or {})
        counter = CellCounter(self.predictor, specimen)
        unreadable = _read_into(counter, read_uploads(pictures), show, corrections or {}, "")
        with _errors_as_answers():
            adapted = adapt_model(
                self.predictor.name,
                with_usable_labels(cells_to_learn(specimen.cells, specimen_key)),
                lambda step, share: progress(share, desc=step),
                lambda: False,
            )
            kept = None
            if adapted.adaptation.warning is None:
                kept = self.kept.keep(
                    laboratory,
                    self.predictor,
                    adapted.folder,
                    adapted.adaptation,
                    keep_cells=True if keep_cells else None,
                ).name
                if keep_cells:
                    reviewed = [cell for cell in specimen.cells if is_reviewed(cell)]
                    self.kept.add_cells(kept, cells_to_learn(reviewed, specimen_key))
        return {
            "laboratory": kept,
            "adaptation": json.loads(json.dumps(asdict(adapted.adaptation))),
            "unreadable": unreadable,
        }

    def _predictor_of(self, laboratory: object) -> Predictor:
        if not laboratory:
            return self.predictor
        if self.kept is None:
            raise WbcError(f"{laboratory}: this page keeps no laboratories.")
        return self.kept.load(str(laboratory), self.predictor)


def _read_into(
    counter: CellCounter, uploads: Sequence[Upload], show: str, corrections: Mapping[str, str | None], reviewer: object
) -> list[dict]:
    """Read pictures into a specimen and correct its cells. Returns the files that cannot be read.

    Raises:
        gr.Error: No files, too many of them, or a correction that is not allowed.
    """
    _check_number(uploads)
    if not uploads:
        raise _error("No file was given.")
    unreadable = []
    with _errors_as_answers():
        for upload in uploads:
            try:
                counter.add_image(read_image(upload.source, upload.name), upload.name, whole_field=show == FIELD)
            except UnreadableImageError as error:
                unreadable.append(_to_json(error))
        for number, label in corrections.items():
            counter.specimen.review(int(number), label, str(reviewer or ""))
    return unreadable


def _check(show: str, leucocytes: object, corrections: object) -> None:
    """Check what a program sent.

    Raises:
        WbcError: A value of another type or outside its range.
    """
    if show not in (FIELD, CELL):
        raise WbcError(f"{show}: pictures show a {FIELD!r} or a {CELL!r}.")
    if not isinstance(leucocytes, int | float | None):
        raise WbcError(f"{leucocytes!r}: a total leucocyte count is a number, in 10⁹/l.")
    if not isinstance(corrections, Mapping):
        raise WbcError(f'{corrections!r}: corrections are classes by number of the cell, as {{"3": "monocyte"}}.')
    for number, label in corrections.items():
        if not number.isdecimal():
            raise WbcError(f"{number}: cells are named by their numbers.")
        if not isinstance(label, str | None):
            raise WbcError(f"{label!r}: a class is a name, or null for none of the five.")


def _to_json(answer: Answer | UnreadableImageError) -> dict:
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


def _add(
    function: Callable,
    description: str,
    fields: list[gr.components.Component],
    answer: gr.components.Component,
    queue: dict[str, Any] = ONE_CELL,
) -> None:
    options = queue | {"api_name": function.__name__, "api_description": description}
    gr.on([], function, fields, answer, preprocess=False, **options)


def _picture_field() -> gr.File:
    return gr.File(label="Picture", visible=False)


def _pictures_field() -> gr.File:
    return gr.File(label="Pictures", file_count="multiple", visible=False)


def _specimen_fields() -> list[gr.components.Component]:
    return [
        _pictures_field(),
        gr.Radio([FIELD, CELL], value=FIELD, label="Show", visible=False),
        gr.Textbox("", label="Specimen", visible=False),
        gr.Number(0, label="Leucocytes", visible=False),
        gr.JSON({}, label="Corrections", visible=False),
        gr.Textbox("", label="Reviewer", visible=False),
        gr.Textbox("", label="Laboratory", visible=False),
    ]


def _one_upload(picture: dict | None) -> Upload:
    if not picture:
        raise _error("No file was given.")
    return read_uploads(picture)[0]


def _read_one(picture: dict | None) -> Image.Image:
    image = read_or_error(_one_upload(picture))
    if isinstance(image, UnreadableImageError):
        raise _error(str(image))
    return image


def _check_number(uploads: Sequence[Upload]) -> None:
    if len(uploads) > MAX_FILES:
        raise _error(
            f"{len(uploads)} were given, at most {MAX_FILES} are answered at once: split them, or use `wbc-hf`"
        )


@contextmanager
def _errors_as_answers() -> Iterator[None]:
    """Send the message of an error that a user can solve to the program that asked."""
    try:
        yield
    except WbcError as error:
        raise _error(str(error)) from error


def _error(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)
