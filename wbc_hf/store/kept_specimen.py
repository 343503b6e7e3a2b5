"""A specimen of a store, which other processes may change too."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import select

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity
from wbc_hf.smear import Action, Cell, Review, Signature, Specimen
from wbc_hf.store.database import Database
from wbc_hf.store.journal import CheckRoom, NotNewestError, SpecimenJournal
from wbc_hf.store.reading import missing, read_specimen
from wbc_hf.store.tables import SPECIMENS

_ATTEMPTS = 100  # to act between two acts of others

P = ParamSpec("P")
R = TypeVar("R")


def _on_newest(act: Callable[Concatenate["KeptSpecimen", P], R]) -> Callable[Concatenate["KeptSpecimen", P], R]:
    """Let an act be done again on the newest state, where another process was faster."""

    @wraps(act)
    def act_on_newest(self: "KeptSpecimen", *args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_ATTEMPTS):
            try:
                return act(self, *args, **kwargs)
            except NotNewestError:
                self.catch_up()
        raise WbcError("This specimen is changed elsewhere all the time. What you did last was not kept: try again.")

    return act_on_newest


class KeptSpecimen(Specimen):
    """A specimen of a store. What others do to it, here or in other processes, is taken over before each act.

    Nobody's word is overruled by somebody who did not know it: see `Specimen.set_reviews`.

    Args:
        database: Of the store.
        key: Of the specimen.
        owner: Who began it.
        check_room: See there.
        model: As for `Specimen`.

    Attributes:
        key: Opens it, and says nothing of it: names never stand in file names.
        owner: Who began it; "" where nobody signs in.
    """

    def __init__(
        self,
        database: Database,
        key: str,
        owner: str,
        check_room: CheckRoom,
        model: ModelIdentity | None = None,
    ):
        self.key, self.owner = key, owner
        self._database = database
        self._kept_pictures = database.pictures_of(key)
        self._kept_journal = SpecimenJournal(database, key, owner, self._kept_pictures, check_room)
        super().__init__(model=model, store=self._kept_pictures, journal=self._kept_journal)

    @classmethod
    def read(cls, database: Database, key: str, check_room: CheckRoom) -> "KeptSpecimen":
        """Read one that is kept.

        Raises:
            WbcError: There is none, or what is kept of it is damaged.
        """
        with database.reading() as connection:
            owner = connection.execute(select(SPECIMENS.c.owner).where(SPECIMENS.c.key == key)).scalar_one_or_none()
        if owner is None:
            raise missing(key)
        specimen = cls(database, key, owner, check_room)
        with specimen._lock:
            specimen._read_again()
        return specimen

    def catch_up(self) -> None:
        """Take over what other processes did to it.

        Raises:
            WbcError: It was deleted, or what is kept of it is damaged.
        """
        with self._lock:
            revision = self._kept_journal.revision
            with self._database.reading() as connection:
                query = select(SPECIMENS.c.revision).where(SPECIMENS.c.key == self.key)
                newest = connection.execute(query).scalar_one_or_none()
            if newest is None:
                if revision == 0:
                    return  # its first picture is still to come
                raise missing(self.key)
            # Also of one that is new here: whether a commit holds is unknown where its acknowledgement was lost.
            if newest != revision:
                self._read_again()

    def _read_again(self) -> None:
        with self._database.reading() as connection:
            it = read_specimen(connection, self.key, self._kept_pictures)
        self._kept_pictures.continue_at(it.end)
        self._kept_journal.revision = it.revision
        self.contents, self.size = it.contents, it.size

    # Acts that hold whatever others did meanwhile.
    describe = _on_newest(Specimen.describe)
    amend = _on_newest(Specimen.amend)
    add_slide = _on_newest(Specimen.add_slide)
    add_picture = _on_newest(Specimen.add_picture)
    add_cell = _on_newest(Specimen.add_cell)
    add_stand_ins = _on_newest(Specimen.add_stand_ins)
    predict_again = _on_newest(Specimen.predict_again)
    remove = _on_newest(Specimen.remove)
    discard = _on_newest(Specimen.discard)
    put_back = _on_newest(Specimen.put_back)
    credit = _on_newest(Specimen.credit)

    # Acts that hold only for what whoever acts could know.
    def sign(self, signature: Signature, after: str = "", seen: int | None = None) -> None:
        """Sign it, see `Specimen.sign`; by default what is known here."""
        _sign(self, signature, after, self.last_event if seen is None else seen)

    def set_reviews(
        self,
        reviews: Mapping[int, Review | None],
        who: str = "",
        action: Action = Action.UNDONE,
        expected: Mapping[int, Review | None] | None = None,
    ) -> list[Cell]:
        """Replace reviews, see `Specimen.set_reviews`; by default of what is known here."""
        if expected is None:
            cells = self.cells
            expected = {it: cells[it - 1].review for it in reviews if 1 <= it <= len(cells)}
        return _set_reviews(self, reviews, who, action, expected)


_sign, _set_reviews = _on_newest(Specimen.sign), _on_newest(Specimen.set_reviews)
