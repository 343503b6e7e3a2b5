"""What becomes of the cells of a specimen when one of its pictures is taken out, or put back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wbc_hf.smear.cell import Cell
from wbc_hf.smear.history import Removal
from wbc_hf.smear.snapshot import Contents


def take_out(cells: Sequence[Cell], picture: int) -> tuple[list[Cell], Removal]:
    """The cells that change with a picture that is taken out, and what undoes that.

    Duplicates of its cells in other pictures are counted in their place: of each the first that is shown whole.
    """
    went = frozenset(cell.number for cell in cells if cell.picture == picture and not cell.removed)
    stand_ins: dict[int, int] = {}
    successors: dict[int, int] = {}
    changed = []
    for cell in cells:
        original = cell.duplicate_of
        if cell.number in went:
            changed.append(replace(cell, removed=True))
        elif original is not None and original in went:
            stand_ins[cell.number] = original
            changed.append(replace(cell, duplicate_of=successors.get(original)))
            if not cell.cut or cell.review is not None:
                successors.setdefault(original, cell.number)
    return changed, Removal(stand_ins, went)


def put_back(cells: Sequence[Cell], removal: Removal) -> list[Cell]:
    """The cells that change when a picture is put back."""
    duplicates = [
        replace(cells[duplicate - 1], duplicate_of=original) for duplicate, original in removal.stand_ins.items()
    ]
    return duplicates + [replace(cells[back - 1], removed=False) for back in sorted(removal.went)]


def add_stand_ins(contents: Contents, picture: int, originals: Mapping[int, int]) -> dict[int, Removal | None]:
    """The removals that change where a new picture shows cells of pictures that were taken out.

    Args:
        contents: Of the specimen.
        picture: Number of the new picture.
        originals: By index of its cells, the number of the cell of a picture that was taken out.
    """
    numbers = [cell.number for cell in contents.cells if cell.picture == picture]
    changed: dict[int, Removal | None] = {}
    for index, original in originals.items():
        removed = contents.cells[original - 1].picture
        if (removal := changed.get(removed) or contents.removals.get(removed)) is not None:
            changed[removed] = replace(removal, stand_ins={**removal.stand_ins, numbers[index]: original})
    return changed
