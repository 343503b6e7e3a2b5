"""A specimen of a store, which other processes may change too."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, insert, select, update

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity
from wbc_hf.smear import Action, Cell, Change, Contents, KeptPicture, Review, Signature, Specimen
from wbc_hf.store.database import Database
from wbc_hf.store.reading import missing, read_specimen
from wbc_hf.store.tables import SPECIMENS
from wbc_hf.store.work_list import State
from wbc_hf.store.writing import row_after, write_parts

_ATTEMPTS = 100  # to act between two acts of others

P = ParamSpec("P")
R = TypeVar("R")
# Is told within a transaction how many bytes are to come, and raises a WbcError where there is no room.
CheckRoom = Callable[[Connection, int], None]


class NotNewestError(WbcError):
    """Another process changed the specimen since it was read here."""


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
        check_room: See `CheckRoom`.
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
        self._database, self._check_room = database, check_room
        self._kept_pictures = database.pictures_of(key)
        self._revision = 0  # number of changes that are known here; 0 where nothing is kept yet
        super().__init__(model=model, store=self._kept_pictures)

    @classmethod
    def read(cls, database: Database, key: str, check_room: CheckRoom) -> "KeptSpecimen":
        """Read one that is kept.

        Raises:
            WbcError: There is none, or what is kept of it is damaged.
        """
        specimen = cls(database, key, "", check_room)
        with specimen._lock:
            specimen._read_again()
        return specimen

    def catch_up(self) -> None:
        """Take over what other processes did to it.

        Raises:
            WbcError: It was deleted, or what is kept of it is damaged.
        """
        with self._lock:
            with self._database.reading() as connection:
                query = select(SPECIMENS.c.revision).where(SPECIMENS.c.key == self.key)
                newest = connection.execute(query).scalar_one_or_none()
            if newest is None:
                if self._revision == 0:
                    return  # its first picture is still to come
                raise missing(self.key)
            # Also of one that is new here: whether a commit holds is unknown where its acknowledgement was lost.
            if newest != self._revision:
                self._read_again()

    def _read_again(self) -> None:
        with self._database.reading() as connection:
            it = read_specimen(connection, self.key, self._kept_pictures)
        self._kept_pictures.continue_at(it.end)
        self._revision, self.owner, self.contents, self.size = it.revision, it.owner, it.contents, it.size

    def _keep(self, change: Change, before: Contents, after: Contents) -> None:
        """Write a change, all of it or nothing, before it holds: what was acknowledged is on the disk.

        Raises:
            NotNewestError: Another process changed the specimen.
            WbcError: It cannot be written, or the specimen was deleted.
        """
        fresh = [it for it in change.new_pictures(before) if isinstance(it, KeptPicture)]
        if fresh:
            self._kept_pictures.sync()
        with self._database.writing() as connection:
            newest = self._newest_row(connection)
            if fresh:
                self._check_room(connection, sum(map(len, fresh)))
            row = row_after(newest, change, before, after)
            if row["state"] != State.SIGNED:  # signing comes last, and amending first: what is signed takes nothing
                self._write_row(connection, row)
            if fresh:
                self._kept_pictures.write(connection, fresh)
            write_parts(connection, self.key, change, before, after)
            if row["state"] == State.SIGNED:
                self._write_row(connection, row)
        self._kept_pictures.forget_written(fresh)
        self._revision += 1

    def _newest_row(self, connection: Connection) -> dict[str, Any]:
        """The row of the specimen, empty of a new one. Nobody else changes it until the end of the transaction."""
        query = select(SPECIMENS).where(SPECIMENS.c.key == self.key).with_for_update()
        found = connection.execute(query).mappings().first()
        if found is None and self._revision:
            raise WbcError("This specimen was deleted. What you did last was not kept.")
        if found is not None and found["revision"] != self._revision:
            raise NotNewestError("This specimen was changed elsewhere. What you did last was not kept.")
        return dict(found or {})

    def _write_row(self, connection: Connection, row: dict[str, Any]) -> None:
        if self._revision == 0:
            first = {"key": self.key, "owner": self.owner, "created": row["changed"], "revision": 1}
            connection.execute(insert(SPECIMENS).values(**row, **first))
        else:
            known = SPECIMENS.c.key == self.key
            connection.execute(update(SPECIMENS).where(known).values(**row, revision=self._revision + 1))

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
