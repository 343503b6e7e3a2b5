"""Report of an adaptation, for the model card and the terminal."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import cast

import yaml
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Template

from wbc_hf.adaptation.results import SCORES, STATUSES, Adaptation, Diagnosis
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import CHECKLISTS_HEADING, format_estimate, format_figure, map_checklists
from wbc_hf.files import read_text
from wbc_hf.hub import CARD_FILE, find_file, read_changes, write_changes
from wbc_hf.modeling import TARGET_ELSEWHERE


def read_card(folder: Path) -> ModelCard | None:
    """Read the card of a model's folder; None where it has none.

    Raises:
        WbcError: It is not in UTF-8, is too large, lies elsewhere, or has a front matter that is no card's.
    """
    file = find_file(folder, CARD_FILE)
    if file is None:
        return None
    text = read_text(file)
    try:
        return ModelCard(text)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WbcError(f"{file}: its front matter is no card's ({reason}). Correct or remove it.") from error


def render_card(card: ModelCard | None, adaptation: Adaptation) -> str:
    """Render the card of a model, if it has one, with a section on its adaptation under the title.

    Figures are removed from the front matter, which would show them as those of the adapted model, and charts from the
    text. The list of changes gets a line, and the reporting checklists of a card that has them are brought up to date.
    """
    if card is not None:
        data = cast(ModelCardData, card.data)
        data.model_name = data.eval_results = None
    else:
        data = ModelCardData(library_name="transformers", pipeline_tag="image-classification")
        card = ModelCard(f"---\n{data}\n---\n\n# {adaptation.model}\n")
    template = files("wbc_hf.adaptation").joinpath("templates/card.md").read_text(encoding="utf-8")
    section = Template(template).render(
        adaptation=adaptation,
        heading=_heading(adaptation),
        rows=_rows(adaptation),
        labelled=_listing(adaptation.labelled or {}, "{}"),
        proportions=_listing(adaptation.proportions or {}, "{:.0%}"),
        target=f"{TARGET_ELSEWHERE:.0%}",
    )
    body = re.sub(r"^!\[[^\]\n]*\]\(figures/[^)\n]*\)\n+", "", card.text, flags=re.MULTILINE)
    _, title, rest = re.split(r"\A(\s*# [^\n]*\n|)", body, maxsplit=1)
    adapted = f"---\n{data}\n---\n{title}\n{section}\n\n{rest.lstrip()}"
    change = f"{adaptation.made[:10]}: adapted to another laboratory, by {adaptation.cells} cells"
    change += f" {'with' if adaptation.labelled else 'without'} labels, at {adaptation.made[11:19]} UTC."
    adapted = write_changes(adapted, [change, *read_changes(adapted)])
    return map_checklists(adapted) if CHECKLISTS_HEADING in adapted else adapted


def describe_adaptation(adaptation: Adaptation) -> str:
    """What was done and measured, as lines for the terminal."""
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


def _rows(adaptation: Adaptation) -> list[tuple[str, ...]]:
    """Name, value before and value after of each figure."""
    if adaptation.labelled and adaptation.scores_before and adaptation.scores_after:
        both = adaptation.scores_before, adaptation.scores_after
        return [
            (title, *(format_estimate(getattr(scores, name), scores.intervals[name]) for scores in both))
            for name, title in SCORES.items()
        ] + [
            (f"recall of {name}", *(format_figure(scores.recall[name]) for scores in both))
            for name, count in adaptation.labelled.items()
            if count
        ]
    first, second = (_column(one) for one in (adaptation.diagnosis_before, adaptation.diagnosis_after))
    return [(name, first[name], second[name]) for name in first]


def _column(diagnosis: Diagnosis | None) -> dict[str, str]:
    if diagnosis is None:
        return {}
    statuses = diagnosis.statuses or {}
    figures = {f"share {status}": statuses.get(status) for status in STATUSES}
    figures |= {"mean confidence": diagnosis.confidence, "consistency": diagnosis.consistency}
    return {name: format_figure(value) for name, value in figures.items()}


def _listing(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
