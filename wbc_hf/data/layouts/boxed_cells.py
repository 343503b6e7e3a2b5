"""Cells cut out of photographs with boxes (YOLO, Pascal VOC, COCO), as a set of single cells."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image

from wbc_hf.data.box_files import CLASS_FILES, Box, read_coco, read_voc, read_yolo, read_yolo_classes
from wbc_hf.data.framing import crop_cell
from wbc_hf.data.known_sets import known_by_file_names
from wbc_hf.data.layouts.class_folders import FolderImage
from wbc_hf.data.layouts.walking import is_picture, list_files
from wbc_hf.data.reading import read_image
from wbc_hf.data.split_names import nearest_split
from wbc_hf.errors import WbcError

logger = logging.getLogger(__name__)

_FOLDERS_OF_BOXES = frozenset({"boxes", "labels", "annotations"})


@dataclass(frozen=True, kw_only=True)
class BoxedCell(FolderImage):
    """One cell in a photograph, whose file is `path` and whose name is `group`.

    `source` is the name of the photograph, and the number of the cell in it, from 0, in order of the file, or of
    YOLO's classes.

    Attributes:
        box: Of the cell.
    """

    box: Box


def find_boxed_cells(root: Path) -> list[BoxedCell]:
    """Find the cells that boxes in a folder mark, in order of the photographs; [] where there are no boxes.

    Boxes are in files of COCO (`.json`), Pascal VOC (`.xml`) or YOLO (`.txt`), which belong to the photograph of the
    same name; YOLO's classes are named in `classes.txt`, `obj.names` or `data.yaml`, and are known of public sets.
    Photographs without a file of boxes are left out, which is said.

    Raises:
        WbcError: A file of boxes cannot be read, belongs to no photograph, or has a class without a name.
    """
    files = list_files(root)
    photographs = [path for path in files if is_picture(path)]
    boxes = _read_boxes(root, files, photographs)
    if not boxes:
        return []
    if without := [path for path in photographs if path not in boxes]:
        logger.warning(
            "%s: left out %d photographs without a file of boxes, %s for one.",
            root,
            len(without),
            without[0].relative_to(root).as_posix(),
        )
    stems = [path.stem for path in boxes]
    cells = []
    for photograph, of_one in sorted(boxes.items()):
        relative = photograph.relative_to(root)
        # A name alone tells the known sets; several folders may hold the same name.
        name = photograph.stem if stems.count(photograph.stem) == 1 else relative.with_suffix("").as_posix()
        split, test_set = nearest_split(relative.parts[:-1])
        cells += [
            BoxedCell(photograph, f"{name}_{index}.png", class_name, split, relative.as_posix(), test_set, box=box)
            for index, (class_name, box) in enumerate(of_one)
        ]
    return cells


def cut_cells(cells: Sequence[BoxedCell]) -> Iterator[Image.Image]:
    """Cut cells out of their photographs, each framed as `crop_cell` does: RGB, one a cell."""
    for photograph, together in groupby(cells, lambda cell: cell.path):
        image = read_image(photograph)
        yield from (crop_cell(image, cell.box) for cell in together)


def _read_boxes(root: Path, files: Sequence[Path], photographs: Sequence[Path]) -> dict[Path, list[tuple[str, Box]]]:
    """Boxes with the names of their classes by photograph, of the first format that is there."""
    found = _Photographs(root, photographs)
    coco = {path: read_coco(path) for path in files if path.suffix == ".json"}
    if any(of_file is not None for of_file in coco.values()):
        return {
            found.named(name, path): of_one for path, each in coco.items() for name, of_one in (each or {}).items()
        }
    if voc := _files_of_boxes(root, files, photographs, ".xml"):
        return {found.named(path.stem, path): read_voc(path) for path in voc}
    boxes: dict[Path, list[tuple[str, Box]]] = {}
    if texts := _files_of_boxes(root, files, photographs, ".txt"):
        names, place = _yolo_classes(files, texts)
        for path in texts:
            photograph = found.named(path.stem, path)
            numbered = sorted(read_yolo(path, photograph), key=lambda each: each[0])
            if unnamed := {number for number, _ in numbered} - set(range(len(names))):
                raise WbcError(
                    f"{path}: a box is of class {min(unnamed)}, but the classes are 0 to {len(names) - 1} "
                    f"({', '.join(names)}). Name it in {place.name}, or remove the box."
                )
            boxes[photograph] = [(names[number], box) for number, box in numbered]
    return boxes


def _files_of_boxes(root: Path, files: Sequence[Path], photographs: Sequence[Path], suffix: str) -> list[Path]:
    """The files with this ending that are in a folder of boxes, or called like a photograph."""
    stems = {path.stem for path in photographs}
    return [
        path
        for path in files
        if path.suffix.lower() == suffix
        and path.name not in CLASS_FILES
        and (path.stem in stems or _FOLDERS_OF_BOXES & {part.lower() for part in path.relative_to(root).parts[:-1]})
    ]


class _Photographs:
    """The photographs of a folder by name without ending; of several, that beside the file of boxes is meant."""

    def __init__(self, root: Path, photographs: Sequence[Path]):
        self.root = root
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in photographs:
            self._by_stem[path.stem].append(path)

    def named(self, name: str, boxes: Path) -> Path:
        """The photograph that a file of boxes calls by this name. Raises WbcError where there is none."""
        found = self._by_stem.get(Path(name).stem, [])
        if not found:
            raise WbcError(f"{boxes}: has boxes of {name}, but there is no such photograph. Add it or remove them.")
        # `train/labels/a.txt` and `labels/train/a.txt` share most with the photograph of their split.
        words = {*boxes.relative_to(self.root).parts, *Path(name).parts, *boxes.stem.split("_")}
        return max(found, key=lambda path: len(words & set(path.relative_to(self.root).parts)))


def _yolo_classes(files: Sequence[Path], texts: Sequence[Path]) -> tuple[list[str], Path]:
    """The names of YOLO's classes by their numbers, and the file that has them; of public sets they are known."""
    given = [path for path in files if path.name in CLASS_FILES or path.name in ("data.yaml", "dataset.yaml")]
    place = given[0] if given else texts[0].parent / CLASS_FILES[0]
    if given:
        return read_yolo_classes(place), place
    known = known_by_file_names([f"{path.stem}_0.png" for path in texts])
    if known is None or not known.box_classes:
        raise WbcError(
            f"{place}: there is no such file, so it is not known which class each number in {place.parent.name}/ "
            "stands for. Write one with a class name a line, that of number 0 first."
        )
    return list(known.box_classes), place
