"""The cells that a person has looked at, as an image folder that `load_leucocytes` reads: to train or adapt with."""

import csv
import io
import zipfile
from collections.abc import Iterator

from wbc_hf.errors import WbcError
from wbc_hf.reports.tables import to_json
from wbc_hf.reports.wording import RESEARCH_USE, reviewer_text, safe_stem
from wbc_hf.smear import Cell, CellState, Snapshot

_ABOUT = """Leucocytes that a person has looked at, one folder for each class. {notice}

Specimen: {specimen}
Recorded: {time} (UTC)
Model: {model}, version {version}, trained on {trained_on}; {software}
Cells: {cells}, of which a person corrected {corrected}
Reviewed by: {reviewers}

metadata.csv names the picture that each cell comes from as its group: the cells of one picture share its stain and its
light, and are not to be divided between training and test. At least three pictures of each class are needed to train.
cells.json holds the whole record: the differential, every cell with the model's class, and who corrected what.
"""


def to_cell_folder(record: Snapshot) -> bytes:
    """A ZIP of an image folder: `<class>/<file>.png` of the counted cells that a person accepted or relabelled.

    Beside them stand `metadata.csv` with the columns `file_name` and `group` (the picture), `cells.json` with the
    whole record, and a `README.txt`. Names are made of the specimen's name, the time and numbers, never of names of
    files. The same record gives the same bytes.

    Raises:
        WbcError: No person has looked at a cell that is counted.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _files(record):
            archive.writestr(zipfile.ZipInfo(name, record.time.timetuple()[:6]), data, _compression(name))
    return content.getvalue()


def _files(record: Snapshot) -> Iterator[tuple[str, bytes]]:
    """Names, relative and with forward slashes, and contents."""
    cells = [cell for cell in record.cells_in(CellState.COUNTED) if cell.review is not None]
    if not cells:
        raise WbcError(
            f"{record.specimen or 'this specimen'}: no person has looked at a counted cell, and only such cells can "
            "teach. Accept or correct some first."
        )
    stem = safe_stem(record)
    for cell in cells:
        yield _file_name(cell, stem), cell.image
    metadata = io.StringIO()
    writer = csv.writer(metadata, lineterminator="\n")
    writer.writerow(("file_name", "group"))
    writer.writerows((_file_name(cell, stem), f"{stem}-picture-{cell.picture:03d}") for cell in cells)
    yield "metadata.csv", metadata.getvalue().encode()
    yield "cells.json", to_json(record).encode()
    yield "README.txt", _about(record, cells).encode()


def _file_name(cell: Cell, stem: str) -> str:
    return f"{cell.label}/{stem}-cell-{cell.number:04d}.png"


def _about(record: Snapshot, cells: list[Cell]) -> str:
    return _ABOUT.format(
        notice=RESEARCH_USE,
        specimen=record.specimen or "not named",
        time=f"{record.time:%Y-%m-%d %H:%M}",
        model=record.model.name,
        version=record.model.version,
        trained_on=record.model.trained_on or "what its folder does not say",
        software=record.model.software,
        cells=len(cells),
        corrected=sum(cell.corrected for cell in cells),
        reviewers=", ".join(reviewer_text(name) for name in sorted({cell.review.reviewer for cell in cells})),
    )


def _compression(name: str) -> int:
    return zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
