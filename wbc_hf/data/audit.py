"""What to know of a set before trusting a figure measured on it: copies, contradictions, bad pictures, few cells."""

import csv
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Image

from wbc_hf.data.loading import Leucocytes
from wbc_hf.data.near_duplicate_pairs import NearDuplicatePair
from wbc_hf.data.reading import read_image
from wbc_hf.data.splits import groups_across, split_by_group
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS

# Grey values, 0 to 255, and the share of pixels at pure white: a saturated background counts, as in many of Tecom.
_BLANK = 4.0
_DARK, _BRIGHT = 60.0, 250.0
_CLIPPED = 0.5
_NAMED = 20


@dataclass(frozen=True)
class AuditedPair:
    """A pair of copies with where its images stand.

    Attributes:
        copy: The pair.
        labels: Class names of the two.
        splits: Splits of the two.
    """

    copy: NearDuplicatePair
    labels: tuple[str, str]
    splits: tuple[str, str]

    @property
    def contradictory(self) -> bool:
        """Whether the same cell, or two of one photograph, stand under two classes."""
        return self.labels[0] != self.labels[1]

    @property
    def across(self) -> bool:
        """Whether it stands on both sides of a split."""
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class Audit:
    """What was found in a set.

    Attributes:
        title: The set's name.
        images, cells: Images, and distinct cells or photographs among them, by split and class name.
        pairs: Copies, contradictory ones first, then those across splits.
        groups_across: Groups that stand in more than one split.
        leaked: Test images whose group stands in training or validation.
        unreadable: File and reason.
        bad: File and what is wrong with the picture (blank, too dark, too bright, clipped).
        too_small: Classes with fewer than `ENOUGH_CELLS` distinct cells.
    """

    title: str
    images: dict[str, dict[str, int]]
    cells: dict[str, dict[str, int]]
    pairs: tuple[AuditedPair, ...]
    groups_across: int
    leaked: int
    unreadable: tuple[tuple[str, str], ...]
    bad: tuple[tuple[str, str], ...]
    too_small: tuple[str, ...]


def audit(leucocytes: Leucocytes) -> Audit:
    """Sum up a loaded set. Opens every image once; writes nothing."""
    place = {
        source: (split, CLASS_NAMES[label])
        for split, rows in leucocytes.items()
        for source, label in zip(rows["source"], rows["label"], strict=True)
    }
    pairs = [
        AuditedPair(pair, *(tuple(place[source][field] for source in (pair.first, pair.second)) for field in (1, 0)))
        for pair in leucocytes.copies
    ]
    groups = {split: list(rows["group"]) for split, rows in leucocytes.items()}
    seen = {*groups["train"], *groups["validation"]}
    return Audit(
        title=leucocytes.provenance.title,
        images=_per_class(leucocytes, "source"),
        cells=_per_class(leucocytes, "group"),
        pairs=tuple(sorted(pairs, key=lambda pair: (not pair.contradictory, not pair.across))),
        groups_across=len(groups_across(groups)),
        leaked=sum(group in seen for group in groups["test"]),
        unreadable=tuple((error.name, error.reason) for error in leucocytes.provenance.skipped),
        bad=_bad_pictures(leucocytes),
        too_small=_too_small(leucocytes),
    )


def _per_class(leucocytes: Leucocytes, column: str) -> dict[str, dict[str, int]]:
    """Distinct values of a column by split and class."""
    return {
        split: {name: len(values[index]) for index, name in enumerate(CLASS_NAMES)}
        for split, values in (
            (split, _values_by_label(rows[column], rows["label"])) for split, rows in leucocytes.items()
        )
    }


