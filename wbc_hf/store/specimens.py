"""Keep specimens: begin, open, find and delete them."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

from pydantic import ValidationError
from sqlalchemy import Connection, delete, func, select

from wbc_hf.errors import WbcError
from wbc_hf.files import make_folder
from wbc_hf.inference import ModelIdentity
from wbc_hf.smear import (
    AboutRecord,
    Action,
    Cell,
    CellRecord,
    Change,
    Event,
    KeptPicture,
    Picture,
    PictureRecord,
    PictureStore,
    Removal,
    SlideMap,
    SlideRecord,
    Specimen,
)
from wbc_hf.store.database import Database
from wbc_hf.store.journal import SpecimenJournal
from wbc_hf.store.tables import CELLS, EVENTS, PICTURES, SLIDES, SPECIMENS
from wbc_hf.store.work_list import State, WorkItem, WorkList, find_work

IMAGES = "images"  # the folder of the specimens' files
_SUFFIX = ".pictures"
_ORPHAN_AGE = 3600  # seconds after which a file that no specimen has is removed


class KeptSpecimen(Specimen):
    """A specimen of a store.

    Attributes:
        key: Opens it, and says nothing of it: names never stand in file names.
        owner: Who began it; "" where nobody signs in.
    """

    def __init__(
        self,
        key: str,
        owner: str,
        store: PictureStore,
        journal: SpecimenJournal,
        model: ModelIdentity | None = None,
    ):
        super().__init__(model=model, store=store, journal=journal)
        self.key, self.owner = key, owner


class SpecimenStore:
    """Specimens in a folder: a database, and a file of pictures for each. Thread-safe, for several processes.

    Args:
        folder: Of the store; made where it is missing.
        quota: Bytes of pictures that it may hold; None for as many as the disk takes.

    Attributes:
        folder: As given.

    Raises:
        WbcError: It cannot be opened.
    """

    def __init__(self, folder: Path, quota: int | None = None):
        self.folder, self._quota = folder, quota
        self._database = Database(folder)
        self._images = folder / IMAGES
        if not self.reading_only:
            make_folder(self._images, "Name another folder with --store.")
        # One object for all who look at a specimen: what one does, the others see.
        self._open: WeakValueDictionary[str, KeptSpecimen] = WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def reading_only(self) -> str:
        """Why nothing can be kept, a sentence; "" where it can."""
        return self._database.reading_only

    def begin(self, owner: str = "", model: ModelIdentity | None = None) -> KeptSpecimen:
        """A new, empty specimen. It is kept, and in the work list, from its first picture on.

        Args:
            owner: Who begins it.
            model: The model that predicts its cells.
        """
        key = uuid4().hex
        pictures = PictureStore(self._path(key))
        journal = SpecimenJournal(self._database, key, owner, pictures, self._check_room)
        specimen = KeptSpecimen(key, owner, pictures, journal, model)
        with self._lock:
            self._open[key] = specimen
        return specimen

    def open(self, key: str) -> KeptSpecimen:
        """Open a specimen where it was; who has it open already shares it.

        Raises:
            WbcError: There is none, or what is kept of it is damaged.
        """
        with self._lock:
            specimen = self._open.get(key)
            if specimen is None or not self._is_current(specimen):
                specimen = self._open[key] = self._read(key)
            return specimen

    def find(
        self,
        words: str = "",
        state: State | None = None,
        owner: str | None = None,
        unchanged_for: timedelta | None = None,
        first: int = 0,
        most: int = 50,
    ) -> WorkList:
        """Find specimens, see `find_work`; those that changed last come first."""
        since = None if unchanged_for is None else (datetime.now(UTC) - unchanged_for).isoformat()
        with self._database.reading() as connection:
            return find_work(connection, words, state, owner, since, first, most)

    def show(self, key: str) -> WorkItem:
        """The line of the work list of one specimen.

        Raises:
            WbcError: There is none.
        """
        with self._database.reading() as connection:
            found = find_work(connection, key=key).items
        if not found:
            raise _missing(key)
        return found[0]

    def __contains__(self, key: str) -> bool:
        with self._database.reading() as connection:
            return connection.execute(select(SPECIMENS.c.key).where(SPECIMENS.c.key == key)).first() is not None

    def delete(self, key: str) -> None:
        """Delete a specimen: its pictures, cells and history. Whoever has it open can keep nothing more in it.

        Raises:
            WbcError: There is none, or the store may not be written to.
        """
        with self._lock, self._database.writing() as connection:
            if connection.execute(delete(SPECIMENS).where(SPECIMENS.c.key == key)).rowcount != 1:
                raise _missing(key)
            self._open.pop(key, None)
        self._path(key).unlink(missing_ok=True)
        self._database.forget_deleted()

    def used(self) -> int:
        """Bytes of all pictures."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.coalesce(func.sum(SPECIMENS.c.bytes), 0))).scalar_one())

    def tidy(self) -> int:
        """Remove files of pictures that no specimen has, as a killed process leaves them; say how many."""
        if self.reading_only:
            return 0
        with self._database.reading() as connection:
            known = set(connection.execute(select(SPECIMENS.c.key)).scalars())
        removed = 0
        for file in self._images.glob(f"*{_SUFFIX}"):
            if file.stem not in known and time.time() - file.stat().st_mtime > _ORPHAN_AGE:
                file.unlink(missing_ok=True)
                removed += 1
        return removed

    def back_up_to(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Copy the database into a folder, and yield keys of specimens with their files, which only ever grow."""
        self._database.copy_to(folder / "store.db")
        with self._database.reading() as connection:
            keys = list(connection.execute(select(SPECIMENS.c.key)).scalars())
        for key in keys:
            yield key, self._path(key)

    def check(self) -> list[str]:
        """What is damaged or missing, a sentence for each; empty where all is well.

        Raises:
            WbcError: The database itself is damaged.
        """
        faults = []
        with self._database.reading() as connection:
            ends = connection.execute(
                select(CELLS.c.specimen, func.max(CELLS.c.start + CELLS.c.size)).group_by(CELLS.c.specimen)
            )
            for key, end in ends:
                size = self._path(key).stat().st_size if self._path(key).exists() else 0
                if size < end:
                    faults.append(f"{self._path(key)}: has {size} bytes of {end}, so that pictures are missing.")
            broken = connection.execute(
                select(EVENTS.c.specimen, func.count(), func.max(EVENTS.c.number)).group_by(EVENTS.c.specimen)
            )
            faults += [
                f"specimen {key}: its history has {count} of {last} events."
                for key, count, last in broken
                if count != last
            ]
        return faults

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _path(self, key: str) -> Path:
        return self._images / f"{key}{_SUFFIX}"

    def _check_room(self, more: int) -> None:
        if self._quota is not None and self.used() + more > self._quota:
            raise WbcError(
                f"The store holds {self.used() / 1e9:.2f} GB of pictures, and may hold {self._quota / 1e9:.2f}. "
                "Delete specimens that are reported, or allow it more with --store-quota."
            )

    def _is_current(self, specimen: KeptSpecimen) -> bool:
        """Whether nobody changed it elsewhere, or deleted it."""
        query = select(func.max(EVENTS.c.number)).where(EVENTS.c.specimen == specimen.key)
        with self._database.reading() as connection:
            last = connection.execute(query).scalar_one()
        # Looked at afterwards, and waiting for whoever changes it now: here it may be ahead, never behind.
        return last is not None and last <= len(specimen.history)

    def _read(self, key: str) -> KeptSpecimen:
        file = PictureStore(self._path(key))
        with self._database.reading() as connection:
            row = connection.execute(select(SPECIMENS).where(SPECIMENS.c.key == key)).mappings().first()
            if row is None:
                raise _missing(key)
            try:
                about = AboutRecord.model_validate_json(row["about"]).about()
                pictures, removals = _read_pictures(connection, key, file)
                cells = _read_cells(connection, key, file)
                slides = _read_slides(connection, key, file)
                history = _read_events(connection, key)
            except (ValidationError, ValueError) as error:
                raise WbcError(
                    f"specimen {key}: what is kept of it cannot be understood, since it is damaged or of a newer "
                    "version. Nothing of it was changed."
                ) from error
        journal = SpecimenJournal(self._database, key, row["owner"], file, self._check_room)
        journal.catch_up(
            Change(tuple(pictures), tuple(cells), about=about, slides=tuple(slides)),
            revision=row["revision"],
            state=State(row["state"]),
            removals=removals,
            size=row["bytes"],
        )
        specimen = KeptSpecimen(key, row["owner"], file, journal)
        specimen.restore(about, pictures, cells, removals, history, slides)
        return specimen


def _read_slides(connection: Connection, key: str, file: PictureStore) -> list[SlideMap]:
    query = select(SLIDES).where(SLIDES.c.specimen == key).order_by(SLIDES.c.number)
    return [
        SlideRecord.model_validate_json(row["record"]).slide(KeptPicture(file, row["start"], row["size"]))
        for row in connection.execute(query).mappings()
    ]


def _read_pictures(connection: Connection, key: str, file: PictureStore) -> tuple[list[Picture], dict[int, Removal]]:
    pictures, removals = [], {}
    query = select(PICTURES).where(PICTURES.c.specimen == key).order_by(PICTURES.c.number)
    for row in connection.execute(query).mappings():
        record = PictureRecord.model_validate_json(row["record"])
        pictures.append(record.picture(KeptPicture(file, row["start"], row["size"])))
        if (removal := record.removal()) is not None:
            removals[record.number] = removal
    return pictures, removals


def _read_cells(connection: Connection, key: str, file: PictureStore) -> list[Cell]:
    query = select(CELLS).where(CELLS.c.specimen == key).order_by(CELLS.c.number)
    return [
        CellRecord.model_validate_json(row["record"]).cell(KeptPicture(file, row["start"], row["size"]))
        for row in connection.execute(query).mappings()
    ]


def _read_events(connection: Connection, key: str) -> list[Event]:
    query = select(EVENTS).where(EVENTS.c.specimen == key).order_by(EVENTS.c.number)
    return [
        Event(
            row["number"],
            datetime.fromisoformat(row["time"]),
            row["who"],
            Action(row["action"]),
            row["cell"],
            row["picture"],
            row["field"],
            row["before"],
            row["after"],
        )
        for row in connection.execute(query).mappings()
    ]


def _missing(key: str) -> WbcError:
    return WbcError(f"specimen {key[:40]}: is not in this store, or was deleted.")
