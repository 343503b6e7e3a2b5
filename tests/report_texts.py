"""Where the texts of a report in PDF stand."""

import io
from collections.abc import Iterator

from pypdf import PageObject, PdfReader

from wbc_hf.reports.report_page import BOTTOM, FOOT, HEIGHT


def texts_of(page: PageObject) -> list[tuple[str, float]]:
    """Texts with their distances from the upper edge of the page, in millimetres."""
    found: list[tuple[str, float]] = []
    page.extract_text(
        visitor_text=lambda text, _, place, *rest: found.append((text.strip(), HEIGHT - place[5] / 72 * 25.4))
    )
    return [(text, y) for text, y in found if text]


def misplaced_texts(content: bytes) -> Iterator[str]:
    """Texts beyond a page, and on all pages but the first those between its last paragraph and its last lines."""
    for number, page in enumerate(PdfReader(io.BytesIO(content)).pages):
        for text, y in texts_of(page):
            if not 10 < y < HEIGHT or (number and BOTTOM + 1 < y < FOOT - 1):
                yield f"page {number + 1}, {y:.1f} mm: {text}"