def _values_by_label(values: Iterable[str], labels: Iterable[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = defaultdict(set)
    for value, label in zip(values, labels, strict=True):
        found[label].add(value)
    return found


def _too_small(leucocytes: Leucocytes) -> tuple[str, ...]:
    cells = {
        (label, group)
        for rows in leucocytes.values()
        for label, group in zip(rows["label"], rows["group"], strict=True)
    }
    labels = [label for label, _ in cells]
    return tuple(name for index, name in enumerate(CLASS_NAMES) if 0 < labels.count(index) < ENOUGH_CELLS)


def _bad_pictures(leucocytes: Leucocytes) -> tuple[tuple[str, str], ...]:
    found = []
    for rows in leucocytes.values():
        files = rows.cast_column("image", Image(decode=False))
        with ThreadPoolExecutor() as pool:
            # Bound as a default: the loop goes on to other rows.
            faults = pool.map(
                lambda index, files=files: picture_fault(_grey(files[index]["image"])), range(len(files))
            )
            found += [(source, fault) for source, fault in zip(files["source"], faults, strict=True) if fault]
    return tuple(found)


def _grey(image: dict) -> np.ndarray:
    return np.asarray(read_image(image["path"] if image["bytes"] is None else image["bytes"]).convert("L"))


def picture_fault(grey: np.ndarray) -> str | None:
    """What is wrong with a picture, uint8 (height, width); None where it can be judged.

    Half of the pixels at pure white counts as clipped. Black does not: rotated copies are padded with it.
    """
    if grey.std() < _BLANK:
        return "blank"
    content = grey[grey > 0]
    if content.mean() < _DARK:
        return "too dark"
    if content.mean() > _BRIGHT:
        return "too bright"
    if (grey == 255).mean() > _CLIPPED:
        return "clipped"
    return None


def format_audit(found: Audit) -> str:
    """The audit as plain text for a terminal; images, and distinct cells where they are fewer."""
    lines = [found.title, "", f"{'class':<12}" + "".join(f"{split:>20}" for split in found.images)]
    for name in CLASS_NAMES:
        cells = [_of_cells(found.images[split][name], found.cells[split][name]) for split in found.images]
        lines.append(f"{name:<12}" + "".join(f"{cell:>20}" for cell in cells))
    contradictory = sum(pair.contradictory for pair in found.pairs)
    lines += [
        "",
        f"{len(found.pairs)} links between copies; {contradictory} of them between different classes",
        f"{found.groups_across} groups across splits; {found.leaked} test images also in training or validation",
        f"{len(found.unreadable)} unreadable files, {len(found.bad)} blank or badly exposed",
    ]
    named = [*found.unreadable, *found.bad]
    lines += [f"  {name}: {reason}" for name, reason in named[:_NAMED]]
    if len(named) > _NAMED:
        lines.append(f"  and {len(named) - _NAMED} more, all in audit.json")
    if found.too_small:
        lines.append(f"Too small to judge (fewer than {ENOUGH_CELLS} distinct cells): {', '.join(found.too_small)}")
    return "\n".join(lines)


def _of_cells(images: int, cells: int) -> str:
    return str(images) if images == cells else f"{images} ({cells} cells)"


def resplit(leucocytes: Leucocytes, folder: Path, seed: int = 0) -> None:
    """Write a clean split: train/validation/test/<class>/ with the files and a `metadata.csv` of their groups.

    Whole groups go to one split. Files are hard links where the disk allows it, else copies; the source stays whole.

    Raises:
        WbcError: `folder` exists and is not empty.
    """
    check_new_folder(folder)
    rows = [row for split in leucocytes.values() for row in split.cast_column("image", Image(decode=False))]
    splits = split_by_group([row["label"] for row in rows], [row["group"] for row in rows], seed=seed)
    written = []
    for split, indices in splits.items():
        for index in indices:
            row = rows[index]
            name = f"{split}/{CLASS_NAMES[row['label']]}/{index:06d}_{Path(row['source']).name}"
            _place(row["image"], folder / name)
            written.append((name, row["group"]))
    _write_metadata(folder / "metadata.csv", written)


def check_new_folder(folder: Path) -> None:
    """Raises WbcError where `folder` is a file, or holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WbcError(f"{folder}: is not empty; a clean split is written to a new folder only.")


def _place(image: dict, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if image["bytes"] is not None:
        target.write_bytes(image["bytes"])
        return
    source = Path(image["path"]).resolve()
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)


def _write_metadata(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "group"])
        writer.writerows(rows)
