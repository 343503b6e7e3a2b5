"""Reviewed cells of a laboratory: a folder of PNG files in class sub-folders, with nothing but pixels and framings."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, TypeAdapter, ValidationError

from wbc_hf.adaptation.adaptation_cell import AdaptationCell
from wbc_hf.data import WHOLE, Framing, read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.files import write_atomically
from wbc_hf.labels import CLASS_NAMES

_FRAMINGS = "framings"  # key of a text in the PNG file
_Share = Annotated[float, Field(ge=0, le=1)]
_ADAPTER: TypeAdapter[tuple[Framing, ...]] = TypeAdapter(
    Annotated[tuple[tuple[_Share, _Share, _Share, _Share], ...], Field(min_length=1, max_length=20)]
)


@dataclass(frozen=True)
class KeptCell:
    """What the name of a file says of the cell in it.

    Attributes:
        label: Index into `CLASS_NAMES`.
        group: Digest of its group, as `group_digest` gives it.
    """

    label: int
    group: str


def group_digest(group: str) -> str:
    """What is kept of a group's name, which may be that of a photograph or a specimen."""
    return hashlib.sha256(group.encode()).hexdigest()[:12]


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
    digest = _pixel_digest(pixels)
    file = folder / CLASS_NAMES[cell.label] / f"{digest}-{group_digest(cell.group)}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    for before in folder.glob(f"*/{digest}-*.png"):
        # Moved in one step, so that a cell never has two labels.
        os.replace(before, file)
        return
    content, framings = io.BytesIO(), PngInfo()
    if cell.framings != (WHOLE,):
        framings.add_text(_FRAMINGS, json.dumps(cell.framings))
    # From the bare pixels: Pillow would copy a colour profile, and whatever else a picture says of its origin.
    Image.fromarray(pixels).save(content, "PNG", optimize=True, pnginfo=framings)
    write_atomically(file, content.getvalue())


def read_reviewed_cells(folder: Path) -> list[AdaptationCell]:
    """Read the cells of a folder, in order of class and digest. Groups are digests.

    Raises:
        UnreadableImageError: A file is broken. The error names it.
    """
    return [AdaptationCell(read_image(file), it.label, it.group, _framings_of(file)) for file, it in _files(folder)]


def list_reviewed_cells(folder: Path) -> list[KeptCell]:
    """The cells of a folder by the names of their files, in order of class and digest. Nothing is read."""
    return [cell for _, cell in _files(folder)]


def add_kept_cells(cells: Sequence[AdaptationCell], kept: Sequence[AdaptationCell]) -> list[AdaptationCell]:
    """Add kept cells to others, each cell once: in two groups, one would be learned and the other held back.

    What a person says of a photograph now holds, not what was kept of it. Of a photograph that is given once more with
    another specimen, a kept cell lends the same cell its label and all of them its group.

    Args:
        cells: At hand, with groups by name.
        kept: As `read_reviewed_cells` gives them, with digests of groups.

    Returns:
        All with digests of groups.
    """
    own = [replace(cell, group=group_digest(cell.group)) for cell in cells]
    groups = {cell.group for cell in own}
    others = {_pixel_digest(np.asarray(cell.image)): cell for cell in kept if cell.group not in groups}
    if not others:
        return own
    same = [others.pop(_pixel_digest(np.asarray(cell.image.convert("RGB"))), None) for cell in own]
    renamed = {cell.group: twin.group for cell, twin in zip(own, same, strict=True) if twin is not None}
    return [
        *(
            replace(
                cell,
                label=twin.label if cell.label is None and twin is not None else cell.label,
                group=renamed.get(cell.group, cell.group),
            )
            for cell, twin in zip(own, same, strict=True)
        ),
        *others.values(),
    ]


def _files(folder: Path) -> Iterator[tuple[Path, KeptCell]]:
    for label, name in enumerate(CLASS_NAMES):
        for file in sorted(folder.glob(f"{name}/[!.]*.png")):  # temporary files begin with a dot
            yield file, KeptCell(label, file.stem.partition("-")[2])


def _framings_of(file: Path) -> tuple[Framing, ...]:
    with Image.open(file) as picture:
        written = picture.info.get(_FRAMINGS)
    try:
        return (WHOLE,) if written is None else _ADAPTER.validate_json(written)
    except ValidationError as error:
        raise UnreadableImageError(str(file), "its framings are damaged; remove the file") from error


def _pixel_digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()[:24]
