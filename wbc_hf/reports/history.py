"""The history of a specimen in words: who said what when, and what it was before."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby

from wbc_hf.reports.texts import NONE_OF_THESE, reviewer_text
from wbc_hf.smear import Action, Event

_NO_WORD = "not reviewed"
# What a review of a cell consists of; the last of them holds.
_REVIEWS = (Action.REVIEWED, Action.WITHDRAWN, Action.UNDONE)


def word_text(word: str) -> str:
    """A review as the history keeps it, in words."""
    return {"": _NO_WORD, "none": NONE_OF_THESE}.get(word, word)


def event_text(event: Event) -> str:
    """One event without its time: `A. Meyer: reviewed cell 7, monocyte → lymphocyte`."""
    what = event.action.value
    if event.cell is not None:
        what += f", cell {event.cell}"
    elif event.picture is not None:
        what += f", picture {event.picture}"
    if event.field:
        what += f", {event.field.replace('_', ' ')}"
    if event.cell is not None and event.action in _REVIEWS:
        what += f": {word_text(event.before)} → {word_text(event.after)}"
    elif event.field:
        what += f": {event.before or 'empty'} → {event.after or 'empty'}"
    elif event.after:
        what += f": {event.after}"
    return f"{reviewer_text(event.who)}: {what}" if event.who else what


def earlier_reviews(history: Iterable[Event]) -> dict[int, list[str]]:
    """What was said of each cell before the word that holds: `monocyte (A. Meyer, 2026-11-24 21:30 UTC)`, by number.

    Words that were given by nobody are left out, and so is the last one.
    """
    said: dict[int, list[tuple[str, str]]] = {}
    for event in history:
        if event.cell is None or event.action not in _REVIEWS:
            continue
        text = f"{word_text(event.after)} ({reviewer_text(event.who)}, {event.time:%Y-%m-%d %H:%M} UTC)"
        said.setdefault(event.cell, []).append((event.after, text))
    earlier = {cell: [text for word, text in words[:-1] if word] for cell, words in said.items()}
    return {cell: texts for cell, texts in earlier.items() if texts}


def history_lines(history: Sequence[Event]) -> list[tuple[datetime, str]]:
    """The history as lines with times; runs of reviews by one person at one moment are one line.

    Accepting ninety cells at once is one act, and ninety lines would hide what else was done.
    """
    runs = [list(run) for _, run in groupby(history, _act)]
    return [(run[0].time, event_text(run[0]) if len(run) == 1 else _run_text(run)) for run in runs]


def _act(event: Event) -> object:
    """Equal of the events of cells that are one act."""
    return event.number if event.cell is None else (event.action, event.who, event.time)


def _run_text(run: Sequence[Event]) -> str:
    by_word: dict[str, list[int]] = {}
    for event in run:
        change = f"{word_text(event.before)} → {word_text(event.after)}" if run[0].action in _REVIEWS else ""
        by_word.setdefault(change, []).append(event.cell or 0)
    cells = "; ".join(
        f"cells {', '.join(map(str, numbers))}" + (f": {change}" if change else "")
        for change, numbers in by_word.items()
    )
    return f"{reviewer_text(run[0].who)}: {run[0].action.value}, {cells}"
