"""Exports of a snapshot, listed in `EXPORTS` for the page and the command line: PDF, CSV, JSON, FHIR, reviewed cells.

All name the model, its version, the software and the time, say who corrected what, and that they are for research use.
They are made in memory, so that a server leaves no files behind.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wbc_hf.errors import needs_extra
from wbc_hf.reports.cell_folder import to_cell_folder
from wbc_hf.reports.fhir import to_fhir
from wbc_hf.reports.history import history_lines
from wbc_hf.reports.tables import to_csv, to_json
from wbc_hf.reports.terminal import to_text
from wbc_hf.reports.texts import (
    FEW_CELLS,
    FLAG_TEXTS,
    RESEARCH_USE,
    WORST_CASE,
    file_stem,
    own_types_notes,
)
from wbc_hf.smear import Snapshot


def to_pdf(snapshot: Snapshot) -> bytes:
    """Export a report, A4: the differential with limits and ranges, the cells, the corrections, and where to sign.

    After that page follow every counted and every overruled cell with its picture, where the first does not hold
    them all, the numbers of patient and order, and the history, where there is any. Each names specimen and patient.

    Of a slide a second page shows the whole of it, with the fields that were read and the places of the cells.

    The same snapshot gives the same bytes on one computer. Names are whole, however long. Hebrew and Arabic ones run
    from right to left. Letters that the report's font lacks, such as Chinese ones, are of a font of this computer or
    of the folder that WBC_HF_FONTS names; of those that none has, the Unicode numbers stand, and a sentence says so.

    Raises:
        WbcError: The extra "pdf" is not installed.
    """
    with needs_extra("pdf"):
        from wbc_hf.reports.pdf import draw_report
    return draw_report(snapshot)


@dataclass(frozen=True)
class Export:
    """One export format.

    Attributes:
        key: Its name on the command line.
        title: Text of its button on the page.
        suffix: Of its file, with the dot.
        media_type: For a Content-Type header.
        make: Returns the file's content. That of "cells" raises WbcError if no counted cell is reviewed.
    """

    key: str
    title: str
    suffix: str
    media_type: str
    make: Callable[[Snapshot], bytes]


EXPORTS = (
    Export("pdf", "Report (PDF)", ".pdf", "application/pdf", to_pdf),
    # A byte order mark tells spreadsheets that the file is UTF-8.
    Export("csv", "Cell by cell (CSV)", ".csv", "text/csv", lambda snapshot: to_csv(snapshot).encode("utf-8-sig")),
    Export(
        "json",
        "Everything (JSON)",
        ".json",
        "application/json",
        lambda snapshot: to_json(snapshot, pictures=True).encode(),
    ),
    Export(
        "fhir",
        "For a laboratory system (FHIR R4)",
        ".fhir.json",
        "application/fhir+json",
        lambda snapshot: to_fhir(snapshot).encode(),
    ),
    Export("cells", "Reviewed cells to train with (ZIP)", ".cells.zip", "application/zip", to_cell_folder),
)


def file_name(snapshot: Snapshot, export: Export) -> str:
    """A name that is safe on every system, such as "differential-S-17-20261124T2130Z.csv"."""
    return file_stem(snapshot) + export.suffix


__all__ = [
    "EXPORTS",
    "FEW_CELLS",
    "FLAG_TEXTS",
    "RESEARCH_USE",
    "WORST_CASE",
    "Export",
    "file_name",
    "history_lines",
    "own_types_notes",
    "to_cell_folder",
    "to_csv",
    "to_fhir",
    "to_json",
    "to_pdf",
    "to_text",
]
