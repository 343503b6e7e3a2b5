"""Reviewed cells of a laboratory: a folder of PNG files in class sub-folders, without anything but their pixels."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.adaptation.cells import AdaptationCell
from wbc_hf.data import read_image
from wbc_hf.errors import WbcError
from wbc_hf.files import write_atomically
from wbc_hf.labels import CLASS_NAMES


def write_reviewed_cell(folder: Path, cell: AdaptationCell) -> None:
    """Write a cell in one step; one that is there already gets the new label and group.

    The file's name is a digest of the pixels and one of the group, which may name a photograph or a specimen.

    Raises:
        WbcError: The cell has no label.
        OSError: It cannot be written.
    """
    if cell.label is None:
        raise WbcError("A cell without a label is none that was reviewed. Give it one of the classes.")
    pixels = np.asarray(cell.image.convert("RGB"))
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()[:24]
    file = folder / CLASS_NAMES[cell.label] / f"{digest}-{hashlib.sha256(cell.group.encode()).hexdigest()[:12]}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    for before in folder.glob(f"*/{digest}-*.png"):
        # Moved in one step, so that a cell never has two labels.
        os.replace(before, file)
        return
    content = io.BytesIO()
    # From the bare pixels: Pillow would copy a colour profile, and whatever else a picture says of its origin.
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    write_atomically(file, content.getvalue())


def read_reviewed_cells(folder: Path) -> list[AdaptationCell]:
    """Read the cells of a folder, in order of class and digest. Groups are digests.

    Raises:
        UnreadableImageError: A file is broken. The error names it.
    """
    return [
        AdaptationCell(read_image(file), label, file.stem.partition("-")[2])
        for label, name in enumerate(CLASS_NAMES)
        for file in _files(folder / name)
    ]


def count_reviewed_cells(folder: Path) -> dict[str, int]:
    """Number of cells of each class by name."""
    return {name: sum(1 for _ in _files(folder / name)) for name in CLASS_NAMES}


def _files(folder: Path) -> Iterator[Path]:
    # Temporary files begin with a dot.
    yield from sorted(file for file in folder.glob("*.png") if not file.name.startswith("."))
