"""The audit as one HTML file that needs nothing beside it."""

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path

from wbc_hf.data.audit import Audit, AuditedPair, format_audit
from wbc_hf.data.loading import Leucocytes
from wbc_hf.data.reading import read_image

_MOST_PAIRS = 200
_SIDE = 160
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #222 }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem }
article { border: 1px solid #ccc; border-radius: 6px; padding: .7rem }
article.warn { border: 2px solid #b00020 }
article div { display: flex; gap: .5rem }
figure { margin: 0; width: 50%; overflow-wrap: anywhere; font-size: 12px }
img { width: 100%; height: 150px; object-fit: contain; background: #eee }
"""


def write_page(found: Audit, leucocytes: Leucocytes, path: Path) -> None:
    """Write the audit with its pairs side by side, at most 200, the gravest first."""
    place = {
        source: (split, index) for split, rows in leucocytes.items() for index, source in enumerate(rows["source"])
    }

    def thumbnail(source: str) -> str:
        split, index = place[source]
        image = read_image(leucocytes[split][index]["image"], name=source)
        image.thumbnail((_SIDE, _SIDE))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"

    shown = found.pairs[:_MOST_PAIRS]
    articles = "\n".join(_article(pair, thumbnail) for pair in shown)
    title = f"Audit of {html.escape(found.title)}"
    path.write_text(
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        f"<h1>{title}</h1>\n<pre>{html.escape(format_audit(found))}</pre>\n"
        f"<h2>Copies: {len(shown)} of {len(found.pairs)} links</h2>\n<section>{articles}</section></html>\n",
        encoding="utf-8",
    )


def _article(pair: AuditedPair, thumbnail: Callable[[str], str]) -> str:
    copy = pair.copy
    remarks = ["identical files" if copy.matches is None else f"{copy.matches} matches"]
    remarks += ["mirrored"] * copy.mirrored
    remarks += ["<b>different classes</b>"] * pair.contradictory + ["<b>across splits</b>"] * pair.across
    figures = "".join(
        f'<figure><img src="{thumbnail(source)}" alt=""><figcaption>{html.escape(source)}<br>{label}, {split}'
        "</figcaption></figure>"
        for source, label, split in zip((copy.first, copy.second), pair.labels, pair.splits, strict=True)
    )
    warn = ' class="warn"' if pair.contradictory or pair.across else ""
    return f"<article{warn}>{', '.join(remarks)}<div>{figures}</div></article>"
