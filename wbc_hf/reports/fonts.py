"""Fonts of this computer for letters that the report's own font lacks, such as Chinese, Thai and emoji."""

import os
from collections.abc import Callable, Collection, Iterator, Set
from pathlib import Path
from typing import NamedTuple

import uharfbuzz

FOLDER = "WBC_HF_FONTS"  # of more fonts, in the environment: they come first
# Without blanks and dashes. Families with many letters, in one style with the report's; then the others by name.
_FIRST = (
    *("notosanscjk", "sourcehansans", "notosans", "notoemoji", "droidsansfallback", "wenquanyi", "wqy"),
    *("msyh", "yugoth", "malgun", "hiragino", "pingfang", "arialunicode", "leelawad", "loma", "notocoloremoji"),
)
_BOXES = ("lastresort", "adobeblank", "notdef")  # fonts with a box, or nothing, for every letter
_STYLES = ("bold", "black", "light", "thin", "medium", "italic", "oblique", "serif", "mono", "condensed")
_OUTLINES = {"glyf", "CFF ", "CBDT"}  # what fpdf2 embeds
_RESTRICTED, _ALLOWED = 0x2, 0xC  # bits of fsType: no embedding, unless one of the others allows it (OpenType, OS/2)


class FontFile(NamedTuple):
    """A file, and which of the fonts in it."""

    path: Path
    number: int


def find_fonts(letters: Set[str], use: Callable[[FontFile], Collection[int]]) -> set[str]:
    """Find fonts that have letters, as few as a look in a fixed order finds; those that may not be embedded are left.

    Nothing is remembered: a font may be installed, or removed, at any time.

    Args:
        letters: Single characters.
        use: Takes a font that is found, and returns the Unicode numbers of its letters: none where it is unusable.

    Returns:
        The letters that no usable font has.
    """
    missing = set(map(ord, letters))
    for path in _files():
        if not missing:
            break
        font, known = _best_face(path, missing)
        if known:
            missing.difference_update(use(font))
    return set(map(chr, missing))


def _files() -> Iterator[Path]:
    from matplotlib.font_manager import findSystemFonts  # slow to import, and seldom needed

    folder = os.environ.get(FOLDER)
    own = sorted(map(Path, findSystemFonts([folder])), key=_rank) if folder else []
    yield from own
    yield from sorted(set(map(Path, findSystemFonts())) - set(own), key=_rank)


def _rank(path: Path) -> tuple[int, int, str]:
    name = path.stem.lower().replace("-", "").replace("_", "").replace(" ", "")
    family = next((rank for rank, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST))
    return family, sum(style in name for style in _STYLES), str(path)


def _best_face(path: Path, letters: set[int]) -> tuple[FontFile, set[int]]:
    """The font of a file with most of these letters, and which; of Noto's for several languages the fitting one."""
    best, known, score = FontFile(path, 0), set[int](), (0, 0)
    if any(name in path.stem.lower() for name in _BOXES):
        return best, known
    try:
        blob = uharfbuzz.Blob.from_file_path(str(path))
        for index in range(uharfbuzz.Face(blob).count):
            face = uharfbuzz.Face(blob, index)
            if not _OUTLINES.intersection(face.table_tags) or not _may_be_embedded(face):
                continue
            unicodes = face.unicodes
            here = {letter for letter in letters if letter in unicodes}
            if (here_score := (len(here), _fits(face, letters))) > score:
                best, known, score = FontFile(path, index), here, here_score
    except (OSError, ValueError, MemoryError, uharfbuzz.HarfBuzzError):
        return best, set()  # no font after all
    return best, known


def _may_be_embedded(face: uharfbuzz.Face) -> bool:
    table = face.reference_table("OS/2").data
    allowed = int.from_bytes(table[8:10], "big") if len(table) >= 10 else 0
    return not allowed & _RESTRICTED or bool(allowed & _ALLOWED)


def _fits(face: uharfbuzz.Face, letters: set[int]) -> int:
    """Whether the name of a font says the language that letters are of: Chinese ones look otherwise in Japan."""
    name = str(face.get_name(uharfbuzz.OTNameIdPredefined.FONT_FAMILY) or "")
    if any(0xAC00 <= letter <= 0xD7A3 for letter in letters):
        return int(name.endswith(" KR"))
    return int(name.endswith(" JP" if any(0x3041 <= letter <= 0x30FF for letter in letters) else " SC"))
