"""The pictures and cells of one specimen, with the reviews of its cells and the history of all that was done.

A review overrules the model. Cells on which the model is not confident wait for a review and are not counted before.
Cells that the border of a field cuts off are counted only after a review, duplicates of cells in earlier pictures
never.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity, Predictor
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review
from wbc_hf.smear.cell_types import NO_TYPES, CellType, CellTypes
from wbc_hf.smear.cell_views import predict_crops
from wbc_hf.smear.change import Change, ChangedMeanwhileError, Journal
from wbc_hf.smear.differential import ReferenceRanges, differentiate_cells
from wbc_hf.smear.history import MAX_LINE, About, Action, Event, EventMaker, Removal, Signature, event_line, word_of
from wbc_hf.smear.picture_kind import PictureKind
from wbc_hf.smear.picture_store import KeptPicture, PictureStore, read_pictures
from wbc_hf.smear.removal import add_stand_ins, put_back, take_out
from wbc_hf.smear.snapshot import Picture, Place, SlideMap, Snapshot

_AT_ONCE = 64  # cells that are predicted again together


class Specimen:
    """The pictures and cells of one specimen. Thread-safe.

    Args:
        name: The laboratory's identifier. Of this and all other texts, halves of characters are escaped: no export
            could write them.
        leucocyte_count: Total leucocyte count in 10⁹/l, or None.
        model: The model that predicts its cells, where it need not always be the one in use.
        store: Where previews and crops lie; by default in a temporary file.
        journal: Keeps each change before it holds; by default nothing does.

    Attributes:
        size: Bytes of all previews and crops.
    """

    def __init__(
        self,
        name: str = "",
        leucocyte_count: float | None = None,
        *,
        model: ModelIdentity | None = None,
        store: PictureStore | None = None,
        journal: Journal | None = None,
    ):
        self.size = 0
        self._lock = threading.Lock()
        self._store = PictureStore() if store is None else store
        self._journal = journal
        self._about = About(escape_surrogates(name), leucocyte_count, model=model)
        self._pictures: list[Picture] = []
        self._cells: list[Cell] = []
        self._slides: list[SlideMap] = []
        self._removals: dict[int, Removal] = {}
        self._history: list[Event] = []

    def _fill(
        self,
        about: About,
        pictures: Iterable[Picture],
        cells: Iterable[Cell],
        removals: Mapping[int, Removal],
        history: Iterable[Event],
        slides: Iterable[SlideMap],
    ) -> None:
        self.size = 0
        self._about, self._removals, self._history = about, dict(removals), list(history)
        self._pictures = [replace(picture, small=self._kept(picture.small)) for picture in pictures]
        self._cells = [replace(cell, crop=self._kept(cell.crop)) for cell in cells]
        self._slides = self._kept_slides(slides)

    def catch_up(self) -> None:
        """Take over what other programs did to it. Only one that is kept in a store has others."""

    def load(
        self,
        about: About,
        pictures: Sequence[Picture],
        cells: Sequence[Cell],
        removals: Mapping[int, Removal],
        history: Sequence[Event],
        who: str,
        name: str,
        slides: Sequence[SlideMap] = (),
    ) -> None:
        """Fill a new specimen with what a file holds of one; the history says so in the end, and the journal is told.

        Args:
            about: What is known of it.
            pictures: In the order of their numbers, from 1.
            cells: As well.
            removals: By number of the picture that was taken out.
            history: In the order of its numbers, from 1.
            who: Whoever loads it.
            name: Of the file.
            slides: That fields are of.
        """
        with self._lock:
            events = EventMaker(len(history), who, history)
            events.add(Action.LOADED, after=escape_surrogates(name))
            small = [replace(picture, small=self._kept(picture.small)) for picture in pictures]
            crops = [replace(cell, crop=self._kept(cell.crop)) for cell in cells]
            maps = self._kept_slides(slides)
            self._commit(events, pictures=small, cells=crops, removals=removals, about=about, slides=maps)

    def load_unread(self, other: "Specimen", key: str) -> None:
        """Fill a new specimen with the pictures and cells of another, without what anybody said of them.

        Args:
            other: The other.
            key: Of the other, which `About.second_of` then names.
        """
        with other._lock:
            about, pictures, cells = other._about, tuple(other._pictures), tuple(other._cells)
            slides, removals = tuple(other._slides), dict(other._removals)
        about = replace(about, signature=None, amended=0, second_of=key)
        with self._lock:
            events = self._events("")
            events.add(Action.SECOND)
            previews, images = read_pictures(it.small for it in pictures), read_pictures(it.crop for it in cells)
            small = [replace(it, small=self._kept(preview)) for it, preview in zip(pictures, previews, strict=True)]
            crops = [replace(it, crop=self._kept(image), review=None) for it, image in zip(cells, images, strict=True)]
            maps = self._kept_slides(replace(it, small=it.thumbnail) for it in slides)
            self._commit(events, pictures=small, cells=crops, removals=removals, about=about, slides=maps)

    @property
    def removals(self) -> dict[int, Removal]:
        """What went with each picture that was taken out, by its number."""
        with self._lock:
            return dict(self._removals)

    @property
    def about(self) -> About:
        """What is known of the specimen beside its pictures and cells."""
        return self._about

    @property
    def name(self) -> str:
        """The laboratory's identifier."""
        return self._about.name

    @name.setter
    def name(self, name: str) -> None:
        self.describe(name=name)

    @property
    def leucocyte_count(self) -> float | None:
        """Total leucocyte count in 10⁹/l, or None."""
        return self._about.leucocyte_count

    @leucocyte_count.setter
    def leucocyte_count(self, count: float | None) -> None:
        self.describe(leucocyte_count=count)

    @property
    def history(self) -> tuple[Event, ...]:
        """What was done to the specimen, in order."""
        with self._lock:
            return tuple(self._history)

    def history_since(self, number: int) -> tuple[Event, ...]:
        """The events after the one with this number; 0 for all."""
        with self._lock:
            return tuple(self._history[number:])

    @property
    def last_event(self) -> int:
        """Number of the last event; 0 where nothing was done."""
        return len(self._history)

    def describe(
        self,
        who: str = "",
        expected: Mapping[str, str | float | None] | None = None,
        **values: str | float | None,
    ) -> None:
        """Change what is known of the specimen; what stays the same is not mentioned in the history.

        Args:
            who: Whose change it is.
            expected: What whoever writes knows of them, by name; by default whatever there is.
            values: By name of an attribute of `About`: name, leucocyte_count, patient, order, slide or comment.

        Raises:
            ChangedMeanwhileError: Somebody else wrote something else into one of them.
            WbcError: A text is longer than `MAX_LINE`.
        """
        with self._lock:
            events = self._events(who)
            about = self._about
            changed = next((it for it, known in (expected or {}).items() if getattr(about, it) != known), None)
            if changed is not None:
                raise ChangedMeanwhileError(
                    f"{changed}: was changed meanwhile. Look at it; write yours again if it holds."
                )
            for name, value in values.items():
                before, after = getattr(about, name), escape_surrogates(value) if isinstance(value, str) else value
                if isinstance(after, str) and len(after) > MAX_LINE:
                    raise WbcError(f"{name}: has {len(after):,} characters, and at most {MAX_LINE:,} are kept.")
                if after != before:
                    about = replace(about, **{name: after})  # type: ignore[arg-type]
                    texts = self._about.text_of(name), about.text_of(name)
                    events.add(Action.DESCRIBED, field=name, before=texts[0], after=texts[1])
            if events.events:
                self._commit(events, about=about)

    def sign(self, signature: Signature, after: str = "", seen: int | None = None) -> None:
        """Sign it, as one act: reviews without a name get that of the signer. See `sign_off.sign`.

        Args:
            signature: Of who stands for it.
            after: What the history says of it.
            seen: Number of the last event that the signer knows; by default whatever there is.

        Raises:
            ChangedMeanwhileError: More was done since.
            WbcError: It is signed already.
        """
        with self._lock:
            if seen is not None and len(self._history) > seen:
                raise ChangedMeanwhileError(
                    f"Not signed, since this was done meanwhile: {event_line(self._history[-1])}. "
                    "Look at it, and sign then."
                )
            credited, events = self._credited(signature.name), self._events(signature.name)
            for cell in credited:
                events.add(Action.CREDITED, cell=cell.number)
            events.add(Action.SIGNED, after=escape_surrogates(after))
            self._commit(events, cells=credited, about=replace(self._about, signature=signature))

    def amend(self, who: str, reason: str) -> None:
        """Open it again where it is signed, see `sign_off.amend`.

        Raises:
            WbcError: It is not signed.
        """
        with self._lock:
            if self._about.signature is None:
                raise WbcError("This specimen is not signed, and can be changed as it is.")
            events = self._events(who)
            events.add(Action.AMENDED, after=escape_surrogates(reason))
            self._commit(events, about=replace(self._about, signature=None, amended=self._about.amended + 1))

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

    def snapshot(self, model: ModelIdentity, ranges: ReferenceRanges, types: CellTypes = NO_TYPES) -> Snapshot:
        """Everything that is known now, with the differential of the counted cells.

        Args:
            model: The model that predicted the cells.
            ranges: Reference ranges of the laboratory.
            types: The laboratory's own, for `differentiate_cells`.
        """
        with self._lock:
            about, pictures, cells = self._about, tuple(self._pictures), tuple(self._cells)
            history, removals, slides = tuple(self._history), dict(self._removals), tuple(self._slides)
        time = datetime.now(UTC).replace(microsecond=0)
        differential = differentiate_cells(cells, ranges, about.leucocyte_count, types)
        return Snapshot(
            about.name,
            time,
            model,
            pictures,
            cells,
            differential,
            about=about,
            history=history,
            removals=removals,
            slides=slides,
        )

    @property
    def slides(self) -> tuple[SlideMap, ...]:
        """The slides that fields are of."""
        with self._lock:
            return tuple(self._slides)

    def add_slide(self, slide: SlideMap, who: str = "") -> None:
        """Add a slide, before its fields; not once more, since two people may give it at once."""
        name = escape_surrogates(slide.name)
        with self._lock:
            if any((it.name, it.digest) == (name, slide.digest) for it in self._slides):
                return
            thumbnail = slide.thumbnail
            # Before its first picture nothing of a specimen is on the disk.
            small = self._store.keep(thumbnail) if self._pictures else thumbnail
            kept = replace(slide, name=name, small=small)
            events = self._events(who)
            events.add(Action.SLIDE, after=kept.name)
            self._commit(events, slides=[kept])
            self.size += len(thumbnail)

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
        seen: int | None = None,
    ) -> Picture:
        """Add a picture with the cells found in it, and number both.

        Args:
            name: File name.
            size: Width and height in pixels.
            preview: JPEG.
            cells: Without numbers.
            is_field: Whether it is a photograph of a smear, else of one cell.
            kind: What it looks like.
            pixel_size: Width of a pixel in µm.
            place: On a slide.
            seen: Number of the pictures that it was compared with; by default whatever there are.

        Raises:
            ChangedMeanwhileError: There are more, which may show the same cells.
        """
        name = escape_surrogates(name)
        with self._lock:
            if seen is not None and len(self._pictures) > seen:
                raise ChangedMeanwhileError(
                    f"{name}: others added pictures meanwhile, all the time. Give it once more."
                )
            number = len(self._pictures) + 1
            kept = self._store.keep(preview)
            picture = Picture(number, name, size, is_field, kept, kind, pixel_size=pixel_size, place=place)
            first = len(self._cells) + 1
            numbered = [self._numbered(cell, first + index, number) for index, cell in enumerate(cells)]
            events = self._events("")
            events.add(Action.READ, picture=number, after=name)
            self._commit(events, pictures=[picture], cells=numbered)
            self.size += len(preview) + sum(len(cell.crop) for cell in numbered)
            return picture

    def add_cell(self, picture: int, cell: Cell, who: str = "") -> Cell:
        """Add a cell to an earlier picture; it gets the next number."""
        with self._lock:
            numbered = self._numbered(cell, len(self._cells) + 1, picture)
            events = self._events(who)
            events.add(Action.POINTED_AT, cell=numbered.number, picture=picture)
            self._commit(events, cells=[numbered])
            self.size += len(numbered.crop)
            return numbered

    def predict_again(self, predictor: Predictor) -> None:
        """Replace the predictions of all cells; their reviews stay.

        Args:
            predictor: Of the cells' images as they are.
        """
        cells = self.cells
        predictions = []
        for start in range(0, len(cells), _AT_ONCE):
            some = cells[start : start + _AT_ONCE]
            images = read_pictures(cell.crop for cell in some)
            views = [replace(cell, crop=image).views for cell, image in zip(some, images, strict=True)]
            predictions += [prediction for prediction, _ in predict_crops(predictor, views)]
        with self._lock:
            events = self._events("")
            events.add(Action.PREDICTED, after=predictor.name)
            # Of a specimen that is kept the model is, too.
            model = None if self._about.model is None else predictor.identity
            predicted = [
                replace(self._cells[index], prediction=prediction) for index, prediction in enumerate(predictions)
            ]
            self._commit(events, cells=predicted, about=replace(self._about, model=model))

    def review(self, number: int, label: str | CellType | None, reviewer: str = "") -> Cell:
        """Record a review of a cell; it replaces an earlier one.

        Args:
            number: Of the cell.
            label: A class in any known spelling, a type of the laboratory's own, or None: none of these.
            reviewer: Name of the reviewer.

        Raises:
            WbcError: No such cell, a cell that is never counted, or no such class.
        """
        return self.review_many({number: label}, reviewer)[0]

    def review_many(
        self,
        labels: Mapping[int, str | CellType | None],
        reviewer: str = "",
        expected: Mapping[int, Review | None] | None = None,
    ) -> list[Cell]:
        """Record reviews of several cells, of all or of none.

        Args:
            labels: By number of the cell: a class in any known spelling, a type of the laboratory's own, or None.
            reviewer: Name of the reviewer.
            expected: As for `set_reviews`.

        Raises:
            WbcError: No such cell, a cell that is never counted, no such class, or from `set_reviews`.
        """
        name, now = escape_surrogates(reviewer.strip()), datetime.now(UTC)
        reviews = {number: _review_of(label, name, now) for number, label in labels.items()}
        return self.set_reviews(reviews, name, Action.REVIEWED, expected)

    def withdraw(self, number: int, reviewer: str = "", expected: Mapping[int, Review | None] | None = None) -> Cell:
        """Take the review of a cell back: the model's class holds again.

        Args:
            number: Of the cell.
            reviewer: Who does so.
            expected: As for `set_reviews`.

        Raises:
            WbcError: No such cell, a cell that is never counted, or from `set_reviews`.
        """
        return self.set_reviews({number: None}, reviewer, Action.WITHDRAWN, expected)[0]

    def set_reviews(
        self,
        reviews: Mapping[int, Review | None],
        who: str = "",
        action: Action = Action.UNDONE,
        expected: Mapping[int, Review | None] | None = None,
    ) -> list[Cell]:
        """Replace the reviews of cells by others, of all or of none. Reviews from before undo what came after them.

        Args:
            reviews: By number of the cell; None for a cell that nobody reviewed.
            who: Who does so.
            action: What the history says of it.
            expected: The reviews that whoever acts knows, by number; by default whatever there are.

        Raises:
            ChangedMeanwhileError: Somebody else said something else of one of them. Nobody's word is overruled by
                somebody who does not know it.
            WbcError: No such cell, or a cell that is never counted.
        """
        with self._lock:
            for number in reviews:
                self._check_reviewable(number)
            self._check_expected(expected or {})
            events, cells = self._events(who), []
            for number, review in reviews.items():
                cell = self._cells[number - 1]
                cells.append(replace(cell, review=review))
                events.add(action, cell=number, before=word_of(cell.review), after=word_of(review))
            self._commit(events, cells=cells)
            return cells

    def remove(self, number: int, who: str = "") -> None:
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
            changed, removal = take_out(self._cells, number)
            self._commit_picture(number, Action.TAKEN_OUT, who, changed, removal)

    def discard(self, number: int, who: str = "", expected: Mapping[int, Review | None] | None = None) -> None:
        """Take out one cell, that a person pointed at by mistake.

        Args:
            number: Of the cell.
            who: Who does so.
            expected: As for `set_reviews`.

        Raises:
            ChangedMeanwhileError: From `set_reviews`.
        """
        with self._lock:
            self._check_expected(expected or {})
            events = self._events(who)
            events.add(Action.DISCARDED, cell=number)
            self._commit(events, cells=[replace(self._cells[number - 1], removed=True)])

    def add_stand_ins(self, picture: int, originals: Mapping[int, int]) -> None:
        """Record which cells of a picture show what a removed picture shows too, so that both are never counted.

        Args:
            picture: Number of the picture.
            originals: By index of its cells, the number of the cell of the removed picture.
        """
        with self._lock:
            removals = add_stand_ins(self._cells, self._removals, picture, originals)
            if removals:
                self._commit(self._events(""), removals=removals)

    def put_back(self, number: int, who: str = "") -> None:
        """Put a removed picture back: its cells are counted as before, and those that stood in for them are not.

        Raises:
            WbcError: No such picture, or one that was not removed.
        """
        with self._lock:
            removal = self._removals.get(number)
            if removal is None:
                raise WbcError(f"picture {number}: was not taken out.")
            changed = put_back(self._cells, removal)
            self._commit_picture(number, Action.PUT_BACK, who, changed, None)

    def credit(self, reviewer: str) -> None:
        """Give all reviews without a name the name of this reviewer."""
        name = escape_surrogates(reviewer.strip())
        with self._lock:
            credited = self._credited(name)
            if credited:
                events = self._events(name)
                for cell in credited:
                    events.add(Action.CREDITED, cell=cell.number)
                self._commit(events, cells=credited)

    def _credited(self, name: str) -> list[Cell]:
        """The cells whose reviews have no name, with this one; none without a name."""
        return [
            replace(cell, review=replace(cell.review, reviewer=name))
            for cell in self._cells
            if name and cell.review is not None and not cell.review.reviewer
        ]

    def _kept(self, content: bytes | KeptPicture) -> KeptPicture:
        self.size += len(content)
        return self._store.keep(content) if isinstance(content, bytes) else content

    def _kept_slides(self, slides: Iterable[SlideMap]) -> list[SlideMap]:
        return [replace(slide, small=self._kept(slide.small)) for slide in slides]

    def _numbered(self, cell: Cell, number: int, picture: int) -> Cell:
        return replace(cell, crop=self._store.keep(cell.image), number=number, picture=picture)

    def _events(self, who: str) -> EventMaker:
        return EventMaker(len(self._history), escape_surrogates(who.strip()))

    def _commit_picture(
        self, number: int, action: Action, who: str, cells: Sequence[Cell], removal: Removal | None
    ) -> None:
        picture = replace(self._pictures[number - 1], removed=removal is not None)
        events = self._events(who)
        events.add(action, picture=number)
        self._commit(events, pictures=[picture], cells=cells, removals={number: removal})

    def _commit(
        self,
        events: EventMaker,
        *,
        pictures: Sequence[Picture] = (),
        cells: Sequence[Cell] = (),
        removals: Mapping[int, Removal | None] | None = None,
        about: About | None = None,
        slides: Sequence[SlideMap] = (),
    ) -> None:
        """Let a change hold, as the only place that does; first in the journal, which may refuse it.

        The journal hears of a specimen with its first picture, and then of its slides too, which come before their
        fields: whoever only opens a page leaves nothing behind.
        """
        if self._about.signature is not None and (about or self._about).amended == self._about.amended:
            raise WbcError("This specimen is signed: it can only be amended.")
        change = Change(tuple(pictures), tuple(cells), removals or {}, tuple(events.events), about, tuple(slides))
        if self._journal is not None and (self._pictures or pictures):
            self._journal(change if self._pictures else self._with_what_was_before(change))
        for picture in change.pictures:
            self._pictures[picture.number - 1 : picture.number] = [picture]
        for cell in change.cells:
            self._cells[cell.number - 1 : cell.number] = [cell]
        merged = {**self._removals, **change.removals}
        self._removals = {number: removal for number, removal in merged.items() if removal is not None}
        self._slides += change.slides
        self._history += change.events
        self._about = change.about or self._about

    def _with_what_was_before(self, change: Change) -> Change:
        """The change that brings the first picture, with what came before it."""
        self._slides = [
            it if isinstance(it.small, KeptPicture) else replace(it, small=self._store.keep(it.small))
            for it in self._slides
        ]
        events, slides = (*self._history, *change.events), (*self._slides, *change.slides)
        return replace(change, events=events, about=change.about or self._about, slides=slides)

    def _check_expected(self, expected: Mapping[int, Review | None]) -> None:
        changed = [
            number for number, review in expected.items() if not _same_word(self._cells[number - 1].review, review)
        ]
        if changed:
            last = next(event for event in reversed(self._history) if event.cell == changed[0])
            more = f" (and {len(changed) - 1} more cells were changed)" if len(changed) > 1 else ""
            raise ChangedMeanwhileError(
                f"Not kept, since this was done meanwhile: {event_line(last)}{more}. Look at it; if your word holds, "
                "say it again."
            )

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


def _same_word(first: Review | None, second: Review | None) -> bool:
    """Whether two reviews are one. A name that it was given later does not make it another."""
    return (first and first.time) == (second and second.time)


def _review_of(label: str | CellType | None, reviewer: str, time: datetime) -> Review:
    if isinstance(label, CellType):
        return Review(label.name, reviewer, time, label)
    return Review(_class_name(label), reviewer, time)


def _class_name(label: str | None) -> str | None:
    index = None if label is None else class_index(label)
    if label is not None and index is None:
        raise WbcError(f"{label}: is not one of {', '.join(CLASS_NAMES)}.")
    return None if index is None else CLASS_NAMES[index]
