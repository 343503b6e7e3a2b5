"""Photographs of whole fields with boxes drawn round the leucocytes, split for tuning and scoring a finder."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

from PIL import Image

from wbc_hf.data.reading import SUFFIXES, read_image
from wbc_hf.errors import WbcError

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open

_LEUCOCYTE = "WBC"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_OVERLAPS_FILE = "overlap_pairs.csv"


@dataclass(frozen=True)
class BoxedField:
    """One photograph, not opened yet.

    Attributes:
        path: The file.
        boxes: Boxes that a person drew round the leucocytes, in pixels.
    """

    path: Path
    boxes: tuple[Box, ...]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def read(self) -> Image.Image:
        """The photograph, RGB."""
        return read_image(self.path)


def read_boxed_fields(folder: Path) -> list[BoxedField]:
    """Read a folder in the layout of BCCD (github.com/Shenggan/BCCD_Dataset), in order of file names.

    Args:
        folder: Photographs in `images/`, and for each a file of Pascal VOC XML in `annotations/`, in which leucocytes
            are called "WBC".

    Raises:
        WbcError: No photographs there, or one without readable boxes.
    """
    paths = sorted(
        path
        for path in (folder / "images").glob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise WbcError(
            f"{folder}: holds no photographs with boxes. Expected are photographs in images/ and their boxes in "
            "annotations/, one file in the XML of Pascal VOC each. Name a folder laid out like that, such as BCCD's."
        )
    return [BoxedField(path, _leucocytes(folder / "annotations" / f"{path.stem}.xml")) for path in paths]


def split_boxed_fields(folder: Path) -> dict[str, list[BoxedField]]:
    """Split the photographs by half: "tuning", the lower half by name, and "scoring".

    Photographs that overlap are kept on one side: those that the columns `a` and `b` of `overlap_pairs.csv` beside the
    folder name by their numbers, where there is such a file.

    Raises:
        WbcError: As `read_boxed_fields`.
    """
    fields = read_boxed_fields(folder)
    tuning = {field.name for field in fields[: len(fields) // 2]}
    pairs = _overlaps(folder.parent / _OVERLAPS_FILE)
    # As often as it takes: a photograph may overlap one that overlaps another.
    while across := [pair for pair in pairs if pair & tuning and not pair <= tuning]:
        tuning = tuning.union(*across)
    return {
        "tuning": [field for field in fields if field.name in tuning],
        "scoring": [field for field in fields if field.name not in tuning],
    }


def _leucocytes(path: Path) -> tuple[Box, ...]:
    try:
        objects = ElementTree.parse(path).iter("object")
        return tuple(
            cast(Box, tuple(int(one.findtext(f"bndbox/{corner}", "")) for corner in _CORNERS))
            for one in objects
            if one.findtext("name") == _LEUCOCYTE
        )
    except (FileNotFoundError, ElementTree.ParseError, ValueError) as error:
        raise WbcError(
            f"{path}: boxes cannot be read ({error}). Expected is XML of Pascal VOC. Mend it or remove its photograph."
        ) from error


def _overlaps(path: Path) -> list[set[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{f"BloodImage_{row['a']}", f"BloodImage_{row['b']}"} for row in csv.DictReader(file)]
