"""One act on a specimen, as it is kept: in memory, and before that in a store where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wbc_hf.errors import WbcError
from wbc_hf.smear.cell import Cell
from wbc_hf.smear.history import About, Event, Removal
from wbc_hf.smear.picture_store import KeptPicture
from wbc_hf.smear.snapshot import Contents, Picture, SlideMap


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

    pictures: Sequence[Picture] = ()
    cells: Sequence[Cell] = ()
    removals: Mapping[int, Removal | None] = field(default_factory=dict)
    events: Sequence[Event] = ()
    about: About | None = None
    slides: Sequence[SlideMap] = ()

    def new_pictures(self, before: Contents) -> list[bytes | KeptPicture]:
        """The previews, crops and thumbnails that a specimen gains by it."""
        small = [it.small for it in self.pictures if it.number > len(before.pictures)]
        small += [it.crop for it in self.cells if it.number > len(before.cells)]
        return small + [it.small for it in self.slides]

    def applied_to(self, before: Contents) -> Contents:
        """What a specimen holds after it."""
        pictures, cells = list(before.pictures), list(before.cells)
        for picture in self.pictures:
            pictures[picture.number - 1 : picture.number] = [picture]
        for cell in self.cells:
            cells[cell.number - 1 : cell.number] = [cell]
        merged = {**before.removals, **self.removals}
        return Contents(
            self.about or before.about,
            tuple(pictures),
            tuple(cells),
            {number: removal for number, removal in merged.items() if removal is not None},
            (*before.history, *self.events),
            (*before.slides, *self.slides),
        )


class ChangedMeanwhileError(WbcError):
    """Somebody else changed what a person acts on, after that person looked. Nothing was done."""
