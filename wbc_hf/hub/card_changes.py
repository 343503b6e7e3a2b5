"""The list of changes in a model card: what each published version is, the newest first."""

import re
from collections.abc import Iterable

_HEADING = "## Changes"
_SECTION = re.compile(rf"^{_HEADING}\n(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)


def read_changes(card: str) -> list[str]:
    """Read the changes of a card, each in one line without its bullet; none where it has no such section."""
    section = _SECTION.search(card)
    entries = re.split(r"^[-*] ", section[1], flags=re.MULTILINE) if section else []
    return [" ".join(entry.split()) for entry in entries if entry.strip()]


def write_changes(card: str, changes: Iterable[str]) -> str:
    """Write changes into a card, in place of those that it has, or at its end."""
    section = f"{_HEADING}\n\n" + "".join(f"- {change}\n" for change in changes)
    if not _SECTION.search(card):
        return f"{card.rstrip()}\n\n{section}"
    return _SECTION.sub(lambda found: section + "\n" * (found.end() < len(card)), card, count=1)
