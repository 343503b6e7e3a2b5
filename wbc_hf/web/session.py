"""The session of one visitor: a specimen, and which picture and cell of it are shown."""

import secrets
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import uuid4
from weakref import WeakValueDictionary

from wbc_hf.data import read_pixel_size
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import ModelIdentity, Neighbour, Predictor
from wbc_hf.smear import (
    NEVER_COUNTED,
    NO_TYPES,
    Cell,
    CellCounter,
    CellState,
    CellType,
    CellTypes,
    ChangedMeanwhileError,
    LaboratoryCheck,
    Origin,
    Picture,
    Review,
    Specimen,
    check_laboratory,
    count_found,
    next_to_teach,
)
from wbc_hf.web.adapting import Adapted
from wbc_hf.web.full_pictures import FullPictures
from wbc_hf.web.meanwhile import Meanwhile
from wbc_hf.web.remarks import Remark, RemarkKind
from wbc_hf.web.turns import current_user, current_visitor, turn
from wbc_hf.web.uploads import MAX_PICTURES, Upload, pixels_of, read_upload

# Of the pictures that are kept, in bytes on the disk: of one specimen, of one visitor's, and of all.
MAX_BYTES, MAX_BYTES_OF_ONE, MAX_BYTES_OF_ALL = 2**30, 2**31, 2**32
MAX_SESSIONS = 256  # of one visitor; people of one laboratory may share an address, and reload their pages


SIGNED = "This specimen is signed: it can only be amended, and nothing is read into it or changed before."
NOT_KEPT = "is not kept in full resolution, for want of memory: give it once more"

# Makes an empty specimen of a user, whose cells this model predicts.
Begin = Callable[[str, ModelIdentity], Specimen]

# In place of a class: what the model proposes for each cell.
ACCEPT = "accept"


@dataclass(frozen=True)
class View:
    """What a session shows at one moment.

    Attributes:
        pictures: Of the specimen.
        cells: Of the specimen.
        picture: The one that is shown, or None where there is none.
        cell: The one that is chosen, or None.
        undo: What would be undone next, in words; "" where there is nothing.
        secret: Of the session.
        in_full: Whether the picture is kept in full resolution, beside its preview.
        kept: Whether a store keeps the specimen.
        types: The laboratory's own.
        signed: That the specimen is signed, so that no review can be changed, in words; "" where it is not.
    """

    pictures: tuple[Picture, ...]
    cells: tuple[Cell, ...]
    picture: Picture | None
    cell: Cell | None
    undo: str
    secret: str
    in_full: bool
    kept: bool
    types: CellTypes
    signed: str

    @property
    def cells_of_picture(self) -> tuple[Cell, ...]:
        """Those in the picture that is shown, without those that were pointed at by mistake."""
        if self.picture is None:
            return ()
        cells = (cell for cell in self.cells if cell.picture == self.picture.number)
        return tuple(cell for cell in cells if self.picture.removed or not cell.removed)

    @cached_property
    def next_waiting(self) -> int | None:
        """Number of the next cell after the chosen one that waits for review; None where none does."""
        return _next_of([cell.number for cell in _waiting(self.cells)], self.cell.number if self.cell else 0)

    @property
    def beside(self) -> tuple[int | None, int | None]:
        """Numbers of the cells before and after the chosen one, picture by picture; without removed pictures."""
        here = (self.picture.number if self.picture else 0, self.cell.number if self.cell else 0)
        places = sorted((cell.picture, cell.number) for cell in self.cells if not cell.removed)
        before, after = bisect_left(places, here), bisect_right(places, here)
        return (
            places[before - 1][1] if before else None,
            places[after][1] if after < len(places) else None,
        )


@dataclass(frozen=True)
class _Step:
    """Something that a person did to a specimen: what, in words that follow "Undo", and what undoes it, by whom."""

    title: str
    undo: Callable[[str], None]


