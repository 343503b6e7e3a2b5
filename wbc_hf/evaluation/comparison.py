"""Whether one model is better than another: two reports on the same cells, each cell compared with itself."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.confidence_intervals import format_figure, format_interval, paired_difference
from wbc_hf.evaluation.summary import format_table, plain_table
from wbc_hf.labels import CLASS_NAMES

PREDICTIONS_FILE = "predictions.csv"

_NEEDED = ("name", "true", "given", "group")
_INDEX = {name: index for index, name in enumerate(CLASS_NAMES)}


@dataclass(frozen=True)
class _Answers:
    """The rows of one `predictions.csv`, by name: true class, given class and group."""

    path: Path
    true: dict[str, str]
    given: dict[str, str]
    group: dict[str, str]


def compare_reports(first: Path, second: Path) -> dict:
    """Paired differences between two models on the cells that both judged.

    Images are matched by name. Their groups are those that the first report knows.

    Args:
        first, second: Folders that `write_report` wrote, of the same split.

    Returns:
        A dictionary that goes into JSON: `count` (images), `distinct_cells` (groups), `changed` (how many images the
        two give different classes: `first_right`, `second_right`, `both_wrong`), and `figures`, from
        `paired_difference`: by name `first`, `second`, `difference` (first - second) and its `interval`. ROC areas are
        left out: the file rounds probabilities.

    Raises:
        WbcError: A folder holds no such file, or one without the columns needed, or with a class that is none; or the
            two are not of the same images, or do not agree on their true classes.
    """
    ours, theirs = _read(first), _read(second)
    _check_same(ours, theirs)
    names = list(ours.true)
    references = np.array([_INDEX[ours.true[name]] for name in names])
    given = [np.array([_INDEX[answers.given[name]] for name in names]) for answers in (ours, theirs)]
    groups = [ours.group[name] for name in names]
    right = [answers == references for answers in given]
    return {
        "count": len(names),
        "distinct_cells": len(set(groups)),
        "changed": {
            "first_right": int((right[0] & ~right[1]).sum()),
            "second_right": int((right[1] & ~right[0]).sum()),
            "both_wrong": int(((given[0] != given[1]) & ~right[0] & ~right[1]).sum()),
        },
        "figures": paired_difference(references, *given, groups),
    }


def format_comparison(comparison: dict) -> str:
    """What `compare_reports` returns as plain text, at most 80 columns wide; a star where the interval excludes 0."""
    changed = comparison["changed"]
    table = plain_table("", "first", "second", "difference", "95 % CI", "")
    for name, figure in comparison["figures"].items():
        interval = figure["interval"]
        table.add_row(
            name.replace("_", " "),
            format_figure(figure["first"]),
            format_figure(figure["second"]),
            format_figure(figure["difference"], "+.3f"),
            format_interval(interval, "+.3f"),
            "*" if interval is not None and not interval[0] <= 0 <= interval[1] else "",
        )
    return (
        f"{comparison['count']} images of {comparison['distinct_cells']} distinct cells\n"
        f"predicted differently: {sum(changed.values())}, of which right by the first {changed['first_right']}, "
        f"by the second {changed['second_right']}\n\n"
        f"{format_table(table)}\n\n"
        "difference: first - second; * where the confidence interval excludes 0"
    )


def _read(folder: Path) -> _Answers:
    path = folder / PREDICTIONS_FILE
    rows = _rows(path)
    for number, row in enumerate(rows, start=1):
        for column in ("true", "given"):
            if row[column] not in _INDEX:
                raise WbcError(f"{path}: {column} of image {number} is {row[column]!r}: {', '.join(CLASS_NAMES)}.")
    true, given, group = ({row["name"]: row[column] for row in rows} for column in ("true", "given", "group"))
    if len(true) < len(rows):
        raise WbcError(f"{path}: {len(rows) - len(true)} names stand in it twice, so images cannot be matched.")
    return _Answers(path, true, given, group)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WbcError(f"{path}: cannot be read ({error.strerror}). Give a folder that holds a report.") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise WbcError(
            f"{path}: has no column {', '.join(missing)}, so no report of this version wrote it. "
            "Evaluate the model again."
        )
    rows = list(reader)
    if not rows:
        raise WbcError(f"{path}: holds no predictions.")
    return rows


def _check_same(ours: _Answers, theirs: _Answers) -> None:
    only_ours, only_theirs = ours.true.keys() - theirs.true.keys(), theirs.true.keys() - ours.true.keys()
    if only_ours or only_theirs:
        example = min(only_ours or only_theirs)
        raise WbcError(
            f"{ours.path} and {theirs.path} are not of the same images: {len(only_ours)} are only in the first, "
            f"{len(only_theirs)} only in the second, for example {example}. Evaluate both models on one data set."
        )
    changed = [name for name, true in ours.true.items() if theirs.true[name] != true]
    if changed:
        name = changed[0]
        raise WbcError(
            f"{ours.path} and {theirs.path} do not agree on the true class of {len(changed)} images, for example "
            f"{name}: {ours.true[name]} and {theirs.true[name]}."
        )
