"""The audit as one HTML file that needs nothing beside it."""

import base64
import io
from pathlib import Path

from wbc_hf.data.auditing import Audit, format_audit
from wbc_hf.data.loading import Leucocytes
from wbc_hf.data.reading import read_image
from wbc_hf.files import write_atomically
from wbc_hf.templates import load_templates

_MAX_SHOWN = 200
_SIDE = 160


def write_audit_page(found: Audit, leucocytes: Leucocytes, path: Path) -> None:
    """Write the audit with pairs side by side and labels that a model doubts, at most 200 each, the gravest first."""
    place = {
        source: (split, index) for split, rows in leucocytes.items() for index, source in enumerate(rows["source"])
    }

    def thumbnail(source: str) -> str:
        split, index = place[source]
        image = read_image(leucocytes[split][index]["image"], name=source)
        image.thumbnail((_SIDE, _SIDE))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=85)
        return base64.b64encode(stream.getvalue()).decode()

    template = load_templates("wbc_hf.data").get_template("audit.html.j2")
    page = template.render(found=found, summary=format_audit(found), most=_MAX_SHOWN, thumbnail=thumbnail)
    write_atomically(path, page)
