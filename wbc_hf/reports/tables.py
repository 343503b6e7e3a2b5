"""A record for spreadsheets, cell by cell, and for programs, whole."""

import csv
import io
import json
from collections.abc import Iterable

from wbc_hf.inference.predictor import Prediction
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.reports.wording import RESEARCH_USE
from wbc_hf.smear import CONFIDENCE, Cell, Differential, Share, Snapshot

FORMAT = 2

# A spreadsheet takes a field that begins so for a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(record: Snapshot) -> str:
    """Cell by cell: a plain header row, then one row for each cell, with CRLF between them (RFC 4180).

    The columns are `number`, `picture` (its name), `picture_number`, `x0`, `y0`, `x1`, `y1` (pixels of the picture,
    half-open), `state`, `class` (the one that holds; empty where a person said that it is none of the five),
    `model_class`, `probability`, `status`, `probability_<class>` for each class of the model, `duplicate_of`,
    `reviewer`, `reviewed` (UTC), `corrected` (yes or no), and in every row the same `specimen`, `time` (UTC), `model`,
    `model_version`, `trained_on`, `software` and `notice`.

    A text that begins with one of = + - @, a tab or a line break gets an apostrophe before it, so that no spreadsheet
    takes a name that somebody gave for a formula; who reads the file by program takes it off again. Numbers are
    never negative and stay as they are.
    """
    labels = _labels(cell.prediction for cell in record.cells)
    about = {
        "specimen": record.specimen,
        "time": record.time.isoformat(),
        "model": record.model.name,
        "model_version": record.model.version,
        "trained_on": record.model.trained_on or "",
        "software": record.model.software,
        "notice": RESEARCH_USE,
    }
    names = {picture.number: picture.name for picture in record.pictures}
    rows = [_row(cell, names[cell.picture], labels) | about for cell in record.cells]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_columns(labels) + list(about))
    writer.writerows([_guard(value) for value in row.values()] for row in rows)
    return text.getvalue()


def to_json(record: Snapshot) -> str:
    """Everything that is known, but the pictures themselves.

    `format` is 2 and grows when a name below changes its meaning or goes; new names may come at any time.

    - `specimen`, `time` (ISO 8601, UTC), `notice`, `model` (`name`, `version`, `trained_on`, `software`), `reviewers`;
    - `differential`: `total`, `enough`, `leucocytes` (10⁹/l or null), `ranges_source`, `confidence`, and `shares`, one
      for each of the five classes: `class`, `count`, `percent` (null of no cells), `limits`, `reference` (both in
      percent), `flag` ("", "high", "low", "high?", "low?") and `absolute` (null, or `value` and `limits` in 10⁹/l);
    - `pictures`: `number`, `name`, `width`, `height`, `is_field`;
    - `cells`: `number`, `picture`, `box` (x0, y0, x1, y1 in pixels, half-open), `state`, `class`, `cut`,
      `duplicate_of`, `prediction` (`class`, `probability`, `status`, `probabilities`), `review` (null, or `class`, which is null for
      none of the five, `reviewer` and `time`) and `corrected`.
    """
    content = {
        "format": FORMAT,
        "notice": RESEARCH_USE,
        "specimen": record.specimen,
        "time": record.time.isoformat(),
        "model": {
            "name": record.model.name,
            "version": record.model.version,
            "trained_on": record.model.trained_on,
            "software": record.model.software,
        },
        "reviewers": list(record.reviewers),
        "differential": _differential(record.differential),
        "pictures": [
            {
                "number": picture.number,
                "name": picture.name,
                "width": picture.size[0],
                "height": picture.size[1],
                "is_field": picture.is_field,
            }
            for picture in record.pictures
        ],
        "cells": [_cell(cell) for cell in record.cells],
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _labels(predictions: Iterable[Prediction]) -> list[str]:
    """The classes of the model, the five first; the five where there are no cells."""
    found = {label for prediction in predictions for label in _probabilities(prediction)} or set(CLASS_NAMES)
    return sorted(found, key=lambda label: (len(CLASS_NAMES) if (i := class_index(label)) is None else i, label))


def _probabilities(prediction: Prediction) -> dict[str, float]:
    return {prediction.label: prediction.probability} | dict(prediction.alternatives)


def _columns(labels: list[str]) -> list[str]:
    return [
        *("number", "picture", "picture_number", "x0", "y0", "x1", "y1"),
        *("state", "class", "model_class", "probability", "status"),
        *(f"probability_{label}" for label in labels),
        *("duplicate_of", "reviewer", "reviewed", "corrected"),
    ]


def _row(cell: Cell, picture: str, labels: list[str]) -> dict[str, object]:
    probabilities = _probabilities(cell.prediction)
    values = [
        *(cell.number, picture, cell.picture, *cell.box),
        *(cell.state.value, cell.label or "", cell.prediction.label),
        *(round(cell.prediction.probability, 6), cell.prediction.status),
        *(round(probabilities[label], 6) if label in probabilities else "" for label in labels),
        "" if cell.duplicate_of is None else cell.duplicate_of,
        *(("", "") if cell.review is None else (cell.review.reviewer, cell.review.time.isoformat(timespec="seconds"))),
        "yes" if cell.corrected else "no",
    ]
    return dict(zip(_columns(labels), values, strict=True))


def _guard(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _differential(differential: Differential) -> dict[str, object]:
    return {
        "total": differential.total,
        "enough": differential.enough,
        "leucocytes": differential.leucocyte_count,
        "ranges_source": differential.ranges_source,
        "confidence": CONFIDENCE,
        "shares": [_share(share) for share in differential.shares],
    }


def _share(share: Share) -> dict[str, object]:
    absolute = share.absolute
    return {
        "class": share.label,
        "count": share.count,
        "percent": share.percent,
        "limits": list(share.limits),
        "reference": list(share.reference),
        "flag": share.flag.value,
        "absolute": None if absolute is None else {"value": absolute.value, "limits": list(absolute.limits)},
    }


def _cell(cell: Cell) -> dict[str, object]:
    review = None
    if cell.review is not None:
        time = cell.review.time.isoformat(timespec="seconds")
        review = {"class": cell.review.label, "reviewer": cell.review.reviewer, "time": time}
    return {
        "number": cell.number,
        "picture": cell.picture,
        "box": list(cell.box),
        "state": cell.state.value,
        "class": cell.label,
        "cut": cell.cut,
        "duplicate_of": cell.duplicate_of,
        "prediction": {
            "class": cell.prediction.label,
            "probability": cell.prediction.probability,
            "status": cell.prediction.status,
            "probabilities": _probabilities(cell.prediction),
        },
        "review": review,
        "corrected": cell.corrected,
    }
