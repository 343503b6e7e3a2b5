"""Names of classes: in abbreviations of public sets, with adjectives, in other languages; and what is no class."""

import unicodedata

import pytest

from wbc_hf.labels import CLASS_NAMES, class_index

NAMES = {
    "basophil": "BA BAS Baso Basophils BASOPHIL Basophile Basophiler basófilo Базофил базофилы",
    "eosinophil": "EO EOS eosi Eosinophil éosinophile ÉOSINOPHILES eosinófilos Эозинофил Eosinophiler",
    "lymphocyte": "LY LYT lymp Lymph lymphocytes Lymphozyt Lymphozyten linfocito Linfocitos лимфоциты",
    "monocyte": "MO MON Mono monocytes Monozyt Monozyten monocito моноцит",
    "neutrophil": "NE NEU neut BNE SNE NGS NGB PMN Neutrophile neutrófilo Нейтрофил band Segmented Stabkernige",
}
PHRASES = {
    "Neutrophil_segmented": "neutrophil",
    "Neutrophil (band)": "neutrophil",
    "SegmentedNeutrophil": "neutrophil",
    "stabkernige neutrophile Granulozyten": "neutrophil",
    "polynucléaire neutrophile": "neutrophil",
    "палочкоядерный нейтрофил": "neutrophil",
    "polynucléaires éosinophiles": "eosinophil",
    "Basophil granulocytes": "basophil",
    "Large Lymph": "lymphocyte",
    "Small_Lymph": "lymphocyte",
    "typical lymphocyte": "lymphocyte",
}
KNOWN = [(name, cell) for cell, names in NAMES.items() for name in names.split()] + list(PHRASES.items())


@pytest.mark.parametrize(("name", "cell"), KNOWN)
def test_known_names(name: str, cell: str):
    # Files of a Mac have accents as letters of their own.
    for form in ("NFC", "NFD"):
        index = class_index(unicodedata.normalize(form, name))
        assert index is not None and CLASS_NAMES[index] == cell


@pytest.mark.parametrize(
    "name",
    [
        *("", "cell", "leucocyte", "granulocyte", "large", "0", "WBC", "RBC", "platelet", "blast", "mixt", "artefact"),
        # Of AML-LMU and PBC: atypical lymphocytes, smudge cells, promyelocytes, erythroblasts …
        *("LYA", "KSC", "PMO", "MOB", "MYO", "IG", "ERB", "MMY"),
        *(
            "atypical lymphocyte",
            "reactive_lymphocyte",
            "immature neutrophil",
            "band eosinophil",
            "neutrophil, eosinophil",
        ),
    ],
)
def test_names_of_no_class(name: str):
    assert class_index(name) is None
