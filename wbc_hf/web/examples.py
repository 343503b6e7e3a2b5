"""Real pictures to try the page with: a cell of each class, and fields of one smear.

`example_pictures/CREDITS.txt` says whose they are, under which licence, and what the shipped models know of them.
"""

from pathlib import Path

from wbc_hf.labels import CLASS_NAMES
from wbc_hf.web.uploads import Upload

CELL_CREDIT = "PBC, Hospital Clinic Barcelona (Acevedo et al. 2020), CC BY 4.0"
FIELD_CREDIT = "Chulalongkorn University (Bekti et al. 2022), MIT"

_FOLDER = Path(__file__).with_name("example_pictures")


def example_cells() -> list[Upload]:
    """A cell of each class, in the order of `CLASS_NAMES`."""
    return [Upload(str(_FOLDER / f"cell-{name}.jpg"), f"Example {name}") for name in CLASS_NAMES]


def example_fields() -> list[Upload]:
    """Fields of one smear."""
    files = sorted(_FOLDER.glob("field-*.jpg"))
    return [Upload(str(file), f"Example field {number}") for number, file in enumerate(files, start=1)]
