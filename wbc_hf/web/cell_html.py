"""How the answer for one cell looks."""

from collections.abc import Sequence
from html import escape

from PIL import Image

from wbc_hf.inference.predictor import Prediction
from wbc_hf.inference.reference_cells import Neighbour
from wbc_hf.web.html import colour_of, data_url, dot, format_percent, image_url
from wbc_hf.web.status_text import STATUS_TEXTS
from wbc_hf.web.uploads import Answer

SHOWN_CLASSES = 5  # bars under an answer: all five leucocytes, the likeliest of a model that knows more classes
EXAMPLE_SIDE = 192  # pixels; shown at half of it, so that it is sharp on a fine screen
HEAT_SIDE = 320


def render_answer(answer: Answer, heat: Image.Image | None = None, neighbours: Sequence[Neighbour] = ()) -> str:
    """One answer: the class, how sure the model is, what to make of it, and what it rests on.

    Args:
        answer: What the model says.
        heat: The cell with the heat map of its class over it.
        neighbours: The reference cells that are most alike.
    """
    prediction, status = answer.prediction, STATUS_TEXTS[answer.prediction.status]
    width, height = answer.image.size
    return (
        '<div class="wbc-answer" role="status">'
        f'<div class="wbc-file">{escape(answer.name)} <span>{width} × {height} pixels</span></div>'
        f'<div class="wbc-class">{_headline(prediction)}</div>'
        f'<div class="wbc-status wbc-{status.tone}"><strong>{status.title}</strong> {status.sentence}</div>'
        f"{render_bars(prediction)}{_heat(heat, prediction.label)}{_neighbours(neighbours)}</div>"
    )


def render_bars(prediction: Prediction) -> str:
    """A bar for the probability of each class, the likeliest first."""
    ranked = [(prediction.label, prediction.probability), *prediction.alternatives][:SHOWN_CLASSES]
    bars = "".join(
        f'<li><span class="wbc-bar-name">{escape(label.capitalize())}</span>'
        f'<span class="wbc-bar" aria-hidden="true"><span style="width:{100 * probability:.2f}%;'
        f'background:{colour_of(label)}"></span></span>'
        f'<span class="wbc-bar-value">{format_percent(probability)}</span></li>'
        for label, probability in ranked
    )
    return f'<ul class="wbc-bars" aria-label="Probability of each class">{bars}</ul>'


def render_examples(caption: str, names: Sequence[str], images: Sequence[Image.Image]) -> str:
    """A button per example: its picture with its name below."""
    buttons = "".join(
        f'<button type="button" data-index="{index}"><img alt="" src="{image_url(image, EXAMPLE_SIDE)}">'
        f"<span>{escape(name)}</span></button>"
        for index, (name, image) in enumerate(zip(names, images, strict=True))
    )
    return f'<div class="wbc-examples"><p>{escape(caption)}</p><div>{buttons}</div></div>'


def _headline(prediction: Prediction) -> str:
    """The class and its probability; a picture that shows no cell has none."""
    if prediction.status == "not_a_cell":
        return "<b>No leucocyte</b>"
    name, probability = escape(prediction.label.capitalize()), format_percent(prediction.probability)
    return f"{dot(prediction.label)}<b>{name}</b><span>{probability}</span>"


def _heat(heat: Image.Image | None, label: str) -> str:
    if heat is None:
        return ""
    name = escape(label)
    return (
        f'<figure class="wbc-heat"><img alt="Heat map over the cell" src="{image_url(heat, HEAT_SIDE)}">'
        f"<figcaption>What speaks for <b>{name}</b>: bright parts the most.</figcaption></figure>"
    )


def _neighbours(neighbours: Sequence[Neighbour]) -> str:
    if not neighbours:
        return ""
    cells = "".join(
        f'<li><img alt="" src="{data_url(neighbour.thumbnail, "image/jpeg")}">'
        f"<span>{dot(neighbour.label)}{escape(neighbour.label.capitalize())}</span>"
        f"<small>{escape(neighbour.name)}</small></li>"
        for neighbour in neighbours
    )
    return f'<div class="wbc-neighbours"><p>Most alike among the reference cells</p><ul>{cells}</ul></div>'
