"""How the page shows answers: HTML in the colours of the classes, CSV for spreadsheets, plain records for programs."""

import base64
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from wbc_hf.errors import UnreadableImageError
from wbc_hf.labels import LEUCOCYTES, class_index
from wbc_hf.serving.predictor import Prediction

SHOWN_CLASSES = 5  # bars under an answer: all five leucocytes, the likeliest of a model that knows more classes
THUMBNAIL_SIDE = 96  # pixels; shown at half of it, so that it is sharp on a fine screen
EXAMPLE_SIDE = 192
OTHER_COLOUR = "#8a8f98"  # of a class that is none of the five leucocytes
UNREADABLE = "unreadable"


CSS = """
.gradio-container { max-width: 1120px !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
footer .divider { display: none !important; }
.dark { --color-accent: #2dd4bf; }

.wbc-head { display: flex; flex-wrap: wrap; gap: 0 24px; justify-content: space-between; align-items: baseline; }
.wbc-head h1 { font-size: 26px; line-height: 1.3; font-weight: 650; margin: 0; letter-spacing: -0.01em; }
.wbc-head p { margin: 0; color: var(--body-text-color-subdued); }
.wbc-head p:last-child { flex-basis: 100%; }
.wbc-head b { font-family: var(--font-mono); font-weight: 600; color: var(--body-text-color);
    overflow-wrap: anywhere; }
.wbc-notice { display: flex; flex-wrap: wrap; gap: 0 12px; margin-top: 10px; padding: 7px 12px; font-size: 14px;
    border-left: 4px solid #e69f00; border-radius: 4px; background: color-mix(in srgb, #e69f00 13%, transparent); }
.wbc-notice p { margin: 0; }

/* Where an upload breaks off Gradio writes a bare "Error" over the field; only its passing message says more. */
.wbc-upload .error { font-size: 0 !important; }
.wbc-upload .error::after { font-size: 14px; content: "Not uploaded: a file is too large, or the connection broke."; }

.wbc-empty { display: flex; align-items: center; justify-content: center; min-height: 120px; padding: 24px;
    text-align: center; color: var(--body-text-color-subdued); border: 1px dashed var(--border-color-primary);
    border-radius: 8px; }
.wbc-problem { display: flex; flex-direction: column; gap: 2px; padding: 12px 16px; border-radius: 8px;
    border: 1px solid #c62828; background: color-mix(in srgb, #c62828 9%, transparent); overflow-wrap: anywhere; }

.wbc-answer { padding: 16px 18px; border: 1px solid var(--border-color-primary); border-radius: 8px;
    background: var(--block-background-fill); }
.prose .wbc-file, .prose .wbc-file span { font-size: 14px; color: var(--body-text-color-subdued);
    overflow-wrap: anywhere; }
.wbc-file span { white-space: nowrap; }
.wbc-file span::before { content: "· "; }
.wbc-class { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 10px; margin: 6px 0 10px;
    font-size: 28px; line-height: 1.25; }
.wbc-class b { font-weight: 650; }
.wbc-class span { margin-left: auto; font-variant-numeric: tabular-nums; }
.wbc-dot { display: inline-block; flex: none; width: 0.62em; height: 0.62em; border-radius: 50%; margin-right: 0.4em; }
.wbc-class .wbc-dot { margin-right: 0; }
.wbc-good { --tone: #00845f; } .wbc-caution { --tone: #d08700; } .wbc-bad { --tone: #c62828; }
.wbc-neutral { --tone: #64748b; }
.wbc-status { padding: 8px 12px; font-size: 14px; border-radius: 6px; border-left: 4px solid var(--tone);
    background: color-mix(in srgb, var(--tone) 10%, transparent); }
.wbc-status strong { margin-right: 4px; }
.prose .wbc-bars { list-style: none; margin: 16px 0 0; padding: 0; display: grid; gap: 9px; }
.wbc-bars li { display: grid; grid-template-columns: 6.2em 1fr 4.4em; gap: 10px; align-items: center; margin: 0; }
.wbc-bar { height: 12px; border-radius: 6px; overflow: hidden;
    background: color-mix(in srgb, var(--body-text-color) 10%, transparent); }
.wbc-bar span { display: block; height: 100%; min-width: 2px; border-radius: 6px; }
.wbc-bar-value { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }

.wbc-examples p { margin: 0 0 6px; font-size: 14px; color: var(--body-text-color-subdued); }
.wbc-examples > div { display: grid; grid-template-columns: repeat(5, 1fr); gap: 8px; max-width: 560px; }
.prose .wbc-examples button { margin: 0; padding: 0; font-size: 12px; line-height: 1.9; cursor: pointer;
    overflow: hidden; border: 1px solid var(--border-color-primary); border-radius: 8px;
    background: var(--block-background-fill); color: var(--body-text-color); }
.prose .wbc-examples button:hover, .prose .wbc-examples button:focus-visible {
    border-color: var(--color-accent); outline: 1px solid var(--color-accent); }
.wbc-examples img { width: 100%; aspect-ratio: 1; object-fit: cover; margin: 0; display: block; }

.wbc-summary { display: flex; flex-wrap: wrap; gap: 10px 24px; justify-content: space-between; align-items: center; }
.wbc-chips { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 14px; }
.prose a.wbc-button { padding: 7px 14px; border-radius: 6px; font-weight: 600; text-decoration: none;
    color: white; background: #0f766e; }
.prose a.wbc-button:hover { background: #115e59; color: white; }
.prose .wbc-many table { width: 100%; margin: 12px 0 0; border-collapse: collapse; border: 0; font-size: 14px; }
.prose .wbc-many tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
.prose .wbc-many th, .prose .wbc-many td { padding: 5px 10px; text-align: left; vertical-align: middle; border: 0;
    color: var(--body-text-color); }
.prose .wbc-many th { font-weight: 600; color: var(--body-text-color-subdued); white-space: nowrap; }
.prose .wbc-many th:first-child { padding-left: 0; }
.wbc-many th { cursor: pointer; }
.wbc-many th::after { content: "↕"; margin-left: 5px; opacity: 0.45; font-weight: 400; }
.wbc-many th[aria-sort=ascending]::after { content: "↑"; opacity: 1; }
.wbc-many th[aria-sort=descending]::after { content: "↓"; opacity: 1; }
.prose .wbc-many .wbc-number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.prose .wbc-many .wbc-thumb { width: 58px; padding: 5px 0; }
.wbc-thumb img, .wbc-thumb i { width: 48px; height: 48px; object-fit: cover; border-radius: 5px; margin: 0;
    display: block; }
.wbc-thumb i { border: 1px dashed #c62828; color: #c62828; font: 24px/46px sans-serif; text-align: center; }
.prose .wbc-many .wbc-name { overflow-wrap: anywhere; min-width: 9em; }
.prose .wbc-many .wbc-label { font-weight: 600; white-space: nowrap; }
.prose .wbc-many .wbc-second { color: var(--body-text-color-subdued); white-space: nowrap; }
.wbc-badge { padding: 2px 9px; border-radius: 11px; font-size: 13px; white-space: nowrap;
    border: 1px solid var(--tone); background: color-mix(in srgb, var(--tone) 12%, transparent); }

@media (max-width: 640px) {
    .gradio-container .main { padding: 12px !important; }
    .prose .wbc-many thead { display: none; }
    .prose .wbc-many table, .prose .wbc-many tbody { display: block; }
    .prose .wbc-many tr { display: grid; grid-template-columns: 60px 1fr auto; gap: 1px 8px; align-items: center;
        padding: 8px 0; }
    .prose .wbc-many td { padding: 0 !important; min-width: 0 !important; width: auto !important; }
    .wbc-many .wbc-thumb { grid-row: 1 / span 3; }
    .wbc-many .wbc-name, .wbc-many .wbc-reason { grid-column: 2 / span 2; }
    .wbc-unreadable .wbc-state { grid-column: 2; }
    .prose .wbc-examples > div { grid-template-columns: repeat(3, 1fr); }
    .wbc-picture { height: 260px !important; }
}
"""


