"""Export a snapshot as CSV, one row per cell, or as JSON with everything but the pictures."""

import csv
import io
from dataclasses import asdict
from typing import Any

from wbc_hf.evaluation import CONFIDENCE
from wbc_hf.inference import Prediction
from wbc_hf.labels import CLASS_NAMES, class_index
from wbc_hf.reports.history import earlier_reviews
from wbc_hf.reports.texts import RESEARCH_USE
from wbc_hf.safe_text import csv_cell, json_text
from wbc_hf.smear import Cell, CellType, CellTypeRecord, Differential, Picture, Snapshot, describe_snapshot


def to_csv(snapshot: Snapshot) -> str:
    """Export the cells as CSV: a header, then one row per cell, with CRLF between them (RFC 4180).

    The columns are `number`, `picture` (its name), `picture_number`, `x0`, `y0`, `x1`, `y1` (pixels of the picture,
    half-open), `state`, `class` (the reviewer's,
    also a type of the laboratory's own, else the model's; empty for none of them), `model_class`,
    `probability`, `status`, `probability_<class>` for each class of the model, `duplicate_of`, `reviewer`, `reviewed`
    (UTC), `corrected` (yes or no), `earlier_reviews` (what was said of the cell before, with names and times, as the
    history has it), and the same in every row: `specimen`, `time` (UTC), `model`, `model_version`,
    `trained_on`, `software` and `notice`. Of a slide there are also `slide` (its name) and `slide_x0`, `slide_y0`,
    `slide_x1`, `slide_y1` (pixels of the slide at full resolution) after `y1`.

    Texts are as `csv_cell` writes them, so that no spreadsheet takes one for a formula.
    """
    model = snapshot.model
    labels = _labels(snapshot)
    about = {
        "specimen": snapshot.specimen,
        "time": snapshot.time.isoformat(),
        "model": model.name,
        "model_version": model.version,
        "trained_on": model.trained_on or "",
        "software": model.software,
        "notice": RESEARCH_USE,
    }
    pictures = {picture.number: picture for picture in snapshot.pictures}
    places = bool(snapshot.slides)
    columns = [
        *("number", "picture", "picture_number", "x0", "y0", "x1", "y1"),
        *(("slide", "slide_x0", "slide_y0", "slide_x1", "slide_y1") if places else ()),
        *("state", "class", "model_class", "probability", "status"),
        *(f"probability_{label}" for label in labels),
        *("duplicate_of", "reviewer", "reviewed", "corrected", "earlier_reviews", *about),
    ]
    earlier = earlier_reviews(snapshot.history)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(csv_cell, columns))
    for cell in snapshot.cells:
        row = [*_row(cell, pictures[cell.picture], labels, places), "; ".join(earlier.get(cell.number, ()))]
        writer.writerow(map(csv_cell, [*row, *about.values()]))
    return text.getvalue()


