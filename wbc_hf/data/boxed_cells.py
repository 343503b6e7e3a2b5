"""Cells cut out of boxed fields, as a set of single cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image

from wbc_hf.data.fields import Box, find_photographs, read_numbered_boxes
from wbc_hf.data.framing import crop_cell
from wbc_hf.data.known_sets import known_by_file_names
from wbc_hf.data.reading import read_image
from wbc_hf.errors import WbcError

CLASSES_FILE = "classes.txt"


@dataclass(frozen=True)
class BoxedCell:
    """One leucocyte in a field.

    Attributes:
        source: Name of the field, and the number of the cell in it, from 0, in order of the classes' numbers.
        photograph: File of the field.
        box: Of the cell.
        class_name: As the boxes' classes are called.
    """

    source: str
    photograph: Path
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
        WbcError: The classes are unknown, a box is of a class without a name, or as `read_boxed_fields`.
    """
    names = _class_names(folder)
    cells = []
    for photograph in find_photographs(folder):
        path = folder / "boxes" / f"{photograph.stem}.txt"
        boxes = sorted(read_numbered_boxes(path, photograph), key=lambda numbered: numbered[0])
        for index, (number, box) in enumerate(boxes):
            if not 0 <= number < len(names):
                raise WbcError(
                    f"{path}: a box is of class {number}, but the classes are 0 to {len(names) - 1} "
                    f"({', '.join(names)}). Name it in boxes/{CLASSES_FILE}, or remove the box."
                )
            cells.append(BoxedCell(f"{photograph.stem}_{index}.png", photograph, box, names[number]))
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
    for photograph, together in groupby(cells, lambda cell: cell.photograph):
        image = read_image(photograph)
        yield from (crop_cell(image, cell.box) for cell in together)