@dataclass(frozen=True)
class Answer:
    """What a model says of one file.

    Attributes:
        name: The file's name, without folders.
        prediction: What the model says.
        preview: The picture that the model saw, RGB, made smaller where it was large.
        size: Width and height of the whole picture in pixels.
    """

    name: str
    prediction: Prediction
    preview: Image.Image
    size: tuple[int, int]


@dataclass(frozen=True)
class StatusText:
    """How a status of `Prediction` reads: two words for a table, a sentence for one cell, and how loud it is."""

    title: str
    sentence: str
    tone: str


STATUS_TEXTS = {
    "confident": StatusText(
        "Confident", "The model is as sure as it was where it was right in its tests.", tone="good"
    ),
    "review": StatusText("Review", "The model is not sure enough: a person should look at this cell.", tone="caution"),
    "unfamiliar": StatusText(
        "Unfamiliar", "Unlike the pictures that the model was trained on: do not rely on this answer.", tone="bad"
    ),
    "not_a_cell": StatusText(
        "Not a cell", "This does not look like a leucocyte: do not rely on this answer.", tone="bad"
    ),
    "uncalibrated": StatusText(
        "Uncalibrated",
        "The model cannot say when it is likely to be wrong, not even at a high probability: "
        "a person should look at every cell.",
        tone="neutral",
    ),
}


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
    """A message that nothing could be answered, and why."""
    return (
        f'<div class="wbc-problem" role="alert"><strong>{escape(title)}</strong>'
        f"<span>{escape(text.rstrip('.'))}.</span></div>"
    )


