"""Split a set into training, validation and test: stratified by class, seeded, never through a group."""

import hashlib
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import DatasetDict, Image

from wbc_hf.data.near_duplicates import group_slides
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.safe_text import csv_cell

SPLITS = ("train", "validation", "test")
# What each split gets its share of.
_STRATUM = ("laboratory", "label")
# Not in the names of files that a table lists: a spreadsheet would find fields and formulas in them.
_UNPLAIN = re.compile(r"[^\w .()+-]")
FRACTIONS = {"train": 0.70, "validation": 0.15, "test": 0.15}


def split_by_group(
    labels: Sequence[int] | np.ndarray,
    groups: Sequence[Hashable],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Assign whole groups to splits so that each class is divided in the given proportions.

    Large groups go first, each to the split that lacks most of the group's class. Each split gets a group of every
    class before any gets its second, unless that group is more than the split's share and others are left: a class
    with as many groups as there are splits is in all of them. A group whose images carry several labels counts as its
    most frequent one.

    Args:
        labels: Class index, or another stratum, of each of the n images.
        groups: Group of each image.
        fractions: Share of each split, in the order in which a class with few groups fills them; they add up to 1.
        seed: Random seed.

    Returns:
        For each split the sorted indices of its images; together 0 to n - 1, each once.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for indices in members.values():
        most_frequent = min(Counter(labels[i] for i in indices).items(), key=lambda item: (-item[1], item[0]))[0]
        by_class[most_frequent].append(indices)

    generator = np.random.default_rng(seed)
    # After training, a class with two groups is of more use in the test split than in validation.
    seeding_order = sorted(fractions, key=lambda name: (name != "train", name != "test"))
    chosen: dict[str, list[int]] = {name: [] for name in fractions}
    for label in sorted(by_class):
        class_groups = by_class[label]
        generator.shuffle(class_groups)
        class_groups.sort(key=len, reverse=True)  # stable: equal sizes stay shuffled
        total = sum(map(len, class_groups))
        lacking = {name: share * total for name, share in fractions.items()}
        without = list(seeding_order)
        for position, indices in enumerate(class_groups):
            scarce = len(class_groups) - position <= len(without)
            if without and (scarce or len(indices) <= lacking[without[0]]):
                name = without[0]
            else:
                name = max(lacking, key=lacking.__getitem__)
            if name in without:
                without.remove(name)
            chosen[name] += indices
            lacking[name] -= len(indices)
    return {name: np.array(sorted(indices), dtype=np.int64) for name, indices in chosen.items()}


def groups_across(groups_of: Mapping[str, Sequence[str]]) -> set[str]:
    """Groups that are in more than one split."""
    seen = Counter(group for groups in groups_of.values() for group in set(groups))
    return {group for group, splits in seen.items() if splits > 1}


def stream_split(group: str, fractions: Mapping[str, float] = FRACTIONS) -> str:
    """The split of a group in a stream, where the other groups are unknown: by a hash, the same in every run."""
    position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    upper = 0.0
    for name, share in fractions.items():
        upper += share
        if position < upper:
            return name
    return name


def write_clean_split(leucocytes: DatasetDict, folder: Path, seed: int = 0) -> None:
    """Write train/validation/test/<class>/ with the files, and a `metadata.csv` of their groups.

    Whole groups go to one split, and so does all of a slide where file names tell it. Files are hard links where the
    disk allows it, else copies; the source is not changed.

    Raises:
        WbcError: `folder` exists and is not empty.
    """
    check_new_folder(folder)
    rows = [row for split in leucocytes.values() for row in split.cast_column("image", Image(decode=False))]
    together = group_slides([row["source"] for row in rows], [row["group"] for row in rows])
    strata, _ = pd.factorize(pd.MultiIndex.from_arrays([[row[name] for row in rows] for name in _STRATUM]))
    splits = split_by_group(strata, together, seed=seed)
    written = []
    for split, indices in splits.items():
        for index in indices:
            row = rows[index]
            plain = _UNPLAIN.sub("_", Path(row["source"]).name)
            name = f"{split}/{CLASS_NAMES[row['label']]}/{index:06d}_{plain}"
            _place(row["image"], folder / name)
            written.append((name, csv_cell(row["group"])))
    pd.DataFrame(written, columns=["file_name", "group"]).to_csv(folder / "metadata.csv", index=False)


def check_new_folder(folder: Path) -> None:
    """Raises WbcError where `folder` is a file or is not empty."""
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
