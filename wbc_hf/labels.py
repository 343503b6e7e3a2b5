"""The five leucocytes of a differential: names, colours, synonyms and reference ranges."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Leucocyte:
    """One class of leucocyte.

    Attributes:
        name: The class name used everywhere in the project, lower case, singular.
        colour: `#rrggbb`, from the Okabe-Ito palette, which colour-blind people can distinguish.
        synonyms: Other spellings in image sets, as normalised by `normalise_name`.
        reference_range: Lower and upper limit in adults, in percent of all leucocytes (MedlinePlus 003657).
            Laboratories differ: a default, not a standard.
    """

    name: str
    colour: str
    synonyms: tuple[str, ...]
    reference_range: tuple[float, float]


# The order is the order of class indices in every model and data set of this project: never change it.
LEUCOCYTES = (
    Leucocyte("basophil", "#0072b2", ("ba", "bas", "baso"), (0.5, 1.0)),
    Leucocyte("eosinophil", "#d55e00", ("eo", "eos", "eosino"), (1.0, 4.0)),
    Leucocyte("lymphocyte", "#009e73", ("ly", "lym", "lymph", "lympho"), (20.0, 40.0)),
    Leucocyte("monocyte", "#e69f00", ("mo", "mon", "mono"), (2.0, 8.0)),
    Leucocyte(
        "neutrophil",
        "#cc79a7",
        ("ne", "neu", "neut", "neutro", "bne", "sne", "segmented neutrophil", "band neutrophil", "banded neutrophil"),
        (40.0, 60.0),
    ),
)

# With 20 cells and half of them right, the exact 95 % limits of the recall are 27 and 73 %.
ENOUGH_CELLS = 20

CLASS_NAMES: tuple[str, ...] = tuple(leucocyte.name for leucocyte in LEUCOCYTES)


def normalise_name(name: str) -> str:
    """Normalise a class name, `"  EOSINOPHILS "` → `"eosinophil"`: lower case, single spaces, no plural s."""
    words = re.sub(r"[\W_]+", " ", name.lower()).split()
    return " ".join(word.removesuffix("s") if len(word) > 4 else word for word in words)


_INDEX = {
    spelling: index for index, leucocyte in enumerate(LEUCOCYTES) for spelling in (leucocyte.name, *leucocyte.synonyms)
}


def class_index(name: str) -> int | None:
    """Index into `CLASS_NAMES` of a name in any known spelling ("EOSINOPHIL", "eos", "Neutrophils"), else None."""
    return _INDEX.get(normalise_name(name))
