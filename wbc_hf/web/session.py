"""What one visitor works on: a specimen, and which part of it lies under the lens."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from weakref import WeakValueDictionary

from wbc_hf.errors import WbcError
from wbc_hf.inference.predictor import Predictor
from wbc_hf.smear import Cell, CellCounter, CellState, Picture, Specimen
from wbc_hf.web.uploads import MAX_FILES

# Of the pictures that are kept, in bytes: what a machine with 4 GB has to spare beside a model.
MAX_BYTES, MAX_BYTES_OF_ALL = 2**28, 2**30


class Shown(StrEnum):
    """Which cells the gallery shows."""

    WAITING = "waiting"
    COUNTED = "counted"
    ALL = "all"


@dataclass(frozen=True)
class View:
    """What lies under the lens, at one moment.

    Attributes:
        pictures: Of the specimen.
        cells: Of the specimen.
        picture: The one that is shown, or None where there is none.
        cell: The one that is chosen, or None.
        last: The one that a person said something of last, or None.
        shown: Which cells the gallery shows.
    """

    pictures: tuple[Picture, ...]
    cells: tuple[Cell, ...]
    picture: Picture | None
    cell: Cell | None
    last: Cell | None
    shown: Shown

    @property
    def cells_of_picture(self) -> tuple[Cell, ...]:
        """Those in the picture that is shown."""
        number = self.picture.number if self.picture else None
        return tuple(cell for cell in self.cells if cell.picture == number)

    @property
    def gallery(self) -> tuple[Cell, ...]:
        """Those that the gallery shows."""
        return tuple(cell for cell in self.cells if self.shown is Shown.ALL or cell.state == self.shown)


class Session:
    """One visitor's specimen.

    Attributes:
        model: Which model answers.
        specimen: What was found and said so far.
        counter: Adds further pictures.
        thumbnails: By number of the cell, its picture as an address: made once, sent often.
        lock: Held by whoever acts and draws what came of it, so that the last drawing shows the last act.
        readings: How many are being read in, files that came together counting once.
        stopped: Whether the visitor wants no more of them; so is a session that was put away.
    """

    def __init__(self, predictor: Predictor):
        self.model = predictor.identity
        self.specimen = Specimen()
        self.counter = CellCounter(predictor, self.specimen)
        self.thumbnails: dict[int, str] = {}
        self.lock = threading.Lock()
        self.readings = 0
        self.stopped = False
        self._picture = 0
        self._cell = 0
        self._shown = Shown.WAITING
        self._last = 0

    @property
    def view(self) -> View:
        """What lies under the lens."""
        pictures, cells = self.specimen.contents()
        return View(
            pictures,
            cells,
            pictures[self._picture - 1] if self._picture else None,
            cells[self._cell - 1] if self._cell else None,
            cells[self._last - 1] if self._last else None,
            self._shown,
        )

    def check_room(self, count: int) -> None:
        """Ask whether so many pictures more can be taken in.

        Raises:
            WbcError: They would be more than `MAX_FILES`, or the specimen is too large already.
        """
        there = len(self.specimen.pictures)
        if there + count > MAX_FILES:
            raise WbcError(
                f"{count} pictures and {there} that are here already: at most {MAX_FILES} make a specimen. "
                "Choose fewer, or count them with `wbc-hf count`."
            )
        if self.specimen.size > MAX_BYTES:
            raise WbcError(f"{len(self.specimen.cells)} cells are as many as a specimen on this page can hold.")

    def show_picture(self, number: int) -> None:
        """Lay a picture under the lens, and choose its first cell that waits, else its first; no cell in an empty one.

        Raises:
            WbcError: No such picture.
        """
        if not 1 <= number <= len(self.specimen.pictures):
            raise WbcError(f"picture {number}: there are {len(self.specimen.pictures)}, numbered from 1.")
        self._picture = number
        cells = self.view.cells_of_picture
        self._cell = next((cell.number for cell in (*_waiting(cells), *cells)), 0)

    def show_cell(self, number: int) -> None:
        """Choose a cell, and lay its picture under the lens.

        Raises:
            WbcError: No such cell.
        """
        if not 1 <= number <= len(self.specimen.cells):
            raise WbcError(f"cell {number}: there are {len(self.specimen.cells)}, numbered from 1.")
        self._cell = number
        self._picture = self.specimen.cells[number - 1].picture

    def show_gallery(self, shown: str) -> None:
        """Choose which cells the gallery shows.

        Raises:
            ValueError: None of `Shown`.
        """
        self._shown = Shown(shown)

    def review(self, number: int, label: str | None, reviewer: str) -> None:
        """Write down what a person says of a cell, and go on to the next that waits if this one did.

        Raises:
            WbcError: From `Specimen.review`.
        """
        waited = number in {cell.number for cell in _waiting(self.specimen.cells)}
        self.specimen.review(number, label, reviewer)
        self._last = number
        waiting = _waiting(self.specimen.cells)
        if not waited or not waiting:
            self.show_cell(number)
            return
        following = [cell.number for cell in waiting if cell.number > number]
        self.show_cell(following[0] if following else waiting[0].number)

    def add_cell(self, picture: int, place: str) -> None:
        """Take in a cell that was not found, and choose it.

        Args:
            picture: Number of the picture.
            place: "x,y" in pixels of the picture.

        Raises:
            WbcError: From `CellCounter.add_missed_cell`, or no room for it.
        """
        self.check_room(0)
        x, y = map(float, place.split(","))
        self.show_cell(self.counter.add_missed_cell(picture, x, y).number)

    def remove(self, number: int) -> None:
        """Take out a picture that does not belong to the specimen.

        Raises:
            WbcError: No such picture.
        """
        self.specimen.remove(number)
        self.show_picture(number)

    def withdraw(self, number: int) -> None:
        """Take back what a person said of a cell, and choose it.

        Raises:
            WbcError: From `Specimen.withdraw`.
        """
        self.specimen.withdraw(number)
        self.show_cell(number)


class Sessions:
    """The sessions of all visitors, by Gradio's session hash.

    They live in Gradio's session state, in the server's memory, and go with it; nothing is written to a disk. What
    stands here sees to it that two events which come at once, before there is a state, get one and the same.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._benches: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, session: str) -> Session:
        """The session of a visitor, a new one where it has none.

        Raises:
            WbcError: All sessions together hold as much as the machine can.
        """
        with self._lock:
            if session := self._benches.get(session):
                return session
            if sum(session.specimen.size for session in self._benches.values()) > MAX_BYTES_OF_ALL:
                raise WbcError("This page holds as many specimens as it can. Try again in some minutes.")
            return self._new(session)

    def renew(self, session: str) -> Session:
        """A new session in the place of the session's old one, for which nothing is read any more."""
        with self._lock:
            if old := self._benches.pop(session, None):
                old.stopped = True
            return self._new(session)

    def _new(self, session: str) -> Session:
        session = self._benches[session] = Session(self._predictor)
        return session


def _waiting(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.state is CellState.WAITING]
