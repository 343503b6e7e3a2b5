"""What a laboratory takes away: one record in five forms, listed in `EXPORTS` for the page and the command line.

All of them name the model, its version, the software and the time, say who corrected what, and that it is for research
use. They are made in memory, so that a page leaves no files behind.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wbc_hf.reports.cell_folder import to_cell_folder
from wbc_hf.reports.fhir import to_fhir
from wbc_hf.reports.pdf import to_pdf
from wbc_hf.reports.tables import to_csv, to_json
from wbc_hf.reports.terminal import to_text
from wbc_hf.reports.wording import FEW_CELLS, FLAG_TEXTS, NONE_OF_THESE, RESEARCH_USE, safe_stem
from wbc_hf.smear import Snapshot


@dataclass(frozen=True)
class Export:
    """One form of a record.

    Attributes:
        key: A short word for it, as on a command line.
        title: What a page writes on its button.
        suffix: Of its file, with the dot.
        media_type: As in a Content-Type header.
        make: Gives the file's content. That of "cells" raises WbcError where no person has looked at a cell.
    """

    key: str
    title: str
    suffix: str
    media_type: str
    make: Callable[[Snapshot], bytes]


EXPORTS = (
    Export("pdf", "Report, one page (PDF)", ".pdf", "application/pdf", to_pdf),
    # The mark at its beginning tells spreadsheets that it is UTF-8.
    Export("csv", "Cell by cell (CSV)", ".csv", "text/csv", lambda record: to_csv(record).encode("utf-8-sig")),
    Export("json", "Everything (JSON)", ".json", "application/json", lambda record: to_json(record).encode()),
    Export(
        "fhir",
        "For a laboratory system (FHIR R4)",
        ".fhir.json",
        "application/fhir+json",
        lambda record: to_fhir(record).encode(),
    ),
    Export("cells", "Reviewed cells to train with (ZIP)", ".cells.zip", "application/zip", to_cell_folder),
)


def file_name(record: Snapshot, export: Export) -> str:
    """A name that is safe on every system, such as "differential-S-17-20261124T2130Z.csv"."""
    return safe_stem(record) + export.suffix


__all__ = [
    "EXPORTS",
    "FEW_CELLS",
    "FLAG_TEXTS",
    "NONE_OF_THESE",
    "RESEARCH_USE",
    "Export",
    "file_name",
    "to_cell_folder",
    "to_csv",
    "to_fhir",
    "to_json",
    "to_pdf",
    "to_text",
]
