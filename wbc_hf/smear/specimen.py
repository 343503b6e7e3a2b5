"""The pictures and cells of one specimen, with the reviews of its cells.

A review overrules the model. Cells on which the model is not confident wait for a review and are not counted before.
Cells that the border of a field cuts off are counted only after a review, duplicates of cells in earlier pictures
never.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity, Predictor
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review
from wbc_hf.smear.cell_views import predict_crops
from wbc_hf.smear.differential import ReferenceRanges, differentiate_cells
from wbc_hf.smear.picture_kind import PictureKind
from wbc_hf.smear.picture_store import PictureStore
from wbc_hf.smear.snapshot import Picture, Place, SlideMap, Snapshot

_AT_ONCE = 64  # cells that are predicted again together


class Specimen:
    """The pictures and cells of one specimen. Thread-safe.

    Attributes:
        name: The laboratory's identifier. Of this and all other texts, halves of characters are escaped: no export
            could write them.
        leucocyte_count: Total leucocyte count in 10⁹/l, or None.
        size: Bytes of all previews and crops, which lie in a temporary file.
    """

    def __init__(self, name: str = "", leucocyte_count: float | None = None):
        self.name = name
        self.leucocyte_count = leucocyte_count
        self.size = 0
        self._lock = threading.Lock()
        self._store = PictureStore()
        self._pictures: list[Picture] = []
        self._cells: list[Cell] = []
        self._slides: list[SlideMap] = []
        # By removed picture: which cell each of the duplicates of its cells was a duplicate of, and which of its cells
        # went with it: not those that were discarded before.
        self._stand_ins: dict[int, dict[int, int]] = {}
        self._went: dict[int, set[int]] = {}

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = escape_surrogates(name)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """In the order of their numbers."""
        return self.contents()[0]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of their numbers."""
        return self.contents()[1]

    def contents(self) -> tuple[tuple[Picture, ...], tuple[Cell, ...]]:
        """All pictures and all cells at one moment; between two separate calls another thread may add a picture."""
        with self._lock:
            return tuple(self._pictures), tuple(self._cells)

    def snapshot(self, model: ModelIdentity, ranges: ReferenceRanges) -> Snapshot:
        """Everything that is known now, with the differential of the counted cells."""
        pictures, cells = self.contents()
        time = datetime.now(UTC).replace(microsecond=0)
        differential = differentiate_cells(cells, ranges, self.leucocyte_count)
        return Snapshot(self.name, time, model, pictures, cells, differential, slides=self.slides)

    @property
    def slides(self) -> tuple[SlideMap, ...]:
        """The slides that fields are of."""
        with self._lock:
            return tuple(self._slides)

    def add_slide(self, slide: SlideMap) -> None:
        """Add a slide, before its fields."""
        with self._lock:
            self._slides.append(slide)
            self.size += len(slide.thumbnail)

    def add_picture(
        self,
        name: str,
        size: tuple[int, int],
        preview: bytes,
        cells: Sequence[Cell],
        *,
        is_field: bool,
        kind: PictureKind = PictureKind.UNCLEAR,
        pixel_size: float | None = None,
        place: Place | None = None,
    ) -> Picture:
        """Add a picture with the cells found in it, and number both."""
        name = escape_surrogates(name)
        with self._lock:
            kept = self._store.keep(preview)
            number = len(self._pictures) + 1
            picture = Picture(number, name, size, is_field, kept, kind, pixel_size=pixel_size, place=place)
            self._pictures.append(picture)
            self.size += len(preview)
            for cell in cells:
                self._append(picture.number, cell)
            return picture

    def add_cell(self, picture: int, cell: Cell) -> Cell:
        """Add a cell to an earlier picture; it gets the next number."""
        with self._lock:
            return self._append(picture, cell)

    def predict_again(self, predictor: Predictor) -> None:
        """Replace the predictions of all cells; their reviews stay.

        Args:
            predictor: Of the cells' images as they are.
        """
        cells = self.cells
        predictions = []
        for start in range(0, len(cells), _AT_ONCE):
            views = [cell.views for cell in cells[start : start + _AT_ONCE]]
            predictions += [prediction for prediction, _ in predict_crops(predictor, views)]
        with self._lock:
            for index, prediction in enumerate(predictions):
                self._cells[index] = replace(self._cells[index], prediction=prediction)

    def review(self, number: int, label: str | None, reviewer: str = "") -> Cell:
        """Record a review of a cell; it replaces an earlier one.

        Args:
            number: Of the cell.
            label: A class in any known spelling, or None: not one of the five.
            reviewer: Name of the reviewer.

        Raises:
            WbcError: No such cell, a cell that is never counted, or no such class.
        """
        return self.review_many({number: label}, reviewer)[0]

    def review_many(self, labels: Mapping[int, str | None], reviewer: str = "") -> list[Cell]:
        """Record reviews of several cells, of all or of none.

        Args:
            labels: By number of the cell: a class in any known spelling, or None: not one of the five.
            reviewer: Name of the reviewer.

        Raises:
            WbcError: No such cell, a cell that is never counted, or no such class.
        """
        name, now = escape_surrogates(reviewer.strip()), datetime.now(UTC)
        return self.set_reviews({number: Review(_class_name(label), name, now) for number, label in labels.items()})

    def withdraw(self, number: int) -> Cell:
        """Delete the review of a cell: the model's class holds again.

        Raises:
            WbcError: No such cell, or a cell that is never counted.
        """
        return self.set_reviews({number: None})[0]

    def set_reviews(self, reviews: Mapping[int, Review | None]) -> list[Cell]:
        """Replace the reviews of cells by others, of all or of none. Reviews from before undo what came after them.

        Args:
            reviews: By number of the cell; None for a cell that nobody reviewed.

        Raises:
            WbcError: No such cell, or a cell that is never counted.
        """
        with self._lock:
            for number in reviews:
                self._check_reviewable(number)
            for number, review in reviews.items():
                self._cells[number - 1] = replace(self._cells[number - 1], review=review)
            return [self._cells[number - 1] for number in reviews]

    def remove(self, number: int) -> None:
        """Remove a picture that does not belong to the specimen: its cells are no longer counted.

        The first of the other pictures that shows one of them whole is counted in its place.

        Raises:
            WbcError: No such picture.
        """
        with self._lock:
            if not 1 <= number <= len(self._pictures):
                raise WbcError(f"picture {number}: there are {len(self._pictures)}, numbered from 1.")
            if self._pictures[number - 1].removed:
                return
            self._pictures[number - 1] = replace(self._pictures[number - 1], removed=True)
            stand_ins = self._stand_ins[number] = {}
            removed = {cell.number for cell in self._cells if cell.picture == number and not cell.removed}
            self._went[number] = removed
            successors: dict[int, int] = {}
            for index, cell in enumerate(self._cells):
                original = cell.duplicate_of
                if cell.number in removed:
                    self._cells[index] = replace(cell, removed=True)
                elif original is not None and original in removed:
                    stand_ins[cell.number] = original
                    self._cells[index] = replace(cell, duplicate_of=successors.get(original))
                    if not cell.cut or cell.review is not None:
                        successors.setdefault(original, cell.number)

    def discard(self, number: int) -> None:
        """Take out one cell, that a person pointed at by mistake."""
        with self._lock:
            self._cells[number - 1] = replace(self._cells[number - 1], removed=True)

    def add_stand_ins(self, picture: int, originals: Mapping[int, int]) -> None:
        """Record which cells of a picture show what a removed picture shows too, so that both are never counted.

        Args:
            picture: Number of the picture.
            originals: By index of its cells, the number of the cell of the removed picture.
        """
        with self._lock:
            numbers = [cell.number for cell in self._cells if cell.picture == picture]
            for index, original in originals.items():
                removed = self._cells[original - 1].picture
                if removed in self._stand_ins:
                    self._stand_ins[removed][numbers[index]] = original

    def put_back(self, number: int) -> None:
        """Put a removed picture back: its cells are counted as before, and those that stood in for them are not.

        Raises:
            WbcError: No such picture, or one that was not removed.
        """
        with self._lock:
            if number not in self._stand_ins:
                raise WbcError(f"picture {number}: was not taken out.")
            self._pictures[number - 1] = replace(self._pictures[number - 1], removed=False)
            for duplicate, original in self._stand_ins.pop(number).items():
                self._cells[duplicate - 1] = replace(self._cells[duplicate - 1], duplicate_of=original)
            for back in self._went.pop(number):
                self._cells[back - 1] = replace(self._cells[back - 1], removed=False)

    def sign(self, reviewer: str) -> None:
        """Give all reviews without a name the name of this reviewer."""
        name = escape_surrogates(reviewer.strip())
        with self._lock:
            for index, cell in enumerate(self._cells):
                if cell.review is not None and not cell.review.reviewer:
                    self._cells[index] = replace(cell, review=replace(cell.review, reviewer=name))

    def _append(self, picture: int, cell: Cell) -> Cell:
        image = cell.image
        numbered = replace(cell, crop=self._store.keep(image), number=len(self._cells) + 1, picture=picture)
        self._cells.append(numbered)
        self.size += len(image)
        return numbered

    def _check_reviewable(self, number: int) -> None:
        if not 1 <= number <= len(self._cells):
            raise WbcError(f"cell {number}: there are {len(self._cells)} cells, numbered from 1.")
        cell = self._cells[number - 1]
        if cell.state in NEVER_COUNTED:
            reasons = {
                CellState.REMOVED: "its picture was removed",
                CellState.DUPLICATE: f"it is cell {cell.duplicate_of} again",
            }
            raise WbcError(f"cell {number}: is never counted, since {reasons[cell.state]}.")


def _class_name(label: str | None) -> str | None:
    index = None if label is None else class_index(label)
    if label is not None and index is None:
        raise WbcError(f"{label}: is not one of {', '.join(CLASS_NAMES)}.")
    return None if index is None else CLASS_NAMES[index]
