"""A specimen at one moment: what is kept of it, and the snapshot that every export is made from, so that all agree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from wbc_hf.data import Box
from wbc_hf.errors import UnreadableImageError
from wbc_hf.inference import ModelIdentity
from wbc_hf.smear.cell import Cell, CellState
from wbc_hf.smear.differential import Differential
from wbc_hf.smear.history import About, Event, Removal
from wbc_hf.smear.limits import Coordinate, Positive
from wbc_hf.smear.picture_kind import PictureKind
from wbc_hf.smear.picture_store import KeptPicture, picture_bytes


@dataclass(frozen=True)
class Place:
    """Where a field lies on its slide.

    Attributes:
        slide: Name of the slide.
        x, y: Upper left corner of the field, in pixels of the slide at full resolution.
        scale: Pixels of the slide for a pixel of the field.
    """

    slide: str
    x: Coordinate
    y: Coordinate
    scale: Positive

    def on_slide(self, box: Box) -> Box:
        """A box in pixels of the field, in pixels of the slide."""
        x0, y0, x1, y1 = box
        return (
            round(self.x + self.scale * x0),
            round(self.y + self.scale * y0),
            round(self.x + self.scale * x1),
            round(self.y + self.scale * y1),
        )


@dataclass(frozen=True)
class SlideMap:
    """A slide as a whole, and which fields of it lie in the monolayer.

    Attributes:
        name: File name without folders.
        size: Width and height in pixels.
        pixel_size: Width of a pixel in µm.
        measured: Whether that was measured by the red cells, since the file does not say it.
        small: Its thumbnail, JPEG: bytes, or where a specimen keeps them.
        fields: Boxes of the chosen fields, without what neighbours share, in pixels of the slide, in reading order.
        digest: What tells its file from others, see `file_digest`; "" where that was not kept.
    """

    name: str
    size: tuple[int, int]
    pixel_size: float
    measured: bool
    small: bytes | KeptPicture
    fields: tuple[Box, ...]
    digest: str = ""

    @property
    def thumbnail(self) -> bytes:
        """JPEG."""
        return picture_bytes(self.small)


@dataclass(frozen=True)
class Picture:
    """One picture of a specimen.

    Attributes:
        number: From 1, in the order in which they were added; 0 until `Specimen.add_picture` assigns it.
        name: File name without folders.
        size: Width and height in pixels.
        is_field: Whether it is a photograph of a smear; else it shows one cell.
        small: JPEG, of the size of the picture or smaller: bytes, or where a specimen keeps them.
        kind: What it looks like, however it was read.
        removed: Whether a person removed it from the specimen.
        pixel_size: Width of a pixel in µm, or None where the file does not say it credibly.
        place: Where it lies on a slide; None of a photograph.
    """

    number: int
    name: str
    size: tuple[int, int]
    is_field: bool
    small: bytes | KeptPicture
    kind: PictureKind = PictureKind.UNCLEAR
    removed: bool = False
    pixel_size: float | None = None
    place: Place | None = None

    @property
    def preview(self) -> bytes:
        """JPEG, of the size of the picture or smaller."""
        return picture_bytes(self.small)

    @property
    def read_otherwise(self) -> bool:
        """Whether it was read as one thing and looks like the other."""
        return self.kind is (PictureKind.CELL if self.is_field else PictureKind.FIELD)


@dataclass(frozen=True)
class Contents:
    """All that is kept of a specimen.

    Attributes:
        about: What is known of it beside its pictures and cells.
        pictures: All, removed ones included, in the order of their numbers.
        cells: All, in whatever state, in the order of their numbers.
        removals: What went with each picture that was taken out, by its number.
        history: What was done to it, in order.
        slides: Those that fields are of.
    """

    about: About = field(default_factory=lambda: About("", None))
    pictures: tuple[Picture, ...] = ()
    cells: tuple[Cell, ...] = ()
    removals: Mapping[int, Removal] = field(default_factory=dict)
    history: tuple[Event, ...] = ()
    slides: tuple[SlideMap, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Snapshot(Contents):
    """A specimen at one moment, with its differential.

    Attributes:
        time: When it was made, in UTC.
        model: The model that classified the cells.
        differential: Of the counted cells.
        unreadable: Files that `count` could not read: `name` and `reason` of each.
    """

    time: datetime
    model: ModelIdentity
    differential: Differential
    unreadable: tuple[UnreadableImageError, ...] = ()

    @property
    def specimen(self) -> str:
        """The laboratory's identifier; may be empty."""
        return self.about.name

    @property
    def reviewers(self) -> tuple[str, ...]:
        """Names of the reviewers, each once, sorted; "" stands for those who gave none."""
        return tuple(sorted({cell.reviewer for cell in self.reviewed}))

    @property
    def reviewed(self) -> tuple[Cell, ...]:
        """Reviewed cells, without those of removed pictures."""
        return tuple(cell for cell in self.cells if cell.review is not None and not cell.removed)

    def cells_in(self, state: CellState) -> tuple[Cell, ...]:
        """The cells in one state."""
        return tuple(cell for cell in self.cells if cell.state is state)
