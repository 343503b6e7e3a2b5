"""Pieces of HTML that several parts of the page share."""

import base64
import io
from html import escape
from importlib import resources

from PIL import Image

from wbc_hf.labels import LEUCOCYTES, class_index

OTHER_COLOUR = "#8a8f98"  # of a class that is none of the five leucocytes

# A click on a button within `gr.HTML` becomes an event that names it.
INDEX_JS = """
element.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) trigger('click', {index: Number(button.dataset.index)});
});
"""


def read_text(name: str) -> str:
    """A file that lies beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def format_percent(probability: float) -> str:
    """`0.973` → `"97.3 %"`. Never 0 or 100: no model is that sure."""
    if probability < 0.001:
        return "< 0.1 %"
    if probability > 0.999:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


def render_empty(text: str) -> str:
    """What stands in the place of an answer before there is one."""
    return f'<div class="wbc-empty">{escape(text)}</div>'


def render_problem(title: str, text: str) -> str:
    """A message that something could not be done, and why."""
    return (
        f'<div class="wbc-problem" role="alert"><strong>{escape(title)}</strong>'
        f"<span>{escape(text.rstrip('.'))}.</span></div>"
    )


def colour_of(label: str | None) -> str:
    """The colour of a class in any spelling; grey for what is none of the five."""
    index = None if label is None else class_index(label)
    return OTHER_COLOUR if index is None else LEUCOCYTES[index].colour


def dot(label: str | None) -> str:
    """A dot in the colour of a class."""
    return f'<i class="wbc-dot" style="background:{colour_of(label)}"></i>'


def data_url(data: bytes, media_type: str) -> str:
    """An address that holds the data itself, so that no file of somebody's is left behind on the server."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image_url(image: Image.Image, side: int) -> str:
    """An image as an address that holds it, at most `side` pixels wide and high."""
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "JPEG", quality=85)
    return data_url(file.getvalue(), "image/jpeg")


def plural(count: int, noun: str) -> str:
    """`3, "cell"` → `"3 cells"`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
