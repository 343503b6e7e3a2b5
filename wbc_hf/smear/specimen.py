"""The pictures and cells of one specimen, with the reviews of its cells and the history of all that was done.

A review overrules the model. Cells on which the model is not confident wait for a review and are not counted before.
Cells that the border of a field cuts off are counted only after a review, duplicates of cells in earlier pictures
never.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity, Predictor, batches
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import NEVER_COUNTED, Cell, CellState, Review
from wbc_hf.smear.cell_types import NO_TYPES, CellType, CellTypes
from wbc_hf.smear.cell_views import predict_crops
from wbc_hf.smear.change import Change, ChangedMeanwhileError
from wbc_hf.smear.differential import ReferenceRanges, differentiate_cells
from wbc_hf.smear.history import About, Action, Event, Removal, Signature, event_line, events_by, word_of
from wbc_hf.smear.limits import MAX_LINE
from wbc_hf.smear.picture_store import PictureStore, read_pictures
from wbc_hf.smear.removal import add_stand_ins, put_back, take_out
from wbc_hf.smear.snapshot import Contents, Picture, SlideMap, Snapshot

_AT_ONCE = 64  # cells that are predicted again together


class Specimen:
    """The pictures and cells of one specimen. Thread-safe.

    Args:
        name: The laboratory's identifier. Of this and all other texts, halves of characters are escaped: no export
            could write them.
        leucocyte_count: Total leucocyte count in 10⁹/l, or None.
        model: The model that predicts its cells, where it need not always be the one in use.
        store: Where previews and crops lie; by default in a temporary file.

    Attributes:
        contents: All that it holds, at one moment.
        size: Bytes of all previews and crops.
    """

    def __init__(
        self,
        name: str = "",
        leucocyte_count: float | None = None,
        *,
        model: ModelIdentity | None = None,
        store: PictureStore | None = None,
    ):
        self.size = 0
        self._lock = threading.Lock()
        self._store = PictureStore() if store is None else store
        self.contents = Contents(About(escape_surrogates(name), leucocyte_count, model=model))

    def catch_up(self) -> None:
        """Take over what other programs did to it. Only one that is kept in a store has others."""

    def load(self, contents: Contents, who: str, name: str) -> None:
        """Fill a new specimen with what a file holds of one; the history says so in the end.

        Args:
            contents: Numbered from 1.
            who: Whoever loads it.
            name: Of the file.
        """
        with self._lock:
            change, loaded = self._copy(contents), events_by(who)(Action.LOADED, after=escape_surrogates(name))
            self._commit(replace(change, events=[*contents.history, loaded]))

    def load_unread(self, other: "Specimen", key: str) -> None:
        """Fill a new specimen with the pictures and cells of another, without what anybody said of them.

        Args:
            other: The other.
            key: Of the other, which `About.second_of` then names.
        """
        contents = other.contents
        about = replace(contents.about, signature=None, amended=0, second_of=key)
        cells = tuple(replace(cell, review=None) for cell in contents.cells)
        with self._lock:
            change = self._copy(replace(contents, about=about, cells=cells))
            self._commit(replace(change, events=[events_by("")(Action.SECOND)]))

    @property
    def about(self) -> About:
        """What is known of the specimen beside its pictures and cells."""
        return self.contents.about

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """In the order of their numbers."""
        return self.contents.pictures

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of their numbers."""
        return self.contents.cells

    @property
    def slides(self) -> tuple[SlideMap, ...]:
        """The slides that fields are of."""
        return self.contents.slides

    @property
    def history(self) -> tuple[Event, ...]:
        """What was done to the specimen, in order."""
        return self.contents.history

    def history_since(self, number: int) -> tuple[Event, ...]:
        """The events after the one with this number; 0 for all."""
        return self.history[number:]

    @property
    def last_event(self) -> int:
        """Number of the last event; 0 where nothing was done."""
        return len(self.history)

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
            event, events = events_by(who), list[Event]()
            known = about = self.about
            changed = next((it for it, value in (expected or {}).items() if getattr(known, it) != value), None)
            if changed is not None:
                raise ChangedMeanwhileError(
                    f"{changed}: was changed meanwhile. Look at it; write yours again if it holds."
                )
            for name, value in values.items():
                before, after = getattr(known, name), escape_surrogates(value) if isinstance(value, str) else value
                if isinstance(after, str) and len(after) > MAX_LINE:
                    raise WbcError(f"{name}: has {len(after):,} characters, and at most {MAX_LINE:,} are kept.")
                if after != before:
                    about = replace(about, **{name: after})  # type: ignore[arg-type]
                    texts = known.text_of(name), about.text_of(name)
                    events.append(event(Action.DESCRIBED, field=name, before=texts[0], after=texts[1]))
            if events:
                self._commit(Change(events=events, about=about))

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
            if seen is not None and self.last_event > seen:
                raise ChangedMeanwhileError(
                    f"Not signed, since this was done meanwhile: {event_line(self.history[-1])}. "
                    "Look at it, and sign then."
                )
            event = events_by(signature.name)
            credited = self._credited(signature.name, event)
            signed = event(Action.SIGNED, after=escape_surrogates(after))
            about = replace(self.about, signature=signature)
            self._commit(replace(credited, events=[*credited.events, signed], about=about))

    def amend(self, who: str, reason: str) -> None:
        """Open it again where it is signed, see `sign_off.amend`.

        Raises:
            WbcError: It is not signed.
        """
        with self._lock:
            if self.about.signature is None:
                raise WbcError("This specimen is not signed, and can be changed as it is.")
            amended = events_by(who)(Action.AMENDED, after=escape_surrogates(reason))
            about = replace(self.about, signature=None, amended=self.about.amended + 1)
            self._commit(Change(events=[amended], about=about))

    def snapshot(self, model: ModelIdentity, ranges: ReferenceRanges, types: CellTypes = NO_TYPES) -> Snapshot:
        """Everything that is known now, with the differential of the counted cells.

        Args:
            model: The model that predicted the cells.
            ranges: Reference ranges of the laboratory.
            types: The laboratory's own, for `differentiate_cells`.
        """
        contents, time = self.contents, datetime.now(UTC).replace(microsecond=0)
        differential = differentiate_cells(contents.cells, ranges, contents.about.leucocyte_count, types)
        return Snapshot(**vars(contents), time=time, model=model, differential=differential)

    def add_slide(self, slide: SlideMap, who: str = "") -> None:
        """Add a slide, before its fields; not once more, since two people may give it at once."""
        name = escape_surrogates(slide.name)
        with self._lock:
            if any((it.name, it.digest) == (name, slide.digest) for it in self.slides):
                return
            # Before its first picture nothing of a specimen is on the disk.
            small = self._store.keep(slide.thumbnail) if self.pictures else slide.thumbnail
            opened = events_by(who)(Action.SLIDE, after=name)
            self._commit(Change(events=[opened], slides=[replace(slide, name=name, small=small)]))

    def add_picture(self, picture: Picture, cells: Sequence[Cell], seen: int | None = None) -> Picture:
        """Add a picture with the cells found in it, and number both.

        Args:
            picture: Without a number.
            cells: As well.
            seen: Number of the pictures that it was compared with; by default whatever there are.

        Raises:
            ChangedMeanwhileError: There are more, which may show the same cells.
        """
        name = escape_surrogates(picture.name)
        with self._lock:
            if seen is not None and len(self.pictures) > seen:
                raise ChangedMeanwhileError(
                    f"{name}: others added pictures meanwhile, all the time. Give it once more."
                )
            number = len(self.pictures) + 1
            picture = replace(picture, number=number, name=name, small=self._store.keep(picture.preview))
            numbered = [self._numbered(cell, it, number) for it, cell in enumerate(cells, len(self.cells) + 1)]
            read = events_by("")(Action.READ, picture=number, after=name)
            self._commit(Change([picture], numbered, events=[read]))
            return picture

    def add_cell(self, picture: int, cell: Cell, who: str = "") -> Cell:
        """Add a cell to an earlier picture; it gets the next number."""
        with self._lock:
            numbered = self._numbered(cell, len(self.cells) + 1, picture)
            pointed_at = events_by(who)(Action.POINTED_AT, cell=numbered.number, picture=picture)
            self._commit(Change(cells=[numbered], events=[pointed_at]))
            return numbered

    def predict_again(self, predictor: Predictor) -> None:
        """Replace the predictions of all cells; their reviews stay.

        Args:
            predictor: Of the cells' images as they are.
        """
        predictions = []
        for some in batches(self.cells, _AT_ONCE):
            images = read_pictures(cell.crop for cell in some)
            views = [replace(cell, crop=image).views for cell, image in zip(some, images, strict=True)]
            predictions += [prediction for prediction, _ in predict_crops(predictor, views)]
        with self._lock:
            predicted = events_by("")(Action.PREDICTED, after=predictor.name)
            # Of a specimen that is kept the model is, too.
            model = None if self.about.model is None else predictor.identity
            cells = [replace(cell, prediction=it) for cell, it in zip(self.cells, predictions, strict=False)]
            self._commit(Change(cells=cells, events=[predicted], about=replace(self.about, model=model)))

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
            event, events, cells = events_by(who), list[Event](), list[Cell]()
            for number, review in reviews.items():
                cell = self.cells[number - 1]
                cells.append(replace(cell, review=review))
                events.append(event(action, cell=number, before=word_of(cell.review), after=word_of(review)))
            self._commit(Change(cells=cells, events=events))
            return cells

    def remove(self, number: int, who: str = "") -> None:
        """Remove a picture that does not belong to the specimen: its cells are no longer counted.

        The first of the other pictures that shows one of them whole is counted in its place.

        Raises:
            WbcError: No such picture.
        """
        with self._lock:
            if not 1 <= number <= len(self.pictures):
                raise WbcError(f"picture {number}: there are {len(self.pictures)}, numbered from 1.")
            if self.pictures[number - 1].removed:
                return
            changed, removal = take_out(self.cells, number)
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
            discarded = events_by(who)(Action.DISCARDED, cell=number)
            self._commit(Change(cells=[replace(self.cells[number - 1], removed=True)], events=[discarded]))

    def add_stand_ins(self, picture: int, originals: Mapping[int, int]) -> None:
        """Record which cells of a picture show what a removed picture shows too, so that both are never counted.

        Args:
            picture: Number of the picture.
            originals: By index of its cells, the number of the cell of the removed picture.
        """
        with self._lock:
            removals = add_stand_ins(self.contents, picture, originals)
            if removals:
                self._commit(Change(removals=removals))

    def put_back(self, number: int, who: str = "") -> None:
        """Put a removed picture back: its cells are counted as before, and those that stood in for them are not.

        Raises:
            WbcError: No such picture, or one that was not removed.
        """
        with self._lock:
            removal = self.contents.removals.get(number)
            if removal is None:
                raise WbcError(f"picture {number}: was not taken out.")
            self._commit_picture(number, Action.PUT_BACK, who, put_back(self.cells, removal), None)

    def credit(self, reviewer: str) -> None:
        """Give all reviews without a name the name of this reviewer."""
        name = escape_surrogates(reviewer.strip())
        with self._lock:
            credited = self._credited(name, events_by(name))
            if credited.cells:
                self._commit(credited)

    def _credited(self, name: str, event: partial[Event]) -> Change:
        """The reviews that have no name get this one; none without a name."""
        cells = [
            replace(cell, review=replace(cell.review, reviewer=name))
            for cell in self.cells
            if name and cell.review is not None and not cell.review.reviewer
        ]
        return Change(cells=cells, events=[event(Action.CREDITED, cell=cell.number) for cell in cells])

    def _copy(self, contents: Contents) -> Change:
        """What others hold, with its pictures in the store of this specimen."""
        keep = self._store.keep
        previews = read_pictures(it.small for it in contents.pictures)
        crops = read_pictures(it.crop for it in contents.cells)
        return Change(
            [replace(it, small=keep(preview)) for it, preview in zip(contents.pictures, previews, strict=True)],
            [replace(it, crop=keep(crop)) for it, crop in zip(contents.cells, crops, strict=True)],
            contents.removals,
            contents.history,
            contents.about,
            self._kept_slides(contents.slides),
        )

    def _kept_slides(self, slides: Iterable[SlideMap]) -> list[SlideMap]:
        return [replace(slide, small=self._store.keep(slide.thumbnail)) for slide in slides]

    def _numbered(self, cell: Cell, number: int, picture: int) -> Cell:
        return replace(cell, crop=self._store.keep(cell.image), number=number, picture=picture)

    def _commit_picture(
        self, number: int, action: Action, who: str, cells: Sequence[Cell], removal: Removal | None
    ) -> None:
        picture = replace(self.pictures[number - 1], removed=removal is not None)
        events = [events_by(who)(action, picture=number)]
        self._commit(Change([picture], cells, {number: removal}, events))

    def _commit(self, change: Change) -> None:
        """Let a change hold, as the only place that does; first it is kept, which may be refused.

        A specimen is kept from its first picture on, and then its slides are too, which come before their fields:
        whoever only opens a page leaves nothing behind.
        """
        before = self.contents
        if before.about.signature is not None and (change.about or before.about).amended == before.about.amended:
            raise WbcError("This specimen is signed: it can only be amended.")
        numbered = enumerate(change.events, len(before.history) + 1)
        change = replace(change, events=[replace(event, number=number) for number, event in numbered])
        size = sum(map(len, change.new_pictures(before)))
        after = change.applied_to(before)
        if before.pictures:
            self._keep(change, before, after)
        elif change.pictures:
            after = replace(after, slides=(*self._kept_slides(before.slides), *change.slides))
            everything = replace(change, events=after.history, about=after.about, slides=after.slides)
            self._keep(everything, Contents(), after)
        self.contents = after
        self.size += size

    def _keep(self, change: Change, before: Contents, after: Contents) -> None:
        """Keep a change for good, which a store does, or raise a WbcError: the specimen then stays as it was."""

    def _check_expected(self, expected: Mapping[int, Review | None]) -> None:
        changed = [
            number for number, review in expected.items() if not _same_word(self.cells[number - 1].review, review)
        ]
        if changed:
            last = next(event for event in reversed(self.history) if event.cell == changed[0])
            more = f" (and {len(changed) - 1} more cells were changed)" if len(changed) > 1 else ""
            raise ChangedMeanwhileError(
                f"Not kept, since this was done meanwhile: {event_line(last)}{more}. Look at it; if your word holds, "
                "say it again."
            )

    def _check_reviewable(self, number: int) -> None:
        if not 1 <= number <= len(self.cells):
            raise WbcError(f"cell {number}: there are {len(self.cells)} cells, numbered from 1.")
        cell = self.cells[number - 1]
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
    index = None if label is None else class_index(label)
    if label is not None and index is None:
        raise WbcError(f"{label}: is not one of {', '.join(CLASS_NAMES)}.")
    return Review(None if index is None else CLASS_NAMES[index], reviewer, time)