def render_answer(answer: Answer) -> str:
    """One answer: the class, how sure the model is, what to make of it, and a bar for each class."""
    prediction, status = answer.prediction, STATUS_TEXTS[answer.prediction.status]
    width, height = answer.size
    ranked = [(prediction.label, prediction.probability), *prediction.alternatives][:SHOWN_CLASSES]
    bars = "".join(
        f'<li><span class="wbc-bar-name">{escape(label.capitalize())}</span>'
        f'<span class="wbc-bar" aria-hidden="true"><span style="width:{100 * probability:.2f}%;'
        f'background:{_colour(label)}"></span></span>'
        f'<span class="wbc-bar-value">{format_percent(probability)}</span></li>'
        for label, probability in ranked
    )
    return (
        '<div class="wbc-answer" role="status">'
        f'<div class="wbc-file">{escape(answer.name)} <span>{width} × {height} pixels</span></div>'
        f'<div class="wbc-class">{_headline(prediction)}</div>'
        f'<div class="wbc-status wbc-{status.tone}"><strong>{status.title}</strong> {status.sentence}</div>'
        f'<ul class="wbc-bars" aria-label="Probability of each class">{bars}</ul></div>'
    )


def _headline(prediction: Prediction) -> str:
    """The class and its probability; a picture that shows no cell has none."""
    if prediction.status == "not_a_cell":
        return "<b>No leucocyte</b>"
    name, probability = escape(prediction.label.capitalize()), format_percent(prediction.probability)
    return f"{_dot(prediction.label)}<b>{name}</b><span>{probability}</span>"


