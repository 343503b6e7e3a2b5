"""The five leucocytes of a differential: names, colours, synonyms and reference ranges."""

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Leucocyte:
    """One class of leucocyte.

    Attributes:
        name: The class name used everywhere in the project, lower case, singular.
        colour: `#rrggbb`, from the Okabe-Ito palette, which colour-blind people can distinguish.
        synonyms: Other words for it in image sets and in other languages, and abbreviations of public sets. Adjectives
            beside them are in `_QUALIFIERS`.
        reference_range: Lower and upper limit in adults, in percent of all leucocytes (MedlinePlus 003657).
            Laboratories differ: a default, not a standard.
    """

    name: str
    colour: str
    synonyms: tuple[str, ...]
    reference_range: tuple[float, float]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The order is the order of class indices in every model and data set of this project: never change it.
LEUCOCYTES = (
    Leucocyte(
        "basophil",
        "#0072b2",
        _words("ba bas baso basophile basophiler basophilen basofilo базофил базофилы"),
        (0.5, 1.0),
    ),
    Leucocyte(
        "eosinophil",
        "#d55e00",
        _words("eo eos eosino eosi eosin eosinophile eosinophiler eosinophilen eosinofilo эозинофил эозинофилы"),
        (1.0, 4.0),
    ),
    Leucocyte(
        "lymphocyte",
        "#009e73",
        _words("ly lym lymph lympho lymp lyt lymphozyt lymphozyten linfocito лимфоцит лимфоциты"),
        (20.0, 40.0),
    ),
    Leucocyte(
        "monocyte",
        "#e69f00",
        _words("mo mon mono monozyt monozyten monocito моноцит моноциты"),
        (2.0, 8.0),
    ),
    Leucocyte(
        "neutrophil",
        "#cc79a7",
        _words("ne neu neut neutro bne sne ngs ngb pmn neutrophile neutrophiler neutrophilen neutrofilo")
        + _words("нейтрофил нейтрофилы"),
        (40.0, 60.0),
    ),
)

# With 20 cells and half of them right, the exact 95 % limits of the recall are 27 and 73 %.
ENOUGH_CELLS = 20

CLASS_NAMES: tuple[str, ...] = tuple(leucocyte.name for leucocyte in LEUCOCYTES)


# Words beside the name of a class that leave it the same class. Names that hold any other word ("atypical lymphocyte")
# are of no class.
_QUALIFIERS = _words(
    "large small typical mature normal cell granulocyte leucocyte leukocyte polynucleaire granulocito granulozyt "
    "granulozyten гранулоцит гранулоциты"
)
# Those that only a neutrophil has: alone, they name one.
_OF_NEUTROPHILS = _words(
    "band banded stab seg segmented segmentkernige segmentkerniger stabkernige stabkerniger segmente segmentado "
    "cayado сегментоядерный сегментоядерные палочкоядерный палочкоядерные"
)


def normalise_name(name: str) -> str:
    """Normalise a class name, `"  ÉOSINOPHILES "` → `"eosinophile"`: lower case, no accents, no plural s.

    Single spaces stand between words, also between those that only capitals part ("SegmentedNeutrophil").
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(letter))
    words = re.sub(r"[\W_]+", " ", letters.lower()).split()
    return " ".join(word.removesuffix("s") if len(word) > 4 else word for word in words)


_INDEX = {
    normalise_name(spelling): index
    for index, leucocyte in enumerate(LEUCOCYTES)
    for spelling in (leucocyte.name, *leucocyte.synonyms)
}
_QUALIFYING = {normalise_name(word) for word in _QUALIFIERS}
_NEUTROPHILIC = {normalise_name(word) for word in _OF_NEUTROPHILS}
_NEUTROPHIL = CLASS_NAMES.index("neutrophil")


def names_class(name: str) -> bool:
    """Whether a name is one of the five in any known spelling, without words beside it ("EOS", "Neutrophils")."""
    return normalise_name(name) in _INDEX


def class_index(name: str) -> int | None:
    """Index into `CLASS_NAMES` of a name in any known spelling ("EOS", "Neutrophil (band)"), else None."""
    words = set(normalise_name(name).split()) - _QUALIFYING
    classes = {_INDEX.get(word) for word in words - _NEUTROPHILIC}
    if words & _NEUTROPHILIC:
        classes.add(_NEUTROPHIL)
    return classes.pop() if len(classes) == 1 else None
