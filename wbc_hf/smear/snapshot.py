"""A specimen at one moment: every export is made from a snapshot, so that all of them agree."""

from dataclasses import dataclass
from datetime import datetime

from wbc_hf.errors import UnreadableImageError
from wbc_hf.inference import ModelIdentity
from wbc_hf.smear.cell import Cell, CellState
from wbc_hf.smear.differential import Differential
from wbc_hf.smear.picture_kind import PictureKind
from wbc_hf.smear.picture_store import KeptPicture, picture_bytes


@dataclass(frozen=True)
class Picture:
    """One picture of a specimen.

    Attributes:
        number: From 1, in the order in which they were added.
        name: File name without folders.
        size: Width and height in pixels.
        is_field: Whether it is a photograph of a smear; else it shows one cell.
        small: JPEG, of the size of the picture or smaller: bytes, or where a specimen keeps them.
        kind: What it looks like, however it was read.
        removed: Whether a person removed it from the specimen.
        pixel_size: Width of a pixel in µm, or None where the file does not say it credibly.
    """

    number: int
    name: str
    size: tuple[int, int]
    is_field: bool
    small: bytes | KeptPicture
    kind: PictureKind = PictureKind.UNCLEAR
    removed: bool = False
    pixel_size: float | None = None

    @property
    def preview(self) -> bytes:
        """JPEG, of the size of the picture or smaller."""
        return picture_bytes(self.small)

    @property
    def read_otherwise(self) -> bool:
        """Whether it was read as one thing and looks like the other."""
        return self.kind is (PictureKind.CELL if self.is_field else PictureKind.FIELD)


@dataclass(frozen=True)
class Snapshot:
    """A specimen at one moment.

    Attributes:
        specimen: The laboratory's identifier; may be empty.
        time: When it was made, in UTC.
        model: The model that classified the cells.
        pictures: All, removed ones included.
        cells: All, in whatever state.
        differential: Of the counted cells.
        unreadable: Files that `count` could not read: `name` and `reason` of each.
    """

    specimen: str
    time: datetime
    model: ModelIdentity
    pictures: tuple[Picture, ...]
    cells: tuple[Cell, ...]
    differential: Differential
    unreadable: tuple[UnreadableImageError, ...] = ()

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
