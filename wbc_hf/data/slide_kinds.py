"""Tell whole slides from photographs, by the ending of the name or by how a TIFF is built."""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from PIL import TiffImagePlugin

# By ending: whose format it is. OpenSlide reads all but the last two, of which tifffile reads the second.
SLIDE_SUFFIXES = {
    ".svs": "Aperio",
    ".ndpi": "Hamamatsu",
    ".vms": "Hamamatsu",
    ".vmu": "Hamamatsu",
    ".mrxs": "MIRAX",
    ".scn": "Leica",
    ".bif": "Ventana",
    ".svslide": "Sakura",
    ".czi": "Zeiss",
    ".dcm": "DICOM",
    ".ndpis": "Hamamatsu, fluorescence",
    ".qptiff": "Akoya",
}
INSTALL_SLIDES = "pip install 'wbc-hf[slides]'"
# More than this a photograph does not have, and a pyramid with a shorter side than this is no slide.
MAX_PHOTOGRAPH, _LEAST_SIDE = 50_000_000, 2000
_WIDTH, _HEIGHT, _SUBFILE, _TILE_WIDTH, _SUB_DIRECTORIES = 256, 257, 254, 322, 330  # TIFF tags
_SMALLER_COPY = 1  # bit of `_SUBFILE`
_DIRECTORIES = 32  # that are looked at


def slide_kind(path: str | os.PathLike) -> str | None:
    """Whose format a whole slide is in, such as "Aperio"; None of what is no slide.

    A TIFF is a slide if it has more pixels than any photograph, or is stored in tiles with smaller copies of itself.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SLIDE_SUFFIXES:
        return SLIDE_SUFFIXES[suffix]
    return "TIFF" if suffix in (".tif", ".tiff") and _is_slide(path) else None


def why_no_photograph(path: str | os.PathLike) -> str | None:
    """What to say of a slide where a photograph is expected, by its name alone; None of any other name."""
    kind = SLIDE_SUFFIXES.get(os.path.splitext(path)[1].lower())
    return kind and (
        f"is a whole-slide image ({kind}), not a photograph: `wbc-hf count` and the page's tab “Specimen” read it; "
        f"they need {INSTALL_SLIDES}"
    )


def _is_slide(path: str | os.PathLike) -> bool:
    try:
        with open(path, "rb") as file:
            directories = list(islice(tiff_directories(file), _DIRECTORIES))
    except Exception:  # whatever is wrong with it, `read_image` says so
        return False
    if not directories:
        return False
    first = directories[0]
    width, height = first.get(_WIDTH, 0), first.get(_HEIGHT, 0)
    if width * height > MAX_PHOTOGRAPH:
        return True
    # A directory without anything is one that was to come where the file is cut short: opening it says so.
    copies = _SUB_DIRECTORIES in first or any(
        not page or (page.get(_SUBFILE, 0) & _SMALLER_COPY and _TILE_WIDTH in page) for page in directories[1:]
    )
    return min(width, height) >= _LEAST_SIDE and _TILE_WIDTH in first and copies


def tiff_directories(file: BinaryIO) -> Iterator[dict[int, Any]]:
    """The directories of a TIFF, one a page, as values by tag; nothing is decoded. Of any other file there is none."""
    header = file.read(16)
    if header[:2] not in (b"II", b"MM"):
        return
    big = header[2:4] in (b"+\0", b"\0+")
    tags = TiffImagePlugin.ImageFileDirectory_v2(header if big else header[:8])
    seen = set()
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        # Loading again would empty it.
        yield dict(tags)
