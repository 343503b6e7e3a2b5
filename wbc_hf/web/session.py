"""The session of one visitor: a specimen, and which picture and cell of it are shown."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import uuid4
from weakref import WeakValueDictionary

from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import ModelIdentity, Predictor
from wbc_hf.smear import (
    Cell,
    CellCounter,
    CellState,
    LaboratoryCheck,
    Origin,
    Picture,
    Specimen,
    check_laboratory,
    next_to_teach,
)
from wbc_hf.web.adapting import Adapted
from wbc_hf.web.remarks import Remark, RemarkKind
from wbc_hf.web.uploads import MAX_PICTURES, Upload, read_upload

# Of the pictures that are kept, in bytes on the disk.
MAX_BYTES, MAX_BYTES_OF_ALL = 2**30, 2**32


class Shown(StrEnum):
    """Which cells the gallery shows."""

    WAITING = "waiting"
    COUNTED = "counted"
    ALL = "all"


@dataclass(frozen=True)
class View:
    """What a session shows at one moment.

    Attributes:
        pictures: Of the specimen.
        cells: Of the specimen.
        picture: The one that is shown, or None where there is none.
        cell: The one that is chosen, or None.
        last: The one that was reviewed last, or None.
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
        return tuple(cell for cell in self.cells if self.picture and cell.picture == self.picture.number)

    @property
    def gallery(self) -> tuple[Cell, ...]:
        """Those that the gallery shows."""
        return tuple(cell for cell in self.cells if self.shown is Shown.ALL or cell.state == self.shown)


