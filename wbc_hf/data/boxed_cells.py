"""Cells cut out of boxed fields, as a set of single cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image

from wbc_hf.data.fields import Box, BoxedField, read_boxed_fields
from wbc_hf.data.framing import crop_cell
from wbc_hf.data.known_sets import known_by_file_names
from wbc_hf.errors import WbcError

CLASSES_FILE = "classes.txt"


@dataclass(frozen=True)
class BoxedCell:
    """One leucocyte in a field.

    Attributes:
        source: Name of the field, and the number of the cell in it, from 0.
        field: The field.
        box: Of the cell.
        class_name: As the boxes' classes are called.
    """

    source: str
    field: BoxedField
    box: Box
    class_name: str


def is_boxed_folder(folder: Path) -> bool:
    """Whether a folder holds fields in `images/` and text files of YOLO in `boxes/`."""
    return (folder / "images").is_dir() and (folder / "boxes").is_dir()


def find_boxed_cells(folder: Path) -> list[BoxedCell]:
    """Find the cells of a folder of boxed fields, in order of the fields' names.

    What the numbers of the boxes' classes mean is in `boxes/classes.txt`, a class name a line; of public sets without
    that file it is known.

    Raises:
        WbcError: The classes are unknown, or as `read_boxed_fields`.
    """
    names = _class_names(folder)
    by_class = [read_boxed_fields(folder, (number,)) for number in range(len(names))]
    cells = []
    for fields in zip(*by_class, strict=True):
        boxes = [(box, name) for field, name in zip(fields, names, strict=True) for box in field.boxes]
        cells += [
            BoxedCell(f"{fields[0].name}_{number}.png", fields[0], box, name)
            for number, (box, name) in enumerate(boxes)
        ]
    return cells


def _class_names(folder: Path) -> list[str]:
    path = folder / "boxes" / CLASSES_FILE
    if path.is_file():
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = known_by_file_names([f"{file.stem}_0.png" for file in (folder / "boxes").glob("*.txt")])
    if known is None or not known.box_classes:
        raise WbcError(
            f"{path}: there is no such file, so it is not known which class each number in boxes/ stands for. Write "
            "one with a class name a line, that of number 0 first."
        )
    return list(known.box_classes)


def cut_cells(cells: Sequence[BoxedCell]) -> Iterator[Image.Image]:
    """Cut cells out of their fields, each framed as `crop_cell` does: RGB, one a cell."""
    for field, together in groupby(cells, lambda cell: cell.field):
        image = field.read()
        yield from (crop_cell(image, cell.box) for cell in together)
