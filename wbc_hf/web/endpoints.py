"""The endpoints for programs: what the page does, over HTTP, with `gradio_client` or as MCP tools.

They keep nothing between two calls. What a person corrects on the page, a program gives along with the pictures.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.utils import get_function_description
from PIL import Image

from wbc_hf.adaptation import Laboratories, cells_to_learn, gather_cells, only_reviewed
from wbc_hf.data import count_pixels
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Predictor, ReferenceCells, heat_map, overlay
from wbc_hf.labels import class_index
from wbc_hf.reports import EXPORTS, file_name, to_json
from wbc_hf.smear import (
    NO_TYPES,
    CellCounter,
    CellTypeRecord,
    CellTypes,
    ReferenceRanges,
    Snapshot,
    Specimen,
    check_laboratory,
    check_leucocyte_count,
)
from wbc_hf.web.adapting import ADAPTATIONS, adapt_model
from wbc_hf.web.arguments import (
    FIELD,
    FIELDS,
    SHOWN,
    check_choice,
    check_corrections,
    check_flag,
    check_number,
    check_picture,
    check_pictures,
    check_text,
    check_whole_number,
    describe,
    pictures_field,
    record_answer,
)
from wbc_hf.web.model_tab import describe_model
from wbc_hf.web.turns import turn
from wbc_hf.web.uploads import CELLS, PROGRESS, SPECIMENS, Answer, answer_uploads, read_upload

MAX_NEIGHBOURS = 100
UNREADABLE = "unreadable"


class Endpoints:
    """The endpoints; MCP names its tools after the methods.

    Args:
        predictor: The model.
        references: Cells to compare with, or None.
        ranges: Reference ranges of the laboratory.
        laboratories: Where laboratories are kept, or None.
        own_types: The laboratory's own types of cells.
    """

    def __init__(
        self,
        predictor: Predictor,
        references: ReferenceCells | None,
        ranges: ReferenceRanges,
        laboratories: Laboratories | None = None,
        own_types: CellTypes = NO_TYPES,
    ):
        self.predictor, self.references, self.ranges = predictor, references, ranges
        self.kept, self.own_types = laboratories, own_types

    def add(self) -> None:
        """Add them to a page, within it, with hidden fields."""
        _add(self.classify, record_answer("Prediction"))
        _add(self.classify_many, record_answer("Predictions", several=True), pictures=pictures_field("cell.jpg"))
        _add(self.explain, gr.Image(label="Drawing", format="png", visible=False))
        _add(self.nearest, record_answer("Neighbours", several=True))
        _add(self.count, record_answer("Differential"), SPECIMENS)
        _add(self.export, gr.File(label="Export", visible=False), SPECIMENS)
        _add(self.model, record_answer("Model"))
        _add(self.types, record_answer("Types", several=True))
        _add(self.laboratories, record_answer("Laboratories", several=True))
        _add(self.adapt, record_answer("Adaptation"), ADAPTATIONS | {"api_visibility": "public"})

    def classify(self, picture: object) -> dict:
        """Say which leucocyte a picture of one cell shows.

        Args:
            picture: Photograph of a single cell.

        Returns:
            The label, its probability (0 to 1), the status (confident, review, …) and the probability of each class.
        """
        (answer,) = answer_uploads(self.predictor, [check_picture("picture", picture)])
        if isinstance(answer, UnreadableImageError):
            raise answer
        return _to_json(answer)

    def classify_many(self, pictures: object, progress: gr.Progress = PROGRESS) -> list[dict]:
        """Say which leucocyte each picture of one cell shows, of at most 100.

        Args:
            pictures: Photographs of one cell each.

        Returns:
            A record as of /classify for each, in order; a file that cannot be read has the status "unreadable".
        """
        uploads = check_pictures("pictures", pictures)
        answers = []
        for answer in answer_uploads(self.predictor, uploads):
            answers.append(_to_json(answer))
            progress((len(answers), len(uploads)), unit="pictures")
        return answers

    def explain(self, picture: object, label: object) -> Image.Image:
        """Draw over a picture of one cell what speaks for a class.

        Args:
            picture: Photograph of a single cell.
            label: Name of the class, such as monocyte; without one, the likeliest.

        Returns:
            The picture under its heat map.
        """
        known = {class_index(name): name for name in self.predictor.labels}
        name = check_text("label", label)
        with _read_one(picture) as image:
            return overlay(image, heat_map(self.predictor, image, known.get(class_index(name), name or None)))

    def nearest(self, picture: object, number: object) -> list[dict]:
        """Name the reference cells that look most like a cell, where the page was started with some.

        Args:
            picture: Photograph of a single cell.
            number: How many to name, 1 to 100.

        Returns:
            The label, the name and the similarity (at most 1) of each, the most similar first.
        """
        count = check_whole_number("number", number, 1, MAX_NEIGHBOURS)
        with _read_one(picture) as image:
            if self.references is None:
                raise WbcError("This page was started without reference cells (--references).")
            return [
                {"label": neighbour.label, "name": neighbour.name, "similarity": neighbour.similarity}
                for neighbour in self.references.nearest(image, count)
            ]

    def count(
        self,
        pictures: object,
        show: object,
        name: object,
        leucocytes: object,
        corrections: object,
        reviewer: object,
        laboratory: object,
        request: gr.Request,
    ) -> dict:
        """Find and count the leucocytes in pictures of one specimen, at most 100 pictures.

        Args:
            pictures: Photographs of one specimen.
            show: What each picture shows: a whole field of the smear, or one cell.
            name: Number or name of the specimen.
            leucocytes: Total leucocyte count in 10⁹/l, such as 6.4, for absolute counts; 0 if unknown.
            corrections: Classes or types (/types) of cells by number, as an earlier answer numbers them; null is none.
            reviewer: Who says so. Whoever signed in corrects under that name and no other.
            laboratory: Name of a kept laboratory whose adapted model is to count; by default the page's model counts.

        Returns:
            The differential with 95 % limits, every cell with its box and class, and the files that cannot be read.
        """
        snapshot, unreadable = self.count_specimen(
            pictures, show, name, leucocytes, corrections, request.username or reviewer, laboratory
        )
        return json.loads(to_json(snapshot)) | {"unreadable": unreadable}

    def export(
        self,
        form: object,
        pictures: object,
        show: object,
        name: object,
        leucocytes: object,
        corrections: object,
        reviewer: object,
        laboratory: object,
        request: gr.Request,
    ) -> Iterator[str]:
        """Count the leucocytes in pictures of one specimen like /count, and give a file.

        Args:
            form: Of the file: a report (pdf), tables (csv), all data (json, fhir), or reviewed cells (cells, a ZIP).
            pictures: Photographs of one specimen.
            show: What each picture shows: a whole field of the smear, or one cell.
            name: Number or name of the specimen.
            leucocytes: Total leucocyte count in 10⁹/l, such as 6.4, for absolute counts; 0 if unknown.
            corrections: Classes or types (/types) of cells by number, as an earlier answer numbers them; null is none.
            reviewer: Who says so. Whoever signed in corrects under that name and no other.
            laboratory: Name of a kept laboratory whose adapted model is to count; by default the page's model counts.

        Returns:
            The file.
        """
        with TemporaryDirectory() as folder:
            exports = {export.key: export for export in EXPORTS}
            export = exports[check_choice("form", form, [*exports])]
            snapshot, _ = self.count_specimen(
                pictures, show, name, leucocytes, corrections, request.username or reviewer, laboratory
            )
            path = Path(folder) / file_name(snapshot, export)
            path.write_bytes(export.make(snapshot))
            # Gradio copies it to where it keeps temporary files for a while; then this resumes and removes it.
            yield str(path)

    def model(self) -> dict:
        """Say which model this is, and how good it was in its test.

        Returns:
            Name, version, classes, what it was trained on, and the figures of its test.
        """
        return describe_model(self.predictor)

    def types(self) -> list[dict]:
        """List the laboratory's own types of cells, beyond the five classes. Corrections name them; no model does.

        Returns:
            The name of each, whether it is part of the 100 % (leucocyte), its key on the page, colour and code.
        """
        return [CellTypeRecord.of(own).model_dump(mode="json") | {"key": own.key} for own in self.own_types]

    def count_specimen(
        self,
        pictures: object,
        show: object = FIELD,
        name: object = "",
        leucocytes: object = None,
        corrections: object = None,
        reviewer: object = "",
        laboratory: object = "",
    ) -> tuple[Snapshot, list[dict]]:
        """Count the leucocytes in pictures of one specimen, and list the files that cannot be read.

        Arguments are those of `count`, of whatever types a program sent.

        Raises:
            WbcError: No files, too many of them, or a value that is not allowed.
        """
        total = check_leucocyte_count(check_number("leucocytes", leucocytes))
        specimen = Specimen(check_text("name", name), total)
        predictor = self._predictor_of(check_text("laboratory", laboratory))
        counter = CellCounter(predictor, specimen)
        unreadable = self._read_into(counter, pictures, show, corrections, check_text("reviewer", reviewer))
        return specimen.snapshot(predictor.identity, self.ranges, self.own_types), unreadable

    def laboratories(self) -> list[dict]:
        """List the laboratories that are kept.

        Returns:
            What each has learned, and since when its specimens look unlike it.
        """
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
        pictures: object,
        show: object,
        laboratory: object,
        corrections: object,
        keep_cells: object,
        progress: gr.Progress = PROGRESS,
    ) -> dict:
        """Adapt the model to pictures of one laboratory, and keep the result under its name for /count.

        Args:
            pictures: Photographs from one laboratory, of one or more specimens.
            show: What each picture shows: a whole field of the smear, or one cell.
            laboratory: Name to keep the result under. If it is kept already, its kept cells are learned from too.
            corrections: Right classes of cells by number, as /count numbers them; without any, nothing is labelled.
            keep_cells: Whether to keep the corrected cells for the next adaptation.

        Returns:
            The laboratory's name (null if adapting helped nothing), what was done and measured, and unreadable files.
        """
        specimen, specimen_key = Specimen(), uuid4().hex
        name, keep = check_text("laboratory", laboratory), check_flag("keep_cells", keep_cells)
        if self.kept is None:
            raise WbcError("This page keeps no laboratories: start it with --laboratories FOLDER.")
        before = self.kept.cells(name) if name in self.kept else ()
        unreadable = self._read_into(CellCounter(self.predictor, specimen), pictures, show, corrections, "")
        origin = check_laboratory(specimen.cells, self.predictor.calibration).origin
        adapted = adapt_model(
            self.predictor,
            gather_cells(specimen.cells, specimen_key, origin, before),
            lambda step, share: progress(share, desc=step),
            lambda: False,
        )
        kept = None
        if adapted.adaptation.warning is None:
            kept = self.kept.keep(
                name, self.predictor, adapted.folder, adapted.adaptation, keep_cells=True if keep else None
            ).name
            if keep:
                self.kept.add_cells(kept, cells_to_learn(only_reviewed(specimen.cells), specimen_key))
        return {
            "laboratory": kept,
            "adaptation": json.loads(json.dumps(asdict(adapted.adaptation))),
            "unreadable": unreadable,
        }

    def _predictor_of(self, laboratory: str) -> Predictor:
        if not laboratory:
            return self.predictor
        if self.kept is None:
            raise WbcError(f"{laboratory}: this page keeps no laboratories.")
        return self.kept.load(laboratory, self.predictor)

    def _read_into(
        self, counter: CellCounter, pictures: object, show: object, corrections: object, reviewer: str
    ) -> list[dict]:
        """Read pictures into a specimen and correct its cells. Returns the files that cannot be read."""
        whole_field = check_choice("show", show, SHOWN) == FIELD
        labels = check_corrections("corrections", corrections)
        unreadable = []
        for upload in check_pictures("pictures", pictures):
            try:
                with turn(count_pixels(upload.source)):
                    counter.add_image(read_upload(upload), upload.name, whole_field=whole_field)
            except UnreadableImageError as error:
                unreadable.append(_to_json(error))
        for number, label in labels.items():
            counter.specimen.review(number, self.own_types.resolve(label), reviewer)
        return unreadable


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
    answer: gr.components.Component,
    queue: dict[str, Any] = CELLS,
    **fields: gr.components.Component,
) -> None:
    """Add an endpoint, which its docstring describes: Gradio reads one line for each argument.

    Each argument has the field given here, else that of `FIELDS`; what Gradio itself passes has none.
    """
    _, arguments, returned = get_function_description(function)
    fields = {name: fields.get(name) or FIELDS[name]() for name in arguments if name in FIELDS}
    for name, field in fields.items():
        describe(field, arguments[name])
    describe(answer, returned[0])
    gr.on([], function, [*fields.values()], answer, preprocess=False, api_name=function.__name__, **queue)


@contextmanager
def _read_one(picture: object) -> Iterator[Image.Image]:
    """Read a picture, and hold a turn while it is looked at."""
    upload = check_picture("picture", picture)
    with turn(count_pixels(upload.source)):
        yield read_upload(upload)
