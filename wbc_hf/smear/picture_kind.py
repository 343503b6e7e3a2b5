"""Tell a picture of one cell from a photograph of a field, by what the finder finds in it."""

from collections.abc import Sequence
from enum import StrEnum

from wbc_hf.data import Box
from wbc_hf.smear.finder import FoundCell

# Cut-outs are square with the cell in their middle, cameras' photographs are oblong; a cell that fills the picture is
# one in any. Boxes are measured in shorter sides of the picture. docs/decisions.md has the figures.
_FILLS = 0.6
_LEAST, _OFF_CENTRE, _SQUARE = 0.25, 0.15, 1.15
# A square picture that shows no cell in its middle is a field only if it is large or shows several whole cells.
_LARGE_SIDE, _SEVERAL = 640, 3


class PictureKind(StrEnum):
    """What a picture looks like."""

    FIELD = "field"
    CELL = "cell"
    UNCLEAR = "unclear"


def kind_of_picture(found: Sequence[FoundCell], size: tuple[int, int]) -> PictureKind:
    """Judge whether a picture shows a field or one cell.

    Args:
        found: What `find_cells` finds in it.
        size: Width and height in pixels.
    """
    short, long = min(size), max(size)
    square = long <= _SQUARE * short
    if found:
        largest = max(found, key=lambda cell: _width(cell.box))
        alone = all(cell.cut for cell in found if cell is not largest)
        share = _width(largest.box) / short
        central = square and share >= _LEAST and _off_centre(largest.box, size) <= _OFF_CENTRE
        if alone and (share >= _FILLS or central):
            return PictureKind.CELL
    whole = sum(not cell.cut for cell in found)
    return PictureKind.FIELD if not square or long >= _LARGE_SIDE or whole >= _SEVERAL else PictureKind.UNCLEAR


def _width(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _off_centre(box: Box, size: tuple[int, int]) -> float:
    """How far the middle of a box lies from that of the picture, in widths or heights of the picture."""
    return max(abs((box[axis] + box[axis + 2]) / 2 / size[axis] - 0.5) for axis in (0, 1))
