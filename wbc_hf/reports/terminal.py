"""A differential as plain text for a terminal."""

from collections import Counter

from wbc_hf.evaluation import format_interval
from wbc_hf.reports.wording import FEW_CELLS, FLAG_TEXTS, RESEARCH_USE
from wbc_hf.smear import CellState, Share, Snapshot


def to_text(record: Snapshot) -> str:
    """The table, what is not counted and why, and which model it was; at most 100 columns wide but for long names."""
    differential = record.differential
    states = Counter(cell.state for cell in record.cells)
    absolute = f"{'10⁹/l':>8}" if differential.leucocyte_count is not None else ""
    lines = [
        f"{'class':<12}{'cells':>6}{'%':>8}{'95 % limits':>16}{'range':>12}{absolute}  flag",
        *(_line(share) for share in differential.shares),
        f"{'counted':<12}{differential.total:>6}",
        "",
    ]
    if not differential.enough:
        lines.append(FEW_CELLS)
    if states[CellState.WAITING]:
        lines.append(f"Not counted, since a person should look first: {states[CellState.WAITING]}.")
    if states[CellState.CUT]:
        lines.append(f"Not counted, cut off by the border of a field: {states[CellState.CUT]}.")
    if states[CellState.DUPLICATE]:
        lines.append(f"Not counted again, seen before: {states[CellState.DUPLICATE]}.")
    lines += [
        f"Reference ranges: {differential.ranges_source}.",
        f"Model {record.model.name}, version {record.model.version}, {record.model.software}. {RESEARCH_USE}",
    ]
    return "\n".join(lines) + "\n"


def _line(share: Share) -> str:
    percent, limits = "-", "-"
    if share.percent is not None:
        percent, limits = f"{share.percent:.1f}", format_interval(share.limits, ".1f")
    reference = format_interval(share.reference, "g")
    absolute = "" if share.absolute is None else f"{share.absolute.value:>8.2f}"
    flag = FLAG_TEXTS[share.flag]
    return f"{share.label:<12}{share.count:>6}{percent:>8}{limits:>16}{reference:>12}{absolute}  {flag}".rstrip()
