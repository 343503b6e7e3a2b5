"""Letters as a report prints them: what belongs together, where a line may end, what runs from right to left."""

import re
import unicodedata
from collections.abc import Iterator

_LEFT_TO_RIGHT = "\u200e"  # a letter without width
_JOINER = "\u200d"
# Of the format characters, which nobody sees, these join letters, as Persian and others need it.
_KEPT = {"\u200c", _JOINER, _LEFT_TO_RIGHT}
# Choose between pictures of one letter.
_VARIANTS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_RIGHT_TO_LEFT = ("R", "AL")
_SKIN = range(0x1F3FB, 0x1F400)
# Letters of a cluster, more than any language or picture has: a family of four with their skins has eleven.
_LONGEST = 12


def visible(text: str) -> str:
    """Accents on their letters; no format characters, which turn the text around them; controls as spaces."""
    kinds = {letter: unicodedata.category(letter) for letter in set(text)}
    text = "".join(" " if kinds[it] in ("Cc", "Zl", "Zp") else it for it in text if kinds[it] != "Cf" or it in _KEPT)
    return unicodedata.normalize("NFC", text)


def without_variants(text: str) -> str:
    """The text without what chooses between pictures of one letter, which a font may lack."""
    return _VARIANTS.sub("", text)


def keep_figures_out(text: str) -> str:
    """The text with a mark between letters that run from right to left and the figure after them.

    Without, "2 by דוד, 1 corrected" shows the 1 on the other side of the name, as if the name ended in it.
    """
    if text.isascii():
        return text
    result, runs_left = "", False
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind in ("EN", "AN") and runs_left:
            end = next(
                n for n in range(len(result), 0, -1) if unicodedata.bidirectional(result[n - 1]) in _RIGHT_TO_LEFT
            )
            result = result[:end] + _LEFT_TO_RIGHT + result[end:]
        if kind in ("L", "EN", "AN", *_RIGHT_TO_LEFT):
            runs_left = kind in _RIGHT_TO_LEFT
        result += letter
    return result


def needs_shaping(text: str) -> bool:
    """Whether letters are joined, turned round or stacked, so that they cannot be set one after the other."""
    return not text.isascii() and any(
        unicodedata.category(it) in ("Mn", "Mc", "Me", "Cf") or unicodedata.bidirectional(it) in _RIGHT_TO_LEFT
        for it in text
    )


def clusters(text: str) -> Iterator[str]:
    """The letters of a text with the marks on them, and pictures that are joined: no line ends within one.

    None is longer than 12 letters, whatever a name holds.
    """
    start = 0
    for index in range(1, len(text)):
        letter, before = text[index], text[index - 1]
        kind = unicodedata.category(letter)
        joined = kind in ("Mn", "Mc", "Me", "Cf") or ord(letter) in _SKIN or (before == _JOINER and kind == "So")
        if not joined or index - start == _LONGEST:
            yield text[start:index]
            start = index
    if text:
        yield text[start:]


def pieces(text: str) -> Iterator[str]:
    """Words, each with the spaces after it; in Chinese, Japanese and Korean single letters: a line ends between."""
    piece = ""
    for cluster in clusters(text):
        if piece and not cluster.isspace() and (_is_wide(cluster) or piece[-1].isspace() or _is_wide(piece)):
            yield piece
            piece = ""
        piece += cluster
    if piece:
        yield piece


def _is_wide(piece: str) -> bool:
    return unicodedata.east_asian_width(piece[0]) in ("W", "F")


def code_points(text: str) -> str:
    """`U+8840 U+6DB2`."""
    return " ".join(f"U+{ord(letter):04X}" for letter in text)
