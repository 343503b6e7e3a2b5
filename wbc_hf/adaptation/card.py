"""What is said of an adaptation: in the new model's card, and in a terminal."""

import re
from importlib.resources import files
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Template

from wbc_hf.adaptation.results import SCORES, STATUSES, Adaptation
from wbc_hf.evaluation import format_estimate, format_figure
from wbc_hf.modeling import TARGET_ACCURACY

CARD_FILE = "README.md"


def render_card(folder: Path, adaptation: Adaptation) -> str:
    """The card of the model before, with what was done to it right under its title.

    Its figures leave the front matter, which would show them as those of the adapted model, and its charts stay with
    the model before.
    """
    if (folder / CARD_FILE).exists():
        card = ModelCard((folder / CARD_FILE).read_text(encoding="utf-8"))
        card.data.model_name = card.data.eval_results = None
    else:
        data = ModelCardData(library_name="transformers", pipeline_tag="image-classification")
        card = ModelCard(f"---\n{data}\n---\n\n# {adaptation.model}\n")
    template = files("wbc_hf.evaluation").joinpath("templates/adaptation.md").read_text(encoding="utf-8")
    section = Template(template).render(
        adaptation=adaptation,
        heading=_heading(adaptation),
        rows=_rows(adaptation),
        labelled=_listing(adaptation.labelled or {}, "{}"),
        proportions=_listing(adaptation.proportions or {}, "{:.0%}"),
        target=f"{TARGET_ACCURACY:.0%}",
    )
    body = re.sub(r"^!\[.*\]\(figures/.*\)\n+", "", card.text, flags=re.MULTILINE)
    title, rest = re.match(r"(\s*# [^\n]*\n)?(.*)", body, flags=re.DOTALL).groups(default="")
    return f"---\n{card.data}\n---\n{title}\n{section}\n\n{rest.lstrip()}"


def describe_adaptation(adaptation: Adaptation) -> str:
    """What was done and measured, in lines for a terminal."""
    labels = "without labels"
    if adaptation.labelled:
        labels = f"with labels ({_listing(adaptation.labelled, '{}')})"
    lines = [f"{adaptation.model}: adapted to {adaptation.cells} cells, {labels}"]
    lines += [
        f"{name:<28}{before:>25}{after:>25}"
        for name, before, after in ((_heading(adaptation), "before", "after"), *_rows(adaptation))
    ]
    if adaptation.proportions:
        lines.append(f"Estimated proportions: {_listing(adaptation.proportions, '{:.0%}')}")
    lines += adaptation.remarks
    if adaptation.warning:
        lines.append(f"Warning: {adaptation.warning}")
    return "\n".join([*lines, "Research use, not for diagnosis."])


def _heading(adaptation: Adaptation) -> str:
    return f"on {adaptation.held_back} held-back cells" if adaptation.labelled else f"on {adaptation.cells} cells"


def _rows(adaptation: Adaptation) -> list[tuple[str, str, str]]:
    """Name, value before and value after of everything that was measured."""
    if adaptation.labelled:
        scores = (adaptation.scores_before, adaptation.scores_after)
        rows = [
            (title, *(format_estimate(getattr(one, name), one.intervals[name]) for one in scores))
            for name, title in SCORES.items()
        ]
        return rows + [
            (f"recall of {name}", *(format_figure(one.recall[name]) for one in scores))
            for name, count in adaptation.labelled.items()
            if count
        ]
    diagnoses = (adaptation.diagnosis_before, adaptation.diagnosis_after)
    rows = [
        (f"share {status}", *(format_figure(one.statuses and one.statuses[status]) for one in diagnoses))
        for status in STATUSES
    ]
    return [
        *rows,
        *(
            (title, *(format_figure(getattr(one, name)) for one in diagnoses))
            for name, title in (("confidence", "mean confidence"), ("consistency", "consistency"))
        ),
    ]


def _listing(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
