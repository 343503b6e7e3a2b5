"""One leucocyte in one picture: what the model predicts, what a reviewer says, and whether it is counted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from PIL import Image

from wbc_hf.data import WHOLE, Box, Framing, cut_framing, read_image
from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.smear.cell_types import CellType
from wbc_hf.smear.picture_store import KeptPicture, picture_bytes


class CellState(StrEnum):
    """Whether a cell is counted, and why not."""

    COUNTED = "counted"
    WAITING = "waiting"  # for review, since the model is not confident
    BESIDE = "beside"  # the reviewer says that it is of a type that is counted per 100 leucocytes
    REJECTED = "rejected"  # the reviewer says that it is none of the five classes, nor of the laboratory's own types
    CUT = "cut"  # by the border of the field, and no reviewer overruled that
    DUPLICATE = "duplicate"  # of a cell in an earlier picture
    REMOVED = "removed"  # with its picture


# No review changes these.
NEVER_COUNTED = (CellState.DUPLICATE, CellState.REMOVED)


@dataclass(frozen=True)
class Review:
    """What a reviewer says of a cell.

    Attributes:
        label: One of `CLASS_NAMES`, the name of `own`, or None: not one of the five.
        reviewer: Name of the reviewer; "" where none was given.
        time: When, in UTC.
        own: The laboratory's own type that the reviewer named; None for one of the five, or none of them.
    """

    label: str | None
    reviewer: str
    time: datetime
    own: CellType | None = None


@dataclass(frozen=True)
class Cell:
    """One leucocyte in one picture.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the picture, half-open.
        prediction: Of the model.
        crop: The cell in its widest framing, PNG, RGB: bytes, or where a specimen keeps them.
        cut: Whether the border of the field cuts the cell off. It is counted only where a review says what it is.
        duplicate_of: Number of the cell in an earlier picture that is the same leucocyte, or None.
        number: From 1 over all pictures of the specimen; 0 until `Specimen.add_picture` assigns it.
        picture: Number of the picture; 0 until then.
        review: Of a person, or None.
        removed: Whether its picture was removed from the specimen.
        pointed_at: Whether the finder missed it and a person pointed at it: only a review says that it is a cell.
        framings: Parts of the crop that the model classified; first the one most like its training images.
    """

    box: Box
    prediction: Prediction
    crop: bytes | KeptPicture
    cut: bool = False
    duplicate_of: int | None = None
    number: int = 0
    picture: int = 0
    review: Review | None = None
    removed: bool = False
    pointed_at: bool = False
    framings: tuple[Framing, ...] = (WHOLE,)

    @property
    def image(self) -> bytes:
        """The crop, PNG, RGB."""
        return picture_bytes(self.crop)

    @property
    def views(self) -> list[Image.Image]:
        """What the model classified, RGB: a picture for each framing."""
        crop = read_image(self.image)
        return [cut_framing(crop, framing) for framing in self.framings]

    @property
    def state(self) -> CellState:
        """Whether the cell is counted, and why not."""
        if self.removed:
            return CellState.REMOVED
        if self.duplicate_of is not None:
            return CellState.DUPLICATE
        if self.review is not None:
            if self.review.label is None:
                return CellState.REJECTED
            return CellState.COUNTED if self.own is None or self.own.leucocyte else CellState.BESIDE
        if self.cut:
            return CellState.CUT
        confident = self.prediction.status == "confident" and self.suggestion is not None and not self.pointed_at
        return CellState.COUNTED if confident else CellState.WAITING

    @property
    def suggestion(self) -> str | None:
        """The predicted class, one of `CLASS_NAMES`; None where a model of more classes predicts another."""
        index = class_index(self.prediction.label)
        return None if index is None else CLASS_NAMES[index]

    @property
    def proposal(self) -> str | None:
        """What a reviewer who accepts the prediction says: its class; None where it sees no leucocyte, or another."""
        return None if self.prediction.status == "not_a_cell" else self.suggestion

    @property
    def label(self) -> str | None:
        """The reviewer's class or own type, without a review the model's class; None for none of them."""
        return self.suggestion if self.review is None else self.review.label

    @property
    def own(self) -> CellType | None:
        """The laboratory's own type that a reviewer named; None without one."""
        return None if self.review is None else self.review.own

    @property
    def reviewer(self) -> str:
        """Name of the reviewer; "" without a review or without a name."""
        return "" if self.review is None else self.review.reviewer

    @property
    def corrected(self) -> bool:
        """Whether the reviewer disagrees with the model."""
        return self.review is not None and self.review.label != self.suggestion


def count_found(cells: Iterable[Cell]) -> int:
    """Number of leucocytes that are counted, or will be if a person says so."""
    return sum(cell.state in (CellState.COUNTED, CellState.WAITING) for cell in cells)


def count_cells(cells: Iterable[Cell]) -> dict[str, int]:
    """Count the cells in state COUNTED by class name. All five classes are keys, and no own types of a laboratory."""
    counts = Counter(cell.label for cell in cells if cell.state is CellState.COUNTED and cell.own is None)
    return {name: counts[name] for name in CLASS_NAMES}
