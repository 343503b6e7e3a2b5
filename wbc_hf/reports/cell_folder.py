"""Export reviewed cells as an image folder that `load_leucocytes` reads, to train or adapt a model with."""

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence

from wbc_hf.errors import WbcError
from wbc_hf.reports.tables import to_json
from wbc_hf.reports.texts import RESEARCH_USE, file_stem, reviewer_text
from wbc_hf.smear import Cell, CellState, Snapshot

_README = """Reviewed leucocytes, one folder per class. {notice}

Specimen: {specimen}
Recorded: {time} (UTC)
Model: {model}, version {version}, trained on {trained_on}; {software}
Cells: {cells}, of which a person corrected {corrected}
Reviewed by: {reviewers}

metadata.csv names the picture that each cell comes from as its group: the cells of one picture share its stain and
light, and must not be split between training and test. Training needs at least three pictures of each class.
{own}cells.json holds the whole record: the differential, every cell with the model's class, and who corrected what.
"""


# A person's word is the folder's name: whoever trains decides what becomes of it.
_OWN_TYPES = """Folders of the laboratory's own types: {names}. A model knows the five classes alone: training with
`--other-classes leave_out` goes without what it does not know, with `none_of_these` it calibrates the model by it.
Names that mean one of the five in any spelling, such as band, are read as that.
"""


def to_cell_folder(snapshot: Snapshot) -> bytes:
    """Export the reviewed cells that are counted, in the 100 % or beside it, as a ZIP of `<class>/<file>.png`.

    A type of the laboratory's own has a folder of its name.

    It also holds `metadata.csv` with the columns `file_name` and `group` (the picture), `cells.json` with the output
    of `to_json`, and a `README.txt`. File names are made from the specimen's name, the time and numbers, never from
    names of files. The same snapshot gives the same bytes.

    Raises:
        WbcError: No counted cell is reviewed.
    """
    counted = (CellState.COUNTED, CellState.BESIDE)
    cells = [cell for cell in snapshot.cells if cell.state in counted and cell.review is not None]
    if not cells:
        raise WbcError(
            f"{snapshot.specimen or 'this specimen'}: no counted cell is reviewed, and only reviewed cells can teach. "
            "Accept or correct some first."
        )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in _files(snapshot, cells):
            compression = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            time = snapshot.time
            date_time = (time.year, time.month, time.day, time.hour, time.minute, time.second)
            archive.writestr(zipfile.ZipInfo(name, date_time), data, compression)
    return content.getvalue()


def _files(snapshot: Snapshot, cells: Sequence[Cell]) -> Iterator[tuple[str, bytes]]:
    """Relative names with forward slashes, and contents."""
    stem = file_stem(snapshot)
    names = [f"{cell.label}/{stem}-cell-{cell.number:04d}.png" for cell in cells]
    for name, cell in zip(names, cells, strict=True):
        yield name, cell.image
    metadata = io.StringIO()
    writer = csv.writer(metadata, lineterminator="\n")
    writer.writerow(("file_name", "group"))
    writer.writerows((name, f"{stem}-picture-{cell.picture:03d}") for name, cell in zip(names, cells, strict=True))
    yield "metadata.csv", metadata.getvalue().encode()
    yield "cells.json", to_json(snapshot).encode()
    model, own = snapshot.model, sorted({cell.own.name for cell in cells if cell.own is not None})
    readme = _README.format(
        notice=RESEARCH_USE,
        own=_OWN_TYPES.format(names=", ".join(own)) if own else "",
        specimen=snapshot.specimen or "not named",
        time=f"{snapshot.time:%Y-%m-%d %H:%M}",
        model=model.name,
        version=model.version,
        trained_on=model.trained_on or "an unknown set",
        software=model.software,
        cells=len(cells),
        corrected=sum(cell.corrected for cell in cells),
        reviewers=", ".join(reviewer_text(name) for name in sorted({cell.reviewer for cell in cells})),
    )
    yield "README.txt", readme.encode()
