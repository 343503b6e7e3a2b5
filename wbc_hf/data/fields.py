"""Fields with boxed leucocytes: read them, and split them so that no cell stands on both sides."""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wbc_hf.data.box_files import Box, read_voc, read_yolo
from wbc_hf.data.near_duplicates import find_near_duplicates, group_images
from wbc_hf.data.reading import SUFFIXES, read_image
from wbc_hf.errors import WbcError

# Sets of boxed fields by name: the folder within the image sets, and the numbers of its leucocytes' classes.
KNOWN_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "bccd": ("bccd/fields", ()),
    "raabin": ("raabin_fields", (0,)),
    "chula": ("chula_fields", (0, 1, 2, 3, 4)),
}

_LEUCOCYTE = "WBC"
_OVERLAPS_FILE = "overlap_pairs.csv"
# `B-30_0102`: slide B-30, chosen for the type of its cells, basophils.
_SLIDE = re.compile(r"(?P<type>[A-Z])-\w+(?=_\d+$)")


@dataclass(frozen=True)
class BoxedField:
    """A photograph with boxes, not opened yet.

    Attributes:
        path: The file.
        boxes: Boxes that people drew round the leucocytes, in pixels.
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


def read_boxed_fields(folder: Path, classes: Sequence[int] = (0,)) -> list[BoxedField]:
    """Read photographs in `images/` with their boxes, in order of their names.

    Args:
        folder: With boxes in `annotations/`, one XML file of Pascal VOC for each photograph, in which leucocytes are
            called "WBC" (github.com/Shenggan/BCCD_Dataset), or in `boxes/`, one text file of YOLO for each: class,
            centre x and y, width and height as shares of the photograph.
        classes: For YOLO, the numbers of the classes that are leucocytes.

    Raises:
        WbcError: No photographs there, or one without readable boxes.
    """
    fields = []
    for path in _find_photographs(folder):
        if (folder / "boxes").is_dir():
            numbered = read_yolo(folder / "boxes" / f"{path.stem}.txt", path)
            boxes = [box for number, box in numbered if number in classes]
        else:
            boxes = [box for name, box in read_voc(folder / "annotations" / f"{path.stem}.xml") if name == _LEUCOCYTE]
        fields.append(BoxedField(path, tuple(boxes)))
    return fields


def _find_photographs(folder: Path) -> list[Path]:
    """Find the photographs in `images/`, in order of their names. Raises WbcError where there are none."""
    paths = sorted(
        path
        for path in (folder / "images").glob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise WbcError(
            f"{folder}: holds no photographs with boxes. Expected are photographs in images/ and their boxes in "
            "annotations/, one file in the XML of Pascal VOC each, or in boxes/, one text file of YOLO each."
        )
    return paths


def split_boxed_fields(folder: Path, classes: Sequence[int] = (0,)) -> dict[str, list[BoxedField]]:
    """Split photographs into "tuning" and "scoring".

    In BCCD's layout the lower half by name is for tuning; photographs that the columns `a` and `b` of
    `overlap_pairs.csv` beside the folder name by their numbers stay on one side. In YOLO's two thirds are: photographs
    of one slide (`B-30_0102`), and near-duplicates, stay on one side, and each type of slides is on both.

    Raises:
        WbcError: As `read_boxed_fields`.
    """
    fields = read_boxed_fields(folder, classes)
    tuning = _two_thirds(fields) if (folder / "boxes").is_dir() else _lower_half(fields, folder)
    return {
        "tuning": [field for field in fields if field.name in tuning],
        "scoring": [field for field in fields if field.name not in tuning],
    }


def _lower_half(fields: Sequence[BoxedField], folder: Path) -> set[str]:
    tuning = {field.name for field in fields[: len(fields) // 2]}
    pairs = _overlaps(folder.parent / _OVERLAPS_FILE)
    # As often as it takes: a photograph may overlap one that overlaps another.
    while across := [pair for pair in pairs if pair & tuning and not pair <= tuning]:
        tuning = tuning.union(*across)
    return tuning


def _two_thirds(fields: Sequence[BoxedField]) -> set[str]:
    names = [field.name for field in fields]
    slides = [_SLIDE.match(name) for name in names]
    digests = [hashlib.sha256(field.path.read_bytes()).hexdigest() for field in fields]
    pairs = find_near_duplicates(digests, names, lambda index: fields[index].read())
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, slide, group in zip(
        names, slides, group_images(names, [s and s[0] for s in slides], pairs), strict=True
    ):
        groups[slide["type"] if slide else ""][group].append(name)
    return {
        name
        for of_type in groups.values()
        for number, together in enumerate(of_type.values())
        if number % 3 != 1
        for name in together
    }


def _overlaps(path: Path) -> list[set[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{f"BloodImage_{row['a']}", f"BloodImage_{row['b']}"} for row in csv.DictReader(file)]
