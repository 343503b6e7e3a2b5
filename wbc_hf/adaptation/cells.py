"""Read cells of another laboratory, with or without labels, and check that there are enough."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.adaptation.adaptation_cell import MIN_CELLS, MIN_CLASSES, MIN_UNLABELLED, AdaptationCell, enough_labelled
from wbc_hf.adaptation.progress import ProgressCallback
from wbc_hf.data import (
    FolderImage,
    find_near_duplicates,
    find_pictures,
    group_images,
    has_class_folders,
    may_be_stained_cell,
    read_image,
    scan_folder,
)
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.hardware import usable_cores
from wbc_hf.inference import Predictor, map_ahead
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.smear import find_cells, predict_cells

logger = logging.getLogger(__name__)

# Pictures that are read ahead, and held: one of a cell is small, a photograph may have 50 million pixels.
_CELLS_AHEAD, _FIELDS_AHEAD = 8, 2


@dataclass(frozen=True)
class LeftOut:
    """Numbers of images in a folder that cannot be used."""

    unreadable: int = 0
    not_cells: int = 0


def read_cells(folder: Path, progress: ProgressCallback) -> tuple[list[AdaptationCell], LeftOut]:
    """Read the cells in a folder, with labels where its sub-folders name classes, and count what was left out."""
    labelled = _labelled_files(folder)
    paths = find_pictures(folder) if labelled is None else [file.path for file in labelled]
    usable: list[int] = []
    images: list[Image.Image] = []
    not_cells = 0
    for index, image in _read_pictures(paths, _CELLS_AHEAD, "Reading the pictures", progress):
        if may_be_stained_cell(image):
            usable.append(index)
            images.append(image)
        else:
            logger.warning("Left out %s: shows no stained cell.", paths[index])
            not_cells += 1
    left_out = LeftOut(len(paths) - not_cells - len(usable), not_cells)
    labels: list[int | None] = [None] * len(images)
    groups = [str(paths[index]) for index in usable]
    if labelled is not None:
        progress("Finding near-duplicates", 1)
        kept = [labelled[index] for index in usable]
        labels = [class_index(file.class_name) for file in kept]
        groups = _group(kept, images)
    return [AdaptationCell(*cell) for cell in zip(images, labels, groups, strict=True)], left_out


def read_fields(folder: Path, predictor: Predictor, progress: ProgressCallback) -> tuple[list[AdaptationCell], int]:
    """Find the cells in photographs of smears, without labels, and count the photographs that cannot be read.

    Cells that the border cuts off, or that show no stained cell, are left out. Cells of one photograph are one group.

    Args:
        folder: Of photographs, also in sub-folders.
        predictor: Of the model that is adapted, which names the framings.
        progress: Callback.

    Raises:
        WbcError: It is not a folder, or holds no photographs.
    """
    cells, readable = [], 0
    paths = find_pictures(folder)
    for index, field in _read_pictures(paths, _FIELDS_AHEAD, "Finding the cells", progress):
        readable += 1
        boxes = [cell.box for cell in find_cells(field) if not cell.cut]
        cells += [
            AdaptationCell(view.image, None, str(paths[index]), view.framings)
            for view in predict_cells(predictor, field, boxes, look_again=False)
            if may_be_stained_cell(view.image)
        ]
    return cells, len(paths) - readable


def _read_pictures(
    paths: Sequence[Path], ahead: int, step: str, progress: ProgressCallback
) -> Iterator[tuple[int, Image.Image]]:
    """Yield the pictures that can be read, with their numbers; a warning names each other one."""
    for index, picture in enumerate(map_ahead(_read, paths, min(usable_cores(), ahead))):
        progress(step, index / len(paths))
        if isinstance(picture, UnreadableImageError):
            logger.warning("Left out %s", picture)
        else:
            yield index, picture


def _read(path: Path) -> Image.Image | UnreadableImageError:
    try:
        return read_image(path)
    except UnreadableImageError as error:
        return error


def _labelled_files(folder: Path) -> list[FolderImage] | None:
    """The files in class folders; None where no folder is named like a class."""
    if not folder.is_dir():
        raise WbcError(f"{folder}: is not a folder. Give a folder of pictures, or of class sub-folders with pictures.")
    if not has_class_folders(folder):
        return None
    found = scan_folder(folder)
    unknown = sorted({file.class_name for file in found if class_index(file.class_name) is None})
    if unknown:
        raise WbcError(
            f"{folder}: its sub-folders {', '.join(unknown)} name no class, beside others that do. The classes are "
            f"{', '.join(CLASS_NAMES)}. Rename or remove them; without any class folder all pictures count as cells "
            "without labels."
        )
    return found


def _group(cells: Sequence[FolderImage], images: Sequence[Image.Image]) -> list[str]:
    """Group of each picture: of its near-duplicates, its photograph, and what `metadata.csv` says."""
    digests = [hashlib.sha256(file.path.read_bytes()).hexdigest() for file in cells]
    sources = [file.source for file in cells]
    near_duplicates = find_near_duplicates(digests, sources, images.__getitem__)
    groups = group_images(sources, [file.group for file in cells], near_duplicates)
    # By number: names would order the groups, and so the folds, by what files are called.
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(groups))}
    return [numbers[name] for name in groups]


def check_cells(labels: np.ndarray, left_out: LeftOut) -> None:
    """Check that there are enough cells to learn from and to evaluate with.

    Args:
        labels: int (n,), class indices, -1 where unknown.
        left_out: For the message.

    Raises:
        WbcError: There are too few.
    """
    skipped = [
        f"{count} {what}"
        for count, what in (
            (left_out.unreadable, "that cannot be read"),
            (left_out.not_cells, "that show no stained cell"),
        )
        if count
    ]
    beside = f" (left out: {', '.join(skipped)})" if skipped else ""
    counts = count_classes(labels)
    if not any(counts.values()):
        if len(labels) < MIN_UNLABELLED:
            raise WbcError(
                f"{len(labels)} pictures without labels{beside}: at least {MIN_UNLABELLED} are needed. Give more, or "
                "sort them into sub-folders named after the classes, of which fewer will do."
            )
    elif not enough_labelled(counts):
        given = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise WbcError(
            f"{given} labelled cells{beside}: at least {MIN_CELLS} cells in each of {MIN_CLASSES} classes are needed, "
            "and about 20 of each class are good. Label more."
        )


def count_classes(labels: np.ndarray) -> dict[str, int]:
    """Number of cells of each class by name."""
    return {name: int((labels == index).sum()) for index, name in enumerate(CLASS_NAMES)}
