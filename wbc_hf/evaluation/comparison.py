"""Whether one model is better than another: paired differences between two reports on the same images."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.confidence_intervals import format_figure, format_interval, paired_difference
from wbc_hf.evaluation.summary import format_table, plain_table
from wbc_hf.labels import CLASS_NAMES

PREDICTIONS_FILE = "predictions.csv"


def compare_reports(first: Path, second: Path) -> dict:
    """Compare two models by their predictions for the same images, which are matched by name.

    Args:
        first, second: Folders that `write_report` wrote, of the same images. Groups are those of the first.

    Returns:
        A dictionary that goes into JSON: `count` (images), `distinct_cells` (groups), `changed` (how many images the
        two give different classes: `first_right`, `second_right`, `both_wrong`), and `figures`, from
        `paired_difference`: by name `first`, `second`, `difference` (first - second) and its `interval`. ROC areas are
        left out, since the file rounds probabilities.

    Raises:
        WbcError: A folder has no such file, or one without a needed column or with an unknown class; or the two are
            not of the same images, or do not agree on their true classes.
    """
    ours, theirs = _read(first), _read(second)
    only_ours, only_theirs = ours.index.difference(theirs.index), theirs.index.difference(ours.index)
    if len(only_ours) or len(only_theirs):
        raise WbcError(
            f"{first} and {second} are not of the same images: {len(only_ours)} are only in the first, "
            f"{len(only_theirs)} only in the second, for example {(only_ours.append(only_theirs))[0]}. "
            "Evaluate both models on the same images."
        )
    theirs = theirs.loc[ours.index]
    relabelled = ours.index[ours["true"] != theirs["true"]]
    if len(relabelled):
        name = relabelled[0]
        raise WbcError(
            f"{first} and {second} do not agree on the true class of {len(relabelled)} images, for example {name}: "
            f"{ours['true'][name]} and {theirs['true'][name]}."
        )
    columns = (ours["true"], ours["given"], theirs["given"])
    labels, *given = (column.map(CLASS_NAMES.index).to_numpy() for column in columns)
    return compare_predictions(labels, given[0], given[1], ours["group"].tolist())


def compare_predictions(labels: np.ndarray, first: np.ndarray, second: np.ndarray, groups: Sequence[Hashable]) -> dict:
    """Compare the predictions of two models for the same images.

    Args:
        labels: True class indices, (n,), n >= 1.
        first, second: Class indices that the two predict, (n,).
        groups: Group of each image, n of them.

    Returns:
        As `compare_reports`.
    """
    right, differ = [given == labels for given in (first, second)], first != second
    return {
        "count": len(labels),
        "distinct_cells": len(set(groups)),
        "changed": {
            "first_right": int((right[0] & ~right[1]).sum()),
            "second_right": int((right[1] & ~right[0]).sum()),
            "both_wrong": int((differ & ~right[0] & ~right[1]).sum()),
        },
        "figures": paired_difference(labels, first, second, groups),
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


def _read(folder: Path) -> pd.DataFrame:
    """The rows of a report's predictions, indexed by the name of the image."""
    path = folder / PREDICTIONS_FILE
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WbcError(f"{path}: cannot be read ({reason}). Give a folder that holds a report.") from None
    missing = [name for name in ("name", "true", "given", "group") if name not in rows]
    if missing:
        raise WbcError(f"{path}: has no column {', '.join(missing)}. Evaluate the model again.")
    if rows.empty:
        raise WbcError(f"{path}: holds no predictions.")
    for column in ("true", "given"):
        unknown = np.flatnonzero(~rows[column].isin(CLASS_NAMES))
        if len(unknown):
            value, number = rows[column][unknown[0]], unknown[0] + 1
            raise WbcError(f"{path}: {column} of image {number} is {value!r}, not one of {', '.join(CLASS_NAMES)}.")
    if repeated := int(rows["name"].duplicated().sum()):
        raise WbcError(f"{path}: {repeated} names stand in it twice, so images cannot be matched.")
    return rows.set_index("name")