def render_table(answers: Sequence[Answer | UnreadableImageError], labels: Sequence[str]) -> str:
    """A row per file in the order given, with a summary and a link that saves all as CSV.

    The link holds the CSV itself, so that no file with somebody's answers is left behind on the server.
    """
    answered = [answer for answer in answers if isinstance(answer, Answer)]
    unreadable = len(answers) - len(answered)
    counts = Counter(answer.prediction.label for answer in answered)
    chips = "".join(
        f"<span>{_dot(label)}{escape(label.capitalize())} <b>{count}</b></span>"
        for label, count in counts.most_common()
    )
    content = base64.b64encode(to_csv(answers, labels).encode("utf-8-sig")).decode()
    rows = "".join(_answer_row(answer) if isinstance(answer, Answer) else _problem_row(answer) for answer in answers)
    return (
        '<div class="wbc-many"><div class="wbc-summary" role="status">'
        f"<div><strong>{_plural(len(answered), 'picture')} classified"
        + (f", {unreadable} could not be read" if unreadable else "")
        + f'</strong><div class="wbc-chips">{chips}</div></div>'
        f'<a class="wbc-button" download="leucocytes.csv" href="data:text/csv;base64,{content}">Download as CSV</a>'
        '</div><table><thead><tr><th colspan="2">File</th><th>Class</th><th class="wbc-number">Probability</th>'
        f"<th>Second choice</th><th>Status</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def to_csv(answers: Sequence[Answer | UnreadableImageError], labels: Sequence[str]) -> str:
    """The columns of `wbc-hf predict --format csv`, and one more that says why a file could not be read."""
    text = io.StringIO()
    columns = ["file", "label", "probability", "status", *labels, "problem"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    for answer in answers:
        if isinstance(answer, UnreadableImageError):
            writer.writerow({"file": answer.name, "status": UNREADABLE, "problem": answer.reason})
            continue
        record = to_record(answer)
        numbers = {"probability": record["probability"]} | record.pop("probabilities")
        writer.writerow(record | {key: f"{value:.6f}" for key, value in numbers.items()})
    return text.getvalue()


def to_record(answer: Answer | UnreadableImageError) -> dict:
    """What the page's interface for programs gives for one file."""
    if isinstance(answer, UnreadableImageError):
        return {"file": answer.name, "status": UNREADABLE, "problem": answer.reason}
    prediction = answer.prediction
    return {
        "file": answer.name,
        "label": prediction.label,
        "probability": prediction.probability,
        "status": prediction.status,
        "probabilities": dict([(prediction.label, prediction.probability), *prediction.alternatives]),
    }


def render_examples(names: Sequence[str], images: Sequence[Image.Image]) -> str:
    """A button per example: its picture with its name below."""
    buttons = "".join(
        f'<button type="button" data-index="{index}"><img alt="" src="{_data_url(image, EXAMPLE_SIDE)}">'
        f"<span>{escape(name.capitalize())}</span></button>"
        for index, (name, image) in enumerate(zip(names, images, strict=True))
    )
    return f'<div class="wbc-examples"><p>Or try a painted cell</p><div>{buttons}</div></div>'


def _data_url(image: Image.Image, side: int) -> str:
    """An image as an address that holds it, at most `side` pixels wide and high."""
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _answer_row(answer: Answer) -> str:
    prediction, status = answer.prediction, STATUS_TEXTS[answer.prediction.status]
    second = ""
    if prediction.alternatives:
        label, probability = prediction.alternatives[0]
        second = f"{escape(label.capitalize())} {format_percent(probability)}"
    return (
        f'<tr><td class="wbc-thumb"><img alt="" src="{_data_url(answer.preview, THUMBNAIL_SIDE)}"></td>'
        f'<td class="wbc-name">{escape(answer.name)}</td>'
        f'<td class="wbc-label">{_dot(prediction.label)}{escape(prediction.label.capitalize())}</td>'
        f'<td class="wbc-number" data-key="{prediction.probability:.6f}">{format_percent(prediction.probability)}</td>'
        f'<td class="wbc-second">{second}</td>'
        f'<td class="wbc-state"><span class="wbc-badge wbc-{status.tone}" title="{escape(status.sentence)}">'
        f"{status.title}</span></td></tr>"
    )


def _problem_row(error: UnreadableImageError) -> str:
    return (
        f'<tr class="wbc-unreadable"><td class="wbc-thumb"><i>×</i></td><td class="wbc-name">{escape(error.name)}</td>'
        f'<td class="wbc-reason" colspan="3">{escape(error.reason)}</td>'
        '<td class="wbc-state"><span class="wbc-badge wbc-bad">Unreadable</span></td></tr>'
    )


def _dot(label: str) -> str:
    return f'<i class="wbc-dot" style="background:{_colour(label)}"></i>'


def _colour(label: str) -> str:
    index = class_index(label)
    return OTHER_COLOUR if index is None else LEUCOCYTES[index].colour


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
