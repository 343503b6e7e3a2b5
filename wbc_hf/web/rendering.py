"""HTML of the page, rendered from templates that escape whatever a user gave."""

import base64
import io
from collections.abc import Sequence
from importlib import resources

import gradio as gr
from markupsafe import Markup
from PIL import Image

from wbc_hf.evaluation import format_figure, format_interval
from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES, class_index
from wbc_hf.safe_text import escape_surrogates
from wbc_hf.smear import OTHER_COLOUR, CellType
from wbc_hf.templates import load_templates

_EXAMPLE_SIDE = 192  # pixels
SHOWN_CLASSES = 5  # bars under an answer: all five leucocytes, the likeliest of a model that knows more classes


def read_text(name: str) -> str:
    """Read a file that lies beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def render(template: str, **context: object) -> str:
    """Render `templates/<template>.html`. Halves of characters, which a program may send, are escaped."""
    return escape_surrogates(_TEMPLATES.get_template(f"{template}.html").render(context))


def render_problem(title: str, text: str) -> str:
    """Render a message that something could not be done, and why."""
    return render("problem", title=title, text=text.rstrip("."))


def example_buttons(
    caption: str,
    names: Sequence[str],
    images: Sequence[Image.Image],
    credit: str,
    elem_classes: str | None = None,
) -> gr.HTML:
    """Add a button for each example: its picture with its name, and a credit.

    A click is an event with the `number` of the button, from 0.
    """
    urls = [thumbnail_url(image, _EXAMPLE_SIDE) for image in images]
    html = render("examples", caption=caption, credit=credit, examples=list(zip(names, urls, strict=True)))
    return gr.HTML(html, js_on_load=read_text("actions.js"), elem_classes=elem_classes)


def format_percent(probability: float) -> str:
    """`0.973` → `"97.3 %"`. Never 0 or 100: no model is that sure."""
    if probability < 0.001:
        return "< 0.1 %"
    if probability > 0.999:
        return "> 99.9 %"
    return format_figure(probability, ".1%")


def colour_of(label: str | CellType | None) -> str:
    """The colour of a class in any spelling, or of an own type; grey for what is neither."""
    if isinstance(label, CellType):
        return label.colour
    index = None if label is None else class_index(label)
    return OTHER_COLOUR if index is None else LEUCOCYTES[index].colour


def data_url(data: bytes, media_type: str) -> Markup:
    """A URL that holds the data itself, so that no file of a visitor is left on the server."""
    return Markup(f"data:{media_type};base64,{base64.b64encode(data).decode()}")


def thumbnail_url(image: Image.Image, side: int) -> Markup:
    """An image as a data URL, at most `side` pixels wide and high."""
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "JPEG", quality=85)
    return data_url(file.getvalue(), "image/jpeg")


def plural(count: int, noun: str) -> str:
    """`3, "cell"` → `"3 cells"`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _interval(interval: Sequence[float] | None, spec: str = ".1%") -> str:
    return "no interval" if interval is None else format_interval(interval, spec, between=" – ")


def _ranked(prediction: Prediction) -> list[tuple[str, float]]:
    """The classes that are shown with their probabilities, the likeliest first."""
    return [(prediction.label, prediction.probability), *prediction.alternatives][:SHOWN_CLASSES]


def _root_axis(percent: float) -> float:
    """Place a percentage on a square-root axis from 0 to 100: a linear one hides 1 % beside 60 %."""
    return 10 * percent**0.5


_TEMPLATES = load_templates("wbc_hf.web")
_TEMPLATES.globals["class_names"] = CLASS_NAMES
_TEMPLATES.filters |= {
    "colour": colour_of,
    "figure": lambda value, spec=".1%": format_figure(value, spec),
    "interval": _interval,
    "jpeg_url": lambda data: data_url(data, "image/jpeg"),
    "percent": format_percent,
    "plural": plural,
    "png_url": lambda data: data_url(data, "image/png"),
    "ranked": _ranked,
    "root_axis": _root_axis,
}
