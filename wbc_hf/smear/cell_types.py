"""A laboratory's own types of cells, beyond the five: a person names them in review, the model never proposes one.

Some are leucocytes and part of the 100 %: bands, blasts. Others are counted beside them, per 100 leucocytes:
erythroblasts, smudge cells, platelet clumps. A file of settings lists them. Each review holds the whole type that a
person named, so that a specimen says the same where the settings are others.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wbc_hf.data import split_name
from wbc_hf.errors import WbcError
from wbc_hf.files import read_text
from wbc_hf.labels import CLASS_NAMES, class_index, names_class, normalise_name

MAX_TYPES = 20
MAX_NAME = 40  # characters
OTHER_COLOUR = "#8a8f98"
# What the keyboard does in a review beside naming types, in words that follow the key.
REVIEW_KEYS = {
    "a": "accepts",
    "u": "takes back",
    "l": "shows labels",
    "m": "points at a missed cell",
    "+": "zooms in",
    "=": "zooms in",
    "-": "zooms out",
}
CLASS_KEYS = {str(number): name for number, name in enumerate(CLASS_NAMES, 1)} | {"0": "none of these"}

# By the place in the settings. Unlike the colours of the five, and light enough for black letters.
_COLOURS = ("#56b4e9", "#f0e442", "#b07d4f", "#44c5c0", "#b39ddb", "#9a9a3a", "#f28e7a", "#9ccc65")
# What the history and the page say in place of a class.
_RESERVED = {normalise_name(name) for name in ("none", "none of these", "none of the five", "accept", "not counted")}
_FORBIDDEN = '/\\:*?"<>|'  # in names of folders, which reviewed cells are exported to


@dataclass(frozen=True)
class Code:
    """A concept of a terminology, as FHIR's Coding.

    Attributes:
        system: URI, such as "http://loinc.org".
        code: In that system.
        display: What the system calls it; may be empty.
    """

    system: str
    code: str
    display: str = ""


@dataclass(frozen=True)
class CellType:
    """One type of cell beyond the five.

    Attributes:
        name: As the settings spell it, such as "band" or "Auer rod cell"; see `check_name`. Whoever names the type may
            spell it otherwise, see `CellTypes.resolve`.
        leucocyte: Whether it is part of the 100 %; else it is counted per 100 leucocytes.
        in_leucocyte_count: Whether a given total leucocyte count includes these cells, as counters by impedance count
            erythroblasts. Only of what is no leucocyte: the count is corrected for them.
        key: Of the keyboard, lower case; "" where the running settings do not know the type.
        colour: `#rrggbb`.
        code: What FHIR calls its count per 100 leucocytes; None for the name alone.
    """

    name: str
    leucocyte: bool = True
    in_leucocyte_count: bool = False
    key: str = field(default="", compare=False)
    colour: str = field(default=OTHER_COLOUR, compare=False)
    code: Code | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name


class CellTypes(tuple[CellType, ...]):
    """The types of a laboratory, in the order of its settings."""

    def resolve(self, word: str | None) -> str | CellType | None:
        """The type that a word names in any spelling ("Bands"), else the word, if it is one of the five, or None.

        Raises:
            WbcError: It is neither.
        """
        if word is None:
            return None
        wanted = normalise_name(word)
        own = next((it for it in self if normalise_name(it.name) == wanted), None)
        if own is None and class_index(word) is None:
            raise WbcError(f"{word}: is not one of {', '.join((*CLASS_NAMES, *map(str, self)))}.")
        return own or word


NO_TYPES = CellTypes()


def check_name(name: str) -> str:
    """Check the name of a type, which also names a folder of the exported cells.

    Raises:
        ValueError: It is too long, or could be taken for something else; "should …".
    """
    if not (0 < len(name) <= MAX_NAME and name.isprintable() and name.strip(" .") == name and normalise_name(name)):
        raise ValueError(f"should be a word or a few, of at most {MAX_NAME} characters, and no spaces or dots around")
    if any(letter in _FORBIDDEN for letter in name):
        raise ValueError(f"should hold none of {' '.join(_FORBIDDEN)}")
    if names_class(name) or normalise_name(name) in _RESERVED or split_name(name) is not None:
        raise ValueError(f"should be none of {', '.join(CLASS_NAMES)}, in any spelling, nor mean a split or no cell")
    return name


def check_code(code: Mapping[str, Any]) -> Code:
    """Check the code of a type.

    Raises:
        ValueError: It is not as FHIR wants it; "should …".
    """
    texts = [code.get(name, "") for name in ("system", "code", "display")]
    unknown = code.keys() - {"system", "code", "display"}
    if unknown or not all(isinstance(text, str) and text.isprintable() and len(text) <= 200 for text in texts):
        raise ValueError("should hold the texts system, code and, if you like, display")
    system, value, display = texts
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", system):
        raise ValueError('should have a URI as system, such as "http://loinc.org"')
    if not re.fullmatch(r"\S+( \S+)*", value):
        raise ValueError("should have a code without spaces around it")
    return Code(system, value, display.strip())


def load_types(path: Path) -> CellTypes:
    """Load the types of a laboratory from a TOML file; `configs/types.toml` is one.

        [[type]]
        name = "erythroblast"
        key = "e"
        leucocyte = false           # counted per 100 leucocytes
        in_leucocyte_count = true   # corrects the total leucocyte count
        code = { system = "http://loinc.org", code = "19048-8" }

    Raises:
        WbcError: The file cannot be read, or an entry is wrong: the message names entry, value and what is allowed.
    """
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise WbcError(f"{path}: cannot be read as TOML ({error}).") from error
    entries = content.pop("type", None)
    if content:
        raise WbcError(f"{path}: {next(iter(content))!r} is not known; each type is an entry [[type]], nothing else.")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise WbcError(f'{path}: has no types; each is an entry [[type]] with name = "band" and key = "6".')
    if len(entries) > MAX_TYPES:
        raise WbcError(f"{path}: has {len(entries)} types, at most {MAX_TYPES} are allowed.")
    found: list[CellType] = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_read_entry(entry, found))
        except ValueError as error:
            raise WbcError(f"{path}: type {number}: {error}.") from error
    return CellTypes(found)


def _read_entry(entry: Mapping[str, Any], before: Sequence[CellType]) -> CellType:
    """One type, which must differ from those before; a ValueError names the value and what is allowed."""
    text, choice, table = (str, "a text"), (bool, "true or false"), (dict, "a table { system, code, display }")
    kinds = {"name": text, "leucocyte": choice, "in_leucocyte_count": choice, "key": text, "code": table}
    if unknown := entry.keys() - kinds.keys():
        raise ValueError(f"{min(unknown)!r} is not known; known are {', '.join(kinds)}")
    for name in ("name", "key", "leucocyte"):
        if name not in entry:
            raise ValueError(f"has no {name}; needed are name, key and leucocyte (true or false)")
    for name, value in entry.items():
        kind, in_words = kinds[name]
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}, should be {in_words}")
    values = dict(entry)
    for name, check in (("name", check_name), ("key", _check_key), ("code", check_code)):
        try:
            if name in values:
                values[name] = check(values[name])
        except ValueError as error:
            raise ValueError(f"{name} is {values[name]!r}, {error}") from error
    if values["leucocyte"] and values.get("in_leucocyte_count"):
        raise ValueError("in_leucocyte_count is true, should be so of types alone that are no leucocytes")
    for other in before:
        if normalise_name(other.name) == normalise_name(values["name"]):
            raise ValueError(f"name is {values['name']!r}, should differ from the others, and is {other.name!r} again")
        if other.key == values["key"]:
            raise ValueError(f"key is {values['key']!r}, should be free, and is that of {other.name!r} already")
    return CellType(colour=_COLOURS[len(before) % len(_COLOURS)], **values)


def _check_key(key: str) -> str:
    key = key.lower()
    allowed = f"should be one letter, digit or sign other than {' '.join((*CLASS_KEYS, *REVIEW_KEYS))}"
    if len(key) != 1 or not key.isprintable() or key == " ":
        raise ValueError(allowed)
    if key in CLASS_KEYS:
        raise ValueError(f"{allowed}: it means {CLASS_KEYS[key]}")
    if key in REVIEW_KEYS:
        raise ValueError(f"{allowed}: it {REVIEW_KEYS[key]}")
    return key