class Session:
    """One visitor's specimen.

    Attributes:
        key: Tells this specimen from all others.
        secret: Opens the pictures of this specimen; only the visitor's page knows it.
        predictor: The model in use: the page's, or one adapted to the visitor's laboratory.
        laboratory: Name of the kept laboratory in use; None without one.
        adapted: The model that was adapted in this session last, and is not kept under a name.
        cancelled: Whether the adaptation that runs is to stop.
        specimen: What was found and reviewed so far.
        meanwhile: What the visitor knows of it, where others may change it too.
        counter: Adds pictures to it.
        full_pictures: Pictures in full resolution, as many as there is room for.
        neighbours: Reference cells most similar to a cell, by its number: searched once.
        version: Number of times that the gallery was rendered, so that the browser knows the newest.
        ticket: Number that the browser gave to the last change of the gallery that was answered.
        lock: Hold it to change what is shown and to render that, so that the last rendering shows the last change.
        readings: Number of uploads that are being read.
        unread: What was given and not read, because reading stopped before.
        doubtful: Numbers of the pictures that were read as what a person chose and look like something else, until
            they are read otherwise or others are given.
        stopped: Whether reading is to stop, because the visitor says so or the specimen was put away.
        visitor: User name or address of whose it is.
        user: Name of the user who signed in; "" where nobody has to.
        types: The laboratory's own, which a person may name in review.
    """

    def __init__(self, predictor: Predictor, begin: Begin = lambda *_: Specimen(), types: CellTypes = NO_TYPES):
        self.types = types
        self.visitor, _ = current_visitor()
        self.user, self._begin = current_user(), begin
        self.secret = secrets.token_urlsafe()
        self.predictor = predictor
        self.laboratory: str | None = None
        self.adapted: Adapted | None = None
        self.cancelled = False
        self.full_pictures = FullPictures()
        self.version = self.ticket = 0
        self.lock = threading.RLock()
        self.readings = 0
        self.stopped = False
        self.take(self.new_specimen())

    @property
    def model(self) -> ModelIdentity:
        """Name and version of the model that predicted the cells: of a specimen that was loaded it may be another."""
        return self.specimen.about.model or self.predictor.identity

    def new_specimen(self) -> Specimen:
        """An empty specimen, in the store where there is one."""
        return self._begin(self.user, self.predictor.identity)

    def take(self, specimen: Specimen) -> None:
        """Show a specimen, the first one or one that was loaded, in place of the one so far.

        Raises:
            WbcError: Photographs are being read, which would end up in the other.
        """
        with self.lock:
            if self.readings:
                raise WbcError("Photographs are being read into the specimen that is open. Stop that first.")
            # Of one in a store the key there, so that it stays when the specimen is reopened.
            self.key = str(getattr(specimen, "key", None) or uuid4().hex)
            self.meanwhile = Meanwhile(specimen)
            self.specimen, self.counter = specimen, CellCounter(self.predictor, specimen)
            self.full_pictures.clear()
            self.neighbours: dict[int, tuple[Neighbour, ...]] = {}
            self.unread: list[Upload | UnreadableImageError] = []
            self.doubtful: list[int] = []
            # Numbers from 1; 0 for none.
            self._picture = self._cell = 0
            self._steps: list[_Step] = []
            # By number of a picture that was read once more: the number that it got then.
            self._read_again: dict[int, int] = {}
            self._touched = False  # by a person, who then decides what is shown
            if specimen.pictures:
                self.show_picture(1)
                self.start_review()

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
        contents = self.specimen.contents
        pictures, cells = contents.pictures, contents.cells
        return View(
            pictures,
            cells,
            pictures[self._picture - 1] if self._picture else None,
            cells[self._cell - 1] if self._cell else None,
            self._steps[-1].title if self._steps else "",
            self.secret,
            self._picture in self.full_pictures,
            hasattr(self.specimen, "key"),
            self.types,
            SIGNED if self.specimen.about.signature is not None else "",
        )

    @property
    def shows_picture(self) -> bool:
        """Whether there is a picture to show: a moment after the first one is in the specimen."""
        return self._picture > 0

    @property
    def leucocytes(self) -> int:
        """Number of cells that are counted, or will be if a person says so."""
        return count_found(self.specimen.cells)

    @property
    def size(self) -> int:
        """Bytes of all pictures that are kept."""
        return self.specimen.size + self.full_pictures.size

    def check_room(self, count: int = 1) -> None:
        """Check that the specimen has room for `count` more pictures.

        Raises:
            WbcError: There would be more than `MAX_PICTURES`, the specimen is too large already, another model
                predicted its cells, or it is signed.
        """
        if self.specimen.about.signature is not None:
            raise WbcError(SIGNED)
        model = self.specimen.about.model
        if count and model is not None and model.version != self.predictor.identity.version:
            raise WbcError(
                f"This specimen was counted by {model.name}, version {model.version}, and not by the model in use: "
                "photographs are not added to it. Press “New specimen” for them."
            )
        if len(self.specimen.pictures) + count > MAX_PICTURES:
            raise WbcError(
                f"A specimen on this page holds {MAX_PICTURES:,} pictures at most. `wbc-hf count` reads any number."
            )
        if self.specimen.size > MAX_BYTES:
            raise WbcError(f"{len(self.specimen.cells)} cells are as many as a specimen on this page can hold.")

    def read(self, upload: Upload, *, is_field: bool | None) -> Remark | None:
        """Read a picture into the specimen.

        The first one is shown, then the first with a cell that waits. Later ones are not, and none once a person acts:
        that would interrupt the review.

        Args:
            upload: The picture.
            is_field: Whether it is a photograph of a smear, else of one cell; None finds out.

        Returns:
            What a person should know of the picture; None where there is nothing.

        Raises:
            WbcError: The specimen has no room for it, or from `turn`.
        """
        self.check_room()
        if upload.replaces is not None:
            with self.lock, self.meanwhile.doing(self.user):
                self.specimen.remove(upload.replaces, self.user)
        try:
            # Not the current visitor, whom nobody knows in a thread that reads.
            with turn(pixels_of(upload), (self.visitor, self.key)):
                picture = self._add(upload, is_field)
        except WbcError as error:
            if upload.replaces is not None:
                with self.lock, self.meanwhile.doing(self.user):
                    self.specimen.put_back(upload.replaces, self.user)
            if isinstance(error, UnreadableImageError):
                return Remark(RemarkKind.UNREADABLE, error.name, error.reason)
            raise
        cells = [cell for cell in self.specimen.cells if cell.picture == picture.number]
        with self.lock:
            if upload.replaces is not None:
                self._read_again[upload.replaces] = picture.number
            shown = self.view.picture
            if shown is None or shown.number == upload.replaces or (self.view.cell is None and cells):
                self.show_picture(picture.number)
            self.start_review()
        if not cells:
            if upload.field is not None:
                return None  # of a slide's fields many have none
            return Remark(RemarkKind.EMPTY, upload.name, "no leucocyte was found in it")
        states = {cell.state for cell in cells}
        if CellState.DUPLICATE in states and states <= {CellState.DUPLICATE, CellState.CUT}:
            reason = "shows nothing that was not seen before, so none of its cells is counted again"
            return Remark(RemarkKind.SEEN, upload.name, reason)
        return None

    def _add(self, upload: Upload, is_field: bool | None) -> Picture:
        if upload.field is not None:
            return self.counter.add_slide_field(upload.field)  # whose preview has all its pixels
        image = read_upload(upload)
        pixel_size = upload.pixel_size or read_pixel_size(upload.source)
        picture = self.counter.add_image(image, upload.name, whole_field=is_field, pixel_size=pixel_size)
        self.full_pictures.keep(picture, image)
        return picture

    def read_otherwise(self) -> list[Upload | UnreadableImageError]:
        """List the doubtful pictures, to be read once more in place of what was read of them; one step to undo.

        One that is not kept in full resolution is named with that reason, and stays as it was read.
        """
        with self.lock:
            numbers, self.doubtful = self.doubtful, []
            self._steps.append(_Step("reading otherwise", lambda who: self._read_as_before(numbers, who)))
            self._touched = False  # whoever wants that reviews from the start
            if numbers:
                self.show_picture(numbers[0])
            return [self._kept(self.specimen.pictures[number - 1]) for number in numbers]

    def _kept(self, picture: Picture) -> Upload | UnreadableImageError:
        content = self.full_pictures.best(picture)
        if content is None:
            return UnreadableImageError(picture.name, NOT_KEPT)
        return Upload(content, picture.name, picture.number, picture.pixel_size)

    def act(self, action: str, number: int | Sequence[int], value: str | None = None, reviewer: str = "") -> None:
        """Do what a button of the page says.

        Args:
            action: "picture" or "cell" shows one, "label" reviews cells, "accept" reviews them as the model proposes,
                "withdraw" deletes a review, "add" adds a cell that was not found, "remove" takes a picture out, "undo"
                takes the last of these back, and then the one before.
            number: Of the picture or cell, or several of cells to review.
            value: The class or own type of the cells (None for none of these), or "x,y" of a new cell in pixels.
            reviewer: Who reviews the cells.

        Raises:
            ChangedMeanwhileError: Somebody else said something of a cell that the visitor does not know yet.
            WbcError: There is no such action, picture or cell, or the cell cannot be reviewed or added.
        """
        with self.lock, self.meanwhile.acting(reviewer):
            self._touched = True
            if action in ("label", "accept"):
                numbers = [number] if isinstance(number, int) else number
                self.review_many(numbers, ACCEPT if action == "accept" else value, reviewer)
                return
            if not isinstance(number, int):
                raise WbcError(f"{action}: concerns one picture or cell, not {len(number)}.")
            match action:
                case "picture":
                    self.show_picture(number)
                case "cell":
                    self.show_cell(number)
                case "undo":
                    self.undo(reviewer)
                case "withdraw":
                    self.withdraw(number, reviewer)
                case "remove":
                    self.specimen.remove(number, reviewer)
                    self._steps.append(_Step(f"taking out picture {number}", lambda who: self._put_back(number, who)))
                    self.show_picture(number)
                case "add":
                    self.check_room(0)
                    x, y = map(float, (value or "").split(","))
                    full = self.full_pictures.get(number)
                    added = self.counter.add_missed_cell(number, x, y, full, reviewer).number
                    self._steps.append(_Step(f"missed cell {added}", lambda who: self._discard(added, who)))
                    self.show_cell(added)
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

    def review_many(self, numbers: Sequence[int], label: str | None, reviewer: str) -> None:
        """Record a person's class of cells, and choose the next waiting cell if the last of these was waiting.

        Args:
            numbers: Of the cells.
            label: Their class or own type; None for none of these; `ACCEPT` for what the model proposes for each. Then
                those that a person has reviewed, and those that are never counted, stay as they are.
            reviewer: Who reviews them.

        Raises:
            WbcError: From `Specimen.review_many`.
        """
        cells = {cell.number: cell for cell in self.specimen.cells}
        labels: dict[int, str | CellType | None]
        if label == ACCEPT:
            labels = {it: cells[it].proposal for it in numbers if it in cells and _can_be_accepted(cells[it])}
        else:
            labels = dict.fromkeys(numbers, self.types.resolve(label))
        if not labels:
            return
        reviewed = self.specimen.review_many(labels, reviewer, self.meanwhile.known(labels))
        before, after = {it: cells[it].review for it in labels}, {cell.number: cell.review for cell in reviewed}
        *_, number = labels
        title = f"cell {number}" if len(labels) == 1 else f"{len(labels)} cells"
        self._steps.append(_Step(title, lambda who: self._review_again(before, after, who)))
        last = cells[number]
        self.show_cell((self._next_waiting(last.number) or last.number) if _waiting([last]) else last.number)

    def withdraw(self, number: int, reviewer: str = "") -> None:
        """Delete the review of a cell, and choose it.

        Raises:
            WbcError: From `Specimen.withdraw`.
        """
        cell = next((cell for cell in self.specimen.cells if cell.number == number), None)
        self.specimen.withdraw(number, reviewer, self.meanwhile.known([number]))
        if cell is not None and cell.review is not None:
            before, after = {number: cell.review}, {number: None}
            title = f"taking back cell {number}"
            self._steps.append(_Step(title, lambda who: self._review_again(before, after, who)))
        self.show_cell(number)

    def undo(self, who: str = "") -> None:
        """Undo the last thing that a person did to the specimen; nothing where there is none.

        Raises:
            ChangedMeanwhileError: Somebody else changed it since: it stays, and is no longer to be undone.
            WbcError: It could not be undone now.
        """
        if self._steps:
            try:
                self._steps[-1].undo(who)
            except ChangedMeanwhileError:
                self._steps.pop()
                raise
            self._steps.pop()

    def _review_again(
        self, reviews: Mapping[int, Review | None], after: Mapping[int, Review | None], who: str
    ) -> None:
        self.specimen.set_reviews(reviews, who, expected=after)
        self.show_cell(next(iter(reviews)))

    def _put_back(self, picture: int, who: str) -> None:
        self.specimen.put_back(picture, who)
        self.show_picture(picture)

    def _read_as_before(self, numbers: Sequence[int], who: str) -> None:
        self.stopped = True
        self.unread = [left for left in self.unread if not (isinstance(left, Upload) and left.replaces in numbers)]
        again = [number for number in numbers if number in self._read_again]
        for number in again:
            self.specimen.remove(self._read_again[number], who)
            self.specimen.put_back(number, who)
            del self._read_again[number]
        if again:
            self.show_picture(again[0])

    def _discard(self, number: int, who: str) -> None:
        self.specimen.discard(number, who, expected={number: None})  # what somebody else says of it meanwhile stays
        self.show_picture(self.specimen.cells[number - 1].picture)

    def start_review(self) -> None:
        """Choose the first cell to review, unless the chosen one waits or a person chose something."""
        chosen = self.view.cell
        if self._touched or (chosen is not None and chosen.state is CellState.WAITING):
            return
        if (first := self._next_waiting(0)) is not None:
            self.show_cell(first)

    def _next_waiting(self, number: int) -> int | None:
        """The next waiting cell after one that was reviewed; of another laboratory the one that teaches most.

        Also after a first adaptation, by which these cells are no longer of another one: it is the labels that help.
        """
        cells = self.specimen.cells
        if self.check.origin is Origin.ANOTHER or self.adapted is not None:
            best = next_to_teach(cells)
            return None if best is None else best.number
        return _next_of([cell.number for cell in _waiting(cells)], number)


