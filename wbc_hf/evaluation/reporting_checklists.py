"""Two reporting checklists, CLAIM and TRIPOD+AI, mapped item by item to the sections of a model card."""

import re
from pathlib import Path

from jinja2 import Template

CHECKLISTS_HEADING = "## Reporting checklists"
# The title of images that are known by a path alone, which stays private.
LOCAL_TITLE = "a folder of images that is not published"

_TEMPLATE = Path(__file__).parent / "templates" / "reporting_checklists.md"
_SECTION = re.compile(rf"^{CHECKLISTS_HEADING}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADINGS = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)


def map_checklists(card: str) -> str:
    """Write into a card where it answers each item of two reporting checklists, as its last section.

    A card that has the section keeps it in its place, brought up to date. What counts as answered is what the card
    says: an item points to one of its sections, or is "not done", "not known" or "not applicable".

    The items are those of CLAIM, the Checklist for Artificial Intelligence in Medical Imaging (Tejani et al. 2024,
    doi 10.1148/ryai.240300), and of TRIPOD+AI (Collins et al. 2024, doi 10.1136/bmj-2023-078378).

    Args:
        card: A card of this project as Markdown, with its front matter or without.
    """
    body = _SECTION.sub("", card)
    headings = _HEADINGS.findall(_CODE.sub("", body.partition("\n---\n")[2] or body))
    painted = "drawn by a program" in body

    def at(section: str, note: str = "", *, sign: str = "", unless: str = "", otherwise: str = "not done") -> str:
        """The section with a note, where the card has it, says `sign`, and does not say `unless`."""
        if section not in headings or sign not in body or (unless and unless in body):
            return otherwise
        return f"“{section}”" + (f": {note}" if note else "")

    def people(text: str, of_painted: str = "not applicable: painted cells") -> str:
        return of_painted if painted else text

    section = Template(_TEMPLATE.read_text(encoding="utf-8")).render(
        at=at,
        people=people,
        top=headings[0] if headings else "",
        local=LOCAL_TITLE,
        stream="read as a stream",
        unseen="In laboratories that it has not seen",
        selective="Selective prediction: what is left to a person",
        adapted="Adapted to another laboratory",
        by_laboratory="| laboratory | test images |",
        balanced=_found(r"`class_weights` \| balanced|`balance` \| (?!0\.0 )\d", body),
        published=_found(r"Published at <|\]\(http", body.partition("\n## Data\n")[2].partition("\n## ")[0]),
    )
    if body == card:
        return f"{card.rstrip()}\n\n{section}\n"
    following = "\n\n" if _SECTION.split(card)[1] else "\n"
    return _SECTION.sub(lambda _: section + following, card)


def _found(pattern: str, text: str) -> str:
    """What a pattern finds; else a sign that no card has."""
    match = re.search(pattern, text)
    return match[0] if match else "\0"
