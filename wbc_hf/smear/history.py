"""What was done to a specimen: by whom, when, and what it was before. Nothing in it is changed or taken out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

from pydantic import ConfigDict, Field

from wbc_hf.inference import ModelIdentity
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear.cell import Review
from wbc_hf.smear.limits import MAX_EVENTS, MAX_TEXT, Line, Number, Positive, Time

# In place of a class: a person said that the cell is none of the five.
NONE_OF_FIVE = "none"


class Action(StrEnum):
    """What somebody did, in words that a report prints."""

    READ = "picture read"
    SLIDE = "slide opened"
    REVIEWED = "reviewed"
    WITHDRAWN = "review taken back"
    UNDONE = "undone"
    POINTED_AT = "missed cell added"
    DISCARDED = "missed cell discarded"
    TAKEN_OUT = "picture taken out"
    PUT_BACK = "picture put back"
    PREDICTED = "predicted again"
    DESCRIBED = "changed"
    CREDITED = "name given to unnamed reviews"
    LOADED = "loaded from a file"
    SECOND = "second reading begun"
    SIGNED = "signed"
    AMENDED = "opened to amend"


@dataclass(frozen=True)
class Event:
    """One thing that was done to a specimen.

    Attributes:
        number: From 1, without gaps; 0 until the specimen assigns it.
        time: When, in UTC.
        who: Name of the person; "" where none was given.
        action: What was done.
        cell: Number of the cell that it concerns, or None.
        picture: Number of the picture that it concerns, or None.
        field: What was changed, such as "name"; "" for other actions.
        before: What held before: of a review the class, `NONE_OF_FIVE` for none of the five, "" without a review.
        after: What holds since.
    """

    number: Number
    time: Time
    who: str
    action: Action
    cell: Number | None
    picture: Number | None
    field: str
    before: str
    after: str


@dataclass(frozen=True)
class Signature:
    """Who stands for a differential.

    Attributes:
        name: Of the person.
        time: When, in UTC.
        comment: Of the person; may be empty.
    """

    name: str
    time: Time
    comment: str


@dataclass(frozen=True)
class About:
    """What is known of a specimen beside its pictures and cells.

    Attributes:
        name: The laboratory's identifier.
        leucocyte_count: Total leucocyte count in 10⁹/l, or None.
        patient: Number of the patient; may be empty, as all that follow.
        order: Number of the order.
        slide: Number of the slide.
        comment: Of the laboratory.
        model: The model that predicted the cells, where it need not be the one in use; else None.
        signature: Of who signed it; None while it may be changed.
        amended: How often it was opened again after it had been signed.
        second_of: Key of the specimen that this is a second reading of; "" for others.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False, str_max_length=MAX_TEXT)

    name: Line
    leucocyte_count: Positive | None
    patient: Line = ""
    order: Line = ""
    slide: Line = ""
    comment: Line = ""
    model: ModelIdentity | None = None
    signature: Signature | None = None
    amended: Annotated[int, Field(ge=0, le=MAX_EVENTS)] = 0
    second_of: str = ""

    def text_of(self, name: str) -> str:
        """The value of this name, as its field shows it and the history says it."""
        value = getattr(self, name)
        return "" if value is None else value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class Removal:
    """What went with a picture that was taken out.

    Attributes:
        stand_ins: Which cell each of the duplicates of its cells was a duplicate of.
        went: Its cells, without those that were discarded before.
    """

    stand_ins: Mapping[int, int]
    went: frozenset[int]


def events_by(who: str) -> partial[Event]:
    """What makes the events of one act of a person, without numbers."""
    name, now = escape_surrogates(who.strip()), datetime.now(UTC)
    return partial(Event, 0, now, name, cell=None, picture=None, field="", before="", after="")


def word_of(review: Review | None) -> str:
    """A review as one word: its class, `NONE_OF_FIVE` for none of the five, "" without a review."""
    return "" if review is None else review.label or NONE_OF_FIVE


def event_line(event: Event) -> str:
    """An event in a few words, for messages: `Ben: reviewed, cell 3, lymphocyte`."""
    place = f"cell {event.cell}" if event.cell else f"picture {event.picture}" if event.picture else event.field
    after = "none of the five" if event.after == NONE_OF_FIVE else event.after
    return f"{event.who or 'somebody'}: {', '.join(filter(None, (event.action.value, place, after)))}"
