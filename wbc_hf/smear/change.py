"""One act on a specimen, as it is kept: in memory, and before that in a store where there is one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wbc_hf.errors import WbcError
from wbc_hf.smear.cell import Cell
from wbc_hf.smear.history import About, Event, Removal
from wbc_hf.smear.snapshot import Picture, SlideMap


@dataclass(frozen=True)
class Change:
    """What one act changes in a specimen: all of it is kept, or nothing.

    Attributes:
        pictures: New ones, and those that replace the ones with their numbers.
        cells: As well.
        removals: By number of the picture; None where one was put back.
        events: What the history gains.
        about: What is known of the specimen; None where that stays.
        slides: New ones, which come after those that were there.
    """

    pictures: tuple[Picture, ...] = ()
    cells: tuple[Cell, ...] = ()
    removals: Mapping[int, Removal | None] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    about: About | None = None
    slides: tuple[SlideMap, ...] = ()


# Keeps a change for good, or raises a WbcError: the specimen then stays as it was, and whoever acted is told.
Journal = Callable[[Change], None]


class ChangedMeanwhileError(WbcError):
    """Somebody else changed what a person acts on, after that person looked. Nothing was done."""
