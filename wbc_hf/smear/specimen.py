"""One specimen: its pictures, the cells found in them, what the model says and what a person says of it.

A person's word replaces the model's. Cells of which the model is not sure wait for one, and are not counted before.
What the border of a field cuts off, and what another picture shows already, is never counted.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from wbc_hf.data import Box
from wbc_hf.errors import WbcError
from wbc_hf.inference.predictor import Prediction
from wbc_hf.labels import CLASS_NAMES, class_index


class State(StrEnum):
    """What becomes of a cell."""

    COUNTED = "counted"
    WAITING = "waiting"  # for a person: the model is not sure
    REJECTED = "rejected"  # a person said that it is none of the five
    CUT = "cut"  # by the border of the field
    COPY = "copy"  # of a cell that an earlier picture shows
    REMOVED = "removed"  # by a person, with its picture


NEVER_COUNTED = (State.CUT, State.COPY, State.REMOVED)


@dataclass(frozen=True)
class Review:
    """What a person said of a cell.

    Attributes:
        label: One of `CLASS_NAMES`, or None: it is none of these five.
        reviewer: Who said so; "" where nobody gave a name.
        time: When, in UTC.
    """

    label: str | None
    reviewer: str
    time: datetime


@dataclass(frozen=True)
class Picture:
    """One picture of a specimen.

    Attributes:
        number: From 1, in the order in which they came.
        name: The file's name, without folders.
        size: Width and height in pixels.
        is_field: Whether it is a photograph of a smear; else a picture of one cell.
        preview: JPEG, as wide and high as the picture or smaller.
        removed: Whether a person took it out: it does not belong to the specimen.
    """

    number: int
    name: str
    size: tuple[int, int]
    is_field: bool
    preview: bytes
    removed: bool = False


@dataclass(frozen=True)
class Cell:
    """One leucocyte in one picture.

    Attributes:
        number: From 1, over all pictures of the specimen.
        picture: Number of the picture.
        box: Round the cell, in pixels of the picture.
        cut: Whether the border of the field cuts it off.
        copy_of: Number of the cell that an earlier picture shows of the same leucocyte, or None.
        prediction: What the model says.
        image: What the model saw of it, PNG, RGB.
        review: What a person says, or None.
        removed: Whether a person took its picture out.
    """

    number: int
    picture: int
    box: Box
    cut: bool
    copy_of: int | None
    prediction: Prediction
    image: bytes
    review: Review | None = None
    removed: bool = False

    @property
    def state(self) -> State:
        """What becomes of it."""
        if self.removed:
            return State.REMOVED
        if self.copy_of is not None:
            return State.COPY
        if self.cut:
            return State.CUT
        if self.review is not None:
            return State.COUNTED if self.review.label is not None else State.REJECTED
        sure = self.prediction.status == "confident" and self.suggestion is not None
        return State.COUNTED if sure else State.WAITING

    @property
    def suggestion(self) -> str | None:
        """The class the model gives, one of `CLASS_NAMES`; None where a model of more classes gives another."""
        index = class_index(self.prediction.label)
        return None if index is None else CLASS_NAMES[index]

    @property
    def label(self) -> str | None:
        """The class that holds: the person's, else the model's; None where a person said that it is none."""
        return self.suggestion if self.review is None else self.review.label

    @property
    def corrected(self) -> bool:
        """Whether a person said something else than the model."""
        return self.review is not None and self.review.label != self.suggestion


@dataclass(frozen=True)
class NewCell:
    """A cell on its way into a specimen, which gives it its number; attributes as in `Cell`."""

    box: Box
    cut: bool
    copy_of: int | None
    prediction: Prediction
    image: bytes


class Specimen:
    """The pictures and cells of one specimen. Safe to use from several threads.

    Attributes:
        name: How the laboratory calls it.
        leucocytes: Total leucocyte count in 10⁹/l, or None.
        size: Bytes of all pictures.
    """

    def __init__(self, name: str = ""):
        self.name = name
        self.leucocytes: float | None = None
        self.size = 0
        self._lock = threading.Lock()
        self._pictures: list[Picture] = []
        self._cells: list[Cell] = []

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """In the order of their numbers."""
        with self._lock:
            return tuple(self._pictures)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of their numbers."""
        with self._lock:
            return tuple(self._cells)

    def contents(self) -> tuple[tuple[Picture, ...], tuple[Cell, ...]]:
        """All pictures and all cells at one moment: asked one after the other, a picture may come in between."""
        with self._lock:
            return tuple(self._pictures), tuple(self._cells)

    def add(
        self, name: str, size: tuple[int, int], preview: bytes, cells: Sequence[NewCell], *, is_field: bool
    ) -> Picture:
        """Take in a picture with what was found in it; both get their numbers.

        Bytes of the name that are no text are spelt out: no export could write them.
        """
        name = name.encode(errors="backslashreplace").decode()
        with self._lock:
            picture = Picture(len(self._pictures) + 1, name, size, is_field, preview)
            self._pictures.append(picture)
            self.size += len(preview)
            for new in cells:
                self._append(picture.number, new)
            return picture

    def add_cell(self, picture: int, new: NewCell) -> Cell:
        """Take in a cell that a person found in a picture that is here already; it gets the next number of all."""
        with self._lock:
            return self._append(picture, new)

    def review(self, number: int, label: str | None, reviewer: str = "") -> Cell:
        """Write down what a person says of a cell, in the place of what was said before.

        Args:
            number: Of the cell.
            label: A class in any known spelling, or None: none of the five.
            reviewer: Who says so.

        Raises:
            WbcError: No such cell, a cell that is never counted, or no such class.
        """
        index = None if label is None else class_index(label)
        if label is not None and index is None:
            raise WbcError(f"{label}: is none of {', '.join(CLASS_NAMES)}.")
        name = None if index is None else CLASS_NAMES[index]
        return self._change(number, Review(name, reviewer.strip(), datetime.now(UTC)))

    def withdraw(self, number: int) -> Cell:
        """Take back what a person said of a cell: the model's word holds again.

        Raises:
            WbcError: No such cell, or a cell that is never counted.
        """
        return self._change(number, None)

    def remove(self, number: int) -> None:
        """Take out a picture that does not belong to the specimen: its cells are not counted any more.

        Where another picture shows one of them too, the first that shows it whole is counted in its place.

        Raises:
            WbcError: No such picture.
        """
        with self._lock:
            if not 1 <= number <= len(self._pictures):
                raise WbcError(f"picture {number}: there are {len(self._pictures)}, numbered from 1.")
            self._pictures[number - 1] = replace(self._pictures[number - 1], removed=True)
            gone = {cell.number for cell in self._cells if cell.picture == number}
            heirs: dict[int, int] = {}
            for index, cell in enumerate(self._cells):
                if cell.number in gone:
                    self._cells[index] = replace(cell, removed=True)
                elif cell.copy_of in gone:
                    self._cells[index] = replace(cell, copy_of=heirs.get(cell.copy_of))
                    if not cell.cut:
                        heirs.setdefault(cell.copy_of, cell.number)

    def sign(self, reviewer: str) -> None:
        """Give what was said without a name the name of whoever says now that it was them; "" changes nothing."""
        with self._lock:
            for index, cell in enumerate(self._cells):
                if cell.review is not None and not cell.review.reviewer:
                    self._cells[index] = replace(cell, review=replace(cell.review, reviewer=reviewer.strip()))

    def _append(self, picture: int, new: NewCell) -> Cell:
        cell = Cell(len(self._cells) + 1, picture, new.box, new.cut, new.copy_of, new.prediction, new.image)
        self._cells.append(cell)
        self.size += len(new.image)
        return cell

    def _change(self, number: int, review: Review | None) -> Cell:
        with self._lock:
            if not 1 <= number <= len(self._cells):
                raise WbcError(f"cell {number}: there are {len(self._cells)} cells, numbered from 1.")
            cell = self._cells[number - 1]
            if cell.state in NEVER_COUNTED:
                reason = {
                    State.REMOVED: "its picture was taken out",
                    State.COPY: f"it is cell {cell.copy_of} again",
                    State.CUT: "the border cuts it off",
                }[cell.state]
                raise WbcError(f"cell {number}: is not counted, whatever it is, since {reason}.")
            changed = replace(cell, review=review)
            self._cells[number - 1] = changed
            return changed


def count_cells(cells: Iterable[Cell]) -> dict[str, int]:
    """Counted cells by class name, all five."""
    counted = Counter(cell.label for cell in cells if cell.state is State.COUNTED)
    return {name: counted[name] for name in CLASS_NAMES}