class Sessions:
    """The sessions of all visitors, by Gradio's session hash.

    Args:
        predictor: The page's model.
        begin: Makes an empty specimen, by default one that is not kept.
        types: The laboratory's own.

    They live in Gradio's session state, in memory, and go with it. These weak references give two events that come at
    once, before there is a state, the same session.
    """

    def __init__(self, predictor: Predictor, begin: Begin = lambda *_: Specimen(), types: CellTypes = NO_TYPES):
        self._predictor, self._begin, self.types = predictor, begin, types
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, session_hash: str | None) -> Session:
        """The session of a visitor, a new one if necessary.

        Raises:
            WbcError: All sessions together, or those of this visitor, hold as much as they may.
        """
        with self._lock:
            if session := self._sessions.get(str(session_hash)):
                return session
            own = [it for it in self._sessions.values() if it.visitor == current_visitor()[0]]
            if len(own) >= MAX_SESSIONS or sum(it.size for it in own) > MAX_BYTES_OF_ONE:
                raise WbcError(
                    f"{len(own)} specimens of yours are open on this page, which is as much as it keeps for one "
                    "visitor. Close tabs with others; they are forgotten ten minutes later."
                )
            if self._size() > MAX_BYTES_OF_ALL:
                # Before a visitor is refused, the others do without full resolution.
                for session in self._sessions.values():
                    session.full_pictures.clear()
            if self._size() > MAX_BYTES_OF_ALL:
                raise WbcError("This page holds as many specimens as it can. Try again in some minutes.")
            return self._add(session_hash)

    def renew(self, session_hash: str | None) -> Session:
        """Replace the session of a visitor by a new one, and stop what is done with the old one."""
        with self._lock:
            if old := self._sessions.pop(str(session_hash), None):
                old.stopped = old.cancelled = True
            return self._add(session_hash)

    def find(self, secret: str) -> Session | None:
        """The session with this secret, if there still is one."""
        with self._lock:
            return next((it for it in self._sessions.values() if secrets.compare_digest(it.secret, secret)), None)

    def _size(self) -> int:
        return sum(session.size for session in self._sessions.values())

    def _add(self, session_hash: str | None) -> Session:
        session = Session(self._predictor, self._begin, self.types)
        self._sessions[str(session_hash)] = session
        return session


def _next_of(numbers: Sequence[int], number: int) -> int | None:
    """The first of ascending numbers that is greater than another one, else the first of all."""
    return next((other for other in numbers if other > number), numbers[0] if numbers else None)


def _waiting(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.state is CellState.WAITING]


def _can_be_accepted(cell: Cell) -> bool:
    return cell.review is None and cell.state not in NEVER_COUNTED