def to_json(snapshot: Snapshot, *, pictures: bool = False) -> str:
    """Export everything as JSON. With pictures, in base64, it can be loaded back.

    `format` is 2. It grows when a key changes its meaning or is removed; new keys may come at any time.

    - `complete`: whether the pictures are in it, so that it can be loaded back;
    - `specimen`, `time` (ISO 8601, UTC), `notice`, `model` (`name`, `version`, `trained_on`, `software`), `reviewers`;
    - `differential`: `total`, `enough`, `waiting` (cells that the limits allow for), `leucocytes` (10⁹/l or null),
      `ranges_source`, `confidence`, and `shares`, one per class: `class`, `count`, `percent` (null if no cells were
      counted), `limits`, `reference` (both in percent), `flag` ("", "high", "low", "high?", "low?"), `absolute`
      (null, or `value` and `limits` in 10⁹/l) and `own` (null of the five classes; else the laboratory's own type:
      `name`, `leucocyte`, `in_leucocyte_count`, `colour`, and `code`, null or `system`, `code` and `display`); and
      `beside`, own types that are no part of the 100 %: `own`, `count`, `value` and `limits` per 100 leucocytes;
      `corrected_leucocytes` (10⁹/l, without those of them that the given count includes, or null), `unreviewed`
      (counted cells that no person looked at, of which the model alone says what they are);
    - `about`: `name`, `leucocyte_count`, `patient`, `order`, `slide`, `comment`, `signature` (null, or `name`, `time`,
      `comment`), `amended` (how often it was opened again after it had been signed);
    - `slides`: `name`, `width`, `height`, `pixel_size` (µm), `measured` (by red cells, as the file does not say it),
      `fields`, the boxes of the fields in the monolayer, in pixels of the slide, `digest`, what tells its file from
      others, and with pictures `thumbnail` (JPEG);
    - `pictures`: `number`, `name`, `width`, `height`, `is_field`, `kind`, `removed`, `pixel_size` (µm), `place` (null,
      or `slide`, `x` and `y` of its corner on it, and `scale`, pixels of the slide for a pixel of the field), what
      went with it where it was removed (`stand_ins`, `went`), and with pictures `preview` (JPEG);
    - `cells`: `number`, `picture`, `box` (x0, y0, x1, y1 in pixels, half-open), `slide_box` (the same in pixels of the
      slide, or null), `state`, `class`, `cut`, `duplicate_of`, `prediction` (`class`, `probability`, `status`,
      `probabilities`, `distance`, `laboratory_distance`), `review` (null, or `class`, which is null for none of the
      five, `reviewer`, `time`, and
      `own` as in `shares`), `corrected`, `removed`, `pointed_at`, `framings` (parts of the crop that were
      classified), and with pictures `image` (PNG);
    - `history`: every event in order: `number`, `time` (UTC), `who`, `action`, `cell`, `picture`, `field`, `before`
      and `after`. Nothing is ever taken out of it.

    Args:
        snapshot: The specimen.
        pictures: Whether it holds previews and crops, unless they are too many: `complete` says so.
    """
    document = describe_snapshot(snapshot, pictures=pictures)
    for cell, described in zip(snapshot.cells, document["cells"], strict=True):
        place = snapshot.pictures[cell.picture - 1].place
        described |= {"state": cell.state.value, "class": cell.label, "corrected": cell.corrected}
        described["slide_box"] = place and place.on_slide(cell.box)
    content = {
        "format": document.pop("format"),
        "complete": document.pop("complete"),
        "notice": RESEARCH_USE,
        "specimen": snapshot.specimen,
        "time": snapshot.time.isoformat(),
        "model": document.pop("model"),
        "reviewers": snapshot.reviewers,
        "differential": _differential(snapshot.differential),
        **document,
    }
    return json_text(content, indent=1) + "\n"


def _labels(snapshot: Snapshot) -> list[str]:
    """The classes of the model, the five first; the five if there are no cells."""
    found = {label for cell in snapshot.cells for label in _probabilities(cell.prediction)} or set(CLASS_NAMES)
    return sorted(found, key=lambda label: (len(CLASS_NAMES) if (i := class_index(label)) is None else i, label))


def _probabilities(prediction: Prediction) -> dict[str, float]:
    return {prediction.label: prediction.probability} | dict(prediction.alternatives)


def _row(cell: Cell, picture: Picture, labels: list[str], places: bool) -> list[object]:
    probabilities, place = _probabilities(cell.prediction), picture.place
    reviewed = "" if cell.review is None else cell.review.time.isoformat(timespec="seconds")
    on_slide = [""] * 5 if place is None else [place.slide, *place.on_slide(cell.box)]
    return [
        *(cell.number, picture.name, cell.picture, *cell.box, *(on_slide if places else ())),
        *(cell.state.value, cell.label or "", cell.prediction.label),
        *(round(cell.prediction.probability, 6), cell.prediction.status),
        *(round(probabilities[label], 6) if label in probabilities else "" for label in labels),
        "" if cell.duplicate_of is None else cell.duplicate_of,
        *(cell.reviewer, reviewed, "yes" if cell.corrected else "no"),
    ]


def _differential(differential: Differential) -> dict[str, Any]:
    shares = [asdict(share) | {"own": _own(share.own)} for share in differential.shares]
    return {
        "total": differential.total,
        "enough": differential.enough,
        "waiting": differential.waiting,
        "leucocytes": differential.leucocyte_count,
        "ranges_source": differential.ranges_source,
        "confidence": CONFIDENCE,
        "shares": [{"class": share.pop("label"), **share} for share in shares],
        "beside": [asdict(it) | {"own": _own(it.own)} for it in differential.beside],
        "corrected_leucocytes": differential.corrected_count,
        "unreviewed": differential.unreviewed,
    }


def _own(own: CellType | None) -> dict[str, Any] | None:
    """The laboratory's own type, as reviews describe it."""
    return None if own is None else CellTypeRecord.of(own).model_dump(mode="json")
