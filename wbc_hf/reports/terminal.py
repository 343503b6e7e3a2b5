"""A differential as plain text for a terminal."""

from collections import Counter

from wbc_hf.evaluation import format_figure, format_interval, format_table, plain_table
from wbc_hf.reports.texts import (
    FEW_CELLS,
    FLAG_TEXTS,
    RESEARCH_USE,
    WORST_CASE,
    own_types_notes,
    per_hundred_text,
)
from wbc_hf.smear import CellState, Snapshot

_WIDTH = 100
_NOT_COUNTED = {
    CellState.WAITING: "Not counted, since a person should look first",
    CellState.CUT: "Not counted, cut off by the border of a field",
    CellState.DUPLICATE: "Not counted again, seen before",
}


def to_text(snapshot: Snapshot) -> str:
    """Format the differential as a table, with what is not counted, the reference ranges and the model below it."""
    differential = snapshot.differential
    absolute = ["10⁹/l"] if differential.leucocyte_count is not None else []
    table = plain_table("class", "cells", "%", "95 % limits", "range", *absolute)
    table.add_column("flag", no_wrap=True)
    for share in differential.shares:
        limits = None if share.percent is None else share.limits
        values = [str(share.count), format_figure(share.percent, ".1f"), format_interval(limits, ".1f")]
        values.append(format_interval(share.reference, "g"))
        if absolute:
            values.append(format_figure(None if share.absolute is None else share.absolute.value, ".2f"))
        table.add_row(share.label, *values, FLAG_TEXTS[share.flag])
    table.add_row("counted", str(differential.total))
    states = Counter(cell.state for cell in snapshot.cells)
    lines = [f"{per_hundred_text(it)}." for it in differential.beside] + own_types_notes(differential)
    lines += [] if differential.enough else [FEW_CELLS]
    lines += [f"{text}: {states[state]}." for state, text in _NOT_COUNTED.items() if states[state]]
    if differential.waiting:
        lines.append(WORST_CASE)
    lines.append(f"Reference ranges: {differential.ranges_source}.")
    model = snapshot.model
    lines.append(f"Model {model.name}, version {model.version}, {model.software}. {RESEARCH_USE}")
    return "\n".join([format_table(table, _WIDTH), "", *lines, ""])
