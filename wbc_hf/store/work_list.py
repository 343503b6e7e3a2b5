"""The work list: which specimens are kept, in which state, found by words."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Select, func, select

from wbc_hf.smear import Action, Event
from wbc_hf.store.tables import SPECIMENS

# What happens before a person has judged anything.
_BEFORE_REVIEW = (Action.READ, Action.SLIDE, Action.DESCRIBED, Action.PREDICTED, Action.LOADED, Action.SECOND)


class State(StrEnum):
    """How far a specimen is."""

    NEW = "new"  # nobody has reviewed any of it
    IN_REVIEW = "in review"
    SIGNED = "signed"


@dataclass(frozen=True)
class WorkItem:
    """One line of the work list.

    Attributes:
        key: Opens the specimen.
        name: The laboratory's identifier; may be empty.
        state: How far it is.
        owner: Who began it; "" where nobody signs in.
        created: In UTC.
        changed: In UTC.
        pictures: Number of its pictures.
        cells: Number of its cells.
        counted: Number of those that are counted.
        waiting: Number of those that wait for a review.
        signed_by: Name; "" where it is not signed.
        amended: How often it was opened again after it had been signed.
    """

    key: str
    name: str
    state: State
    owner: str
    created: datetime
    changed: datetime
    pictures: int
    cells: int
    counted: int
    waiting: int
    signed_by: str
    amended: int


@dataclass(frozen=True)
class WorkList:
    """A part of the work list.

    Attributes:
        items: The specimens that were changed last come first.
        total: How many there are in all.
    """

    items: tuple[WorkItem, ...]
    total: int


def find_work(
    connection: Connection,
    words: str = "",
    state: State | None = None,
    owner: str | None = None,
    unchanged_since: str | None = None,
    first: int = 0,
    most: int = 50,
    key: str | None = None,
) -> WorkList:
    """Find specimens.

    Args:
        connection: To the store.
        words: All of them must be in the name, the numbers of patient, order and slide, or the comment; in any case.
        state: Only those in this state.
        owner: Only those of this user.
        unchanged_since: Only those that were not changed after this time (ISO 8601, UTC).
        first: How many to pass over.
        most: How many to list.
        key: Only this specimen.
    """
    found: Select = select(*(SPECIMENS.c[it.name] for it in fields(WorkItem)))
    for word in folded(words).split():
        found = found.where(SPECIMENS.c.search.contains(word, autoescape=True))
    for column, value in (("state", state and state.value), ("owner", owner), ("key", key)):
        if value is not None:
            found = found.where(SPECIMENS.c[column] == value)
    if unchanged_since is not None:
        found = found.where(SPECIMENS.c.changed < unchanged_since)
    total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
    shown = found.order_by(SPECIMENS.c.changed.desc(), SPECIMENS.c.key).offset(first).limit(most)
    rows = connection.execute(shown)
    return WorkList(tuple(_item(row._asdict()) for row in rows), total)


def folded(text: str) -> str:
    """A text as it is searched: in lower case, with single spaces."""
    return " ".join(text.casefold().split())


def state_after(state: State, events: Sequence[Event]) -> State:
    """The state of a specimen, that is not signed, after more was done."""
    judged = any(event.action not in _BEFORE_REVIEW for event in events)
    return State.IN_REVIEW if judged or state is State.SIGNED else state


def _item(row: dict) -> WorkItem:
    times = {name: datetime.fromisoformat(row[name]) for name in ("created", "changed")}
    return WorkItem(**row | times | {"state": State(row["state"])})