class Session:
    """One visitor's specimen.

    Attributes:
        key: Tells this specimen from all others.
        predictor: The model in use: the page's, or one adapted to the visitor's laboratory.
        laboratory: Name of the kept laboratory in use; None without one.
        adapted: The model that was adapted in this session last, and is not kept under a name.
        cancelled: Whether the adaptation that runs is to stop.
        specimen: What was found and reviewed so far.
        counter: Adds pictures to it.
        thumbnails: Of each cell by its number, as data URLs: made once, sent often.
        lock: Hold it to change what is shown and to render that, so that the last rendering shows the last change.
        readings: Number of uploads that are being read.
        stopped: Whether reading is to stop, because the visitor says so or the specimen was put away.
    """

    def __init__(self, predictor: Predictor):
        self.key = uuid4().hex
        self.predictor = predictor
        self.laboratory: str | None = None
        self.adapted: Adapted | None = None
        self.cancelled = False
        self.specimen = Specimen()
        self.counter = CellCounter(predictor, self.specimen)
        self.thumbnails: dict[int, str] = {}
        self.lock = threading.RLock()
        self.readings = 0
        self.stopped = False
        # Numbers from 1; 0 for none.
        self._picture = self._cell = self._last = 0
        self._shown = Shown.WAITING

    @property
    def model(self) -> ModelIdentity:
        """Name and version of the model in use."""
        return self.predictor.identity

    @property
    def check(self) -> LaboratoryCheck:
        """Whether the cells are of a laboratory that the model in use has learned."""
        return check_laboratory(self.specimen.cells, self.predictor.calibration)

    def use(self, predictor: Predictor, laboratory: str | None = None) -> None:
        """Predict all cells again by another model, and what is read from now on; reviews stay.

        Args:
            predictor: Of the page's model, or of one that was adapted from it.
            laboratory: Name of the kept laboratory that it is of.
        """
        self.counter.use(predictor)
        with self.lock:
            self.predictor, self.laboratory = predictor, laboratory

    @property
    def view(self) -> View:
        """What is shown now."""
        pictures, cells = self.specimen.contents()
        return View(
            pictures,
            cells,
            pictures[self._picture - 1] if self._picture else None,
            cells[self._cell - 1] if self._cell else None,
            cells[self._last - 1] if self._last else None,
            self._shown,
        )

    def check_room(self, count: int = 1) -> None:
        """Check that the specimen has room for `count` more pictures.

        Raises:
            WbcError: There would be more than `MAX_PICTURES`, or the specimen is too large already.
        """
        if len(self.specimen.pictures) + count > MAX_PICTURES:
            raise WbcError(
                f"A specimen on this page holds {MAX_PICTURES:,} pictures at most. `wbc-hf count` reads any number."
            )
        if self.specimen.size > MAX_BYTES:
            raise WbcError(f"{len(self.specimen.cells)} cells are as many as a specimen on this page can hold.")

    def read(self, upload: Upload, *, is_field: bool | None) -> Remark | None:
        """Read a picture into the specimen.

        The first one with a cell is shown. Later ones are not: they would interrupt the review.

        Args:
            upload: The picture.
            is_field: Whether it is a photograph of a smear, else of one cell; None finds out.

        Returns:
            What a person should know of the picture; None where there is nothing.

        Raises:
            WbcError: The specimen has no room for it.
        """
        self.check_room()
        try:
            picture = self.counter.add_image(read_upload(upload), upload.name, whole_field=is_field)
        except UnreadableImageError as error:
            return Remark(RemarkKind.UNREADABLE, error.name, error.reason)
        cells = [cell for cell in self.specimen.cells if cell.picture == picture.number]
        with self.lock:
            if self.view.picture is None or (self.view.cell is None and cells):
                self.show_picture(picture.number)
        if not cells:
            return Remark(RemarkKind.EMPTY, upload.name, "no leucocyte was found in it")
        states = {cell.state for cell in cells}
        if CellState.DUPLICATE in states and states <= {CellState.DUPLICATE, CellState.CUT}:
            reason = "shows nothing that was not seen before, so none of its cells is counted again"
            return Remark(RemarkKind.SEEN, upload.name, reason)
        return None

    def act(self, action: str, number: int, value: str | None = None, reviewer: str = "") -> None:
        """Do what a button of the page says.

        Args:
            action: "picture" or "cell" shows one, "gallery" chooses which cells the gallery shows, "label" reviews a
                cell, "withdraw" takes a review back, "add" adds a cell that was not found, "remove" takes a picture
                out.
            number: Of the picture or cell.
            value: One of `Shown`, the class of the cell (None for none of the five), or "x,y" of a new cell in pixels.
            reviewer: Who reviews the cell.

        Raises:
            WbcError: There is no such action, picture or cell, or the cell cannot be reviewed or added.
        """
        with self.lock:
            match action:
                case "picture":
                    self.show_picture(number)
                case "cell":
                    self.show_cell(number)
                case "gallery":
                    self._shown = Shown(value or "")
                case "label":
                    self.review(number, value, reviewer)
                case "withdraw":
                    self.specimen.withdraw(number)
                    self.show_cell(number)
                case "remove":
                    self.specimen.remove(number)
                    self.show_picture(number)
                case "add":
                    self.check_room(0)
                    x, y = map(float, (value or "").split(","))
                    self.show_cell(self.counter.add_missed_cell(number, x, y).number)
                case _:
                    raise WbcError(f"{action}: no button of the page does this.")

    def show_picture(self, number: int) -> None:
        """Show a picture, and choose its first waiting cell, else its first.

        Raises:
            WbcError: No such picture.
        """
        if not 1 <= number <= len(self.specimen.pictures):
            raise WbcError(f"picture {number}: there are {len(self.specimen.pictures)}, numbered from 1.")
        self._picture = number
        cells = self.view.cells_of_picture
        self._cell = next((cell.number for cell in (*_waiting(cells), *cells)), 0)

    def show_cell(self, number: int) -> None:
        """Choose a cell, and show its picture.

        Raises:
            WbcError: No such cell.
        """
        if not 1 <= number <= len(self.specimen.cells):
            raise WbcError(f"cell {number}: there are {len(self.specimen.cells)}, numbered from 1.")
        self._cell = number
        self._picture = self.specimen.cells[number - 1].picture

    def review(self, number: int, label: str | None, reviewer: str) -> None:
        """Record a person's class of a cell, and choose the next waiting cell if this one was waiting.

        Raises:
            WbcError: From `Specimen.review`.
        """
        was_waiting = number in {cell.number for cell in _waiting(self.specimen.cells)}
        self.specimen.review(number, label, reviewer)
        self._last = number
        self.show_cell((self._next_waiting(number) or number) if was_waiting else number)

    def start_review(self) -> None:
        """Choose the first cell to review, where nobody has reviewed one and the chosen one does not wait."""
        cells = self.specimen.cells
        untouched = all(cell.review is None for cell in cells)
        if untouched and self._cell and cells[self._cell - 1].state is not CellState.WAITING:
            self.show_cell(self._next_waiting(0) or self._cell)

    def _next_waiting(self, number: int) -> int | None:
        """The next waiting cell after one that was reviewed; of another laboratory the one that teaches most."""
        cells = self.specimen.cells
        if self.check.origin is Origin.ANOTHER:
            best = next_to_teach(cells)
            return None if best is None else best.number
        waiting = [cell.number for cell in _waiting(cells)]
        return next((other for other in waiting if other > number), waiting[0] if waiting else None)


class Sessions:
    """The sessions of all visitors, by Gradio's session hash.

    They live in Gradio's session state, in memory, and go with it. These weak references give two events that come at
    once, before there is a state, the same session.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, session_hash: str | None) -> Session:
        """The session of a visitor, a new one if necessary.

        Raises:
            WbcError: All sessions together hold as much as the machine can.
        """
        with self._lock:
            if session := self._sessions.get(str(session_hash)):
                return session
            if sum(session.specimen.size for session in self._sessions.values()) > MAX_BYTES_OF_ALL:
                raise WbcError("This page holds as many specimens as it can. Try again in some minutes.")
            return self._add(session_hash)

    def renew(self, session_hash: str | None) -> Session:
        """Replace the session of a visitor by a new one, and stop reading into the old one."""
        with self._lock:
            if old := self._sessions.pop(str(session_hash), None):
                old.stopped = True
            return self._add(session_hash)

    def _add(self, session_hash: str | None) -> Session:
        session = Session(self._predictor)
        self._sessions[str(session_hash)] = session
        return session


def _waiting(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.state is CellState.WAITING]
