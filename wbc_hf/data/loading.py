"""Load leucocyte images from a folder, the Hugging Face Hub, Kaggle or the painter as one `DatasetDict`."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from datasets import Dataset, DatasetDict, Features, Image, IterableDatasetDict, concatenate_datasets

from wbc_hf.data.checks import check_readable, count_contradictions, label_indices, read_digests
from wbc_hf.data.known_sets import KnownSet, known_by_file_names, known_by_spec
from wbc_hf.data.near_duplicates import NearDuplicate, find_near_duplicates, group_images
from wbc_hf.data.reading import image_content, read_image
from wbc_hf.data.sources import FEATURES, fetch_kaggle_set, folder_rows, hub_rows, painted_rows
from wbc_hf.data.splits import FRACTIONS, SPLITS, groups_across, split_by_group
from wbc_hf.data.streaming import stream_hub_set
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provenance:
    """Where a loaded set comes from and what was done to it, for reports and cards.

    Attributes:
        spec: As given to `load_leucocytes`.
        title, licence, homepage: Of a known set; else the spec, None and None.
        given_splits: Whether the test split was published with the set (else it was split off here).
        skipped: Names and reasons of unreadable images.
        groups_across: Number of groups in more than one given split.
        contradictions: Number of images in more than one class, byte for byte the same.
        near_duplicates: Number of pairs of different files that show the same cell; None where they were not compared.
        fingerprint: SHA-256 over content, label and split of every image; the same data give the same value.
    """

    spec: str
    title: str
    licence: str | None
    homepage: str | None
    given_splits: bool
    skipped: tuple[UnreadableImageError, ...]
    groups_across: int
    contradictions: int
    near_duplicates: int | None
    fingerprint: str


class Leucocytes(DatasetDict):
    """The splits "train", "validation" and "test" of one set.

    Attributes:
        provenance: Where it comes from.
        near_duplicates: Pairs of images that show the same cell or photograph: enough of them to link every group.
    """

    provenance: Provenance
    near_duplicates: tuple[NearDuplicate, ...]


def load_leucocytes(
    spec: str | Path, *, streaming: bool = False, near_duplicates: bool = True, seed: int = 0
) -> Leucocytes | IterableDatasetDict:
    """Load leucocyte images with labels, groups and splits.

    Every row has `image` (any mode and size; `read_image` makes it RGB), `label` (ClassLabel over the five names),
    `group` (images with the same value show the same physical cell or photograph) and `source` (the file's name).
    Groups come from a `group` column or `metadata.csv`, from the file names of known sets, from identical bytes, and
    from near-duplicates.
    Given splits are kept; missing ones are split off, 70/15/15, stratified by class, never through a group.

    Args:
        spec: A folder of class sub-folders with or without split folders above them; `synthetic` or `synthetic:N`
            (N painted cells a class); `kaggle:owner/name`; or a Hub data set id. A folder that exists wins over an id.
        streaming: For Hub sets that do not fit the disk: splits that read from the Hub while they are iterated.
            See `stream_hub_set`.
        near_duplicates: Whether to compare images to find near-duplicates, which takes some hundredths of a second an
            image, the first time. Painted cells and streams are never compared.
        seed: Random seed of the split and of painted cells.

    Raises:
        WbcError: No such set, unknown class names, an empty class, no labels, a class of which no file is readable,
            or more than 5 % unreadable images.
        HubUnreachableError: The Hub did not answer.
    """
    spec = str(spec)
    kaggle = spec.startswith("kaggle:")
    painted = spec == "synthetic" or spec.startswith("synthetic:")
    folder = not (kaggle or painted) and (_is_path(spec) or Path(spec).exists())
    if streaming and (kaggle or painted or folder):
        raise WbcError(
            f"{spec}: streaming is for Hub data sets; a folder is read image by image anyway. Leave it out."
        )
    if streaming:
        return stream_hub_set(spec)

    known = known_by_spec("synthetic" if painted else spec)
    if kaggle:
        rows = folder_rows(fetch_kaggle_set(spec.removeprefix("kaggle:")) / (known.subfolder if known else "."))
    elif painted:
        rows = painted_rows(spec, seed)
    elif folder:
        rows = folder_rows(Path(spec))
    else:
        rows = hub_rows(spec)
    return _finish(rows, spec, known, seed, known_by_names=folder, compare=near_duplicates and not painted)


def with_painted(leucocytes: Leucocytes, per_class: int, seed: int = 0) -> Leucocytes:
    """Add painted cells, `per_class` of each class, to the training images of a set.

    Painted cells show what tells the types apart without what the images of one laboratory have in common.
    """
    painted = load_leucocytes(f"synthetic:{per_class}", seed=seed)
    mixed = Leucocytes(leucocytes)
    mixed["train"] = concatenate_datasets([leucocytes["train"], *(painted[split] for split in SPLITS)])
    fingerprints = leucocytes.provenance.fingerprint + painted.provenance.fingerprint
    fingerprint = hashlib.sha256(fingerprints.encode()).hexdigest()
    mixed.provenance = dataclasses.replace(leucocytes.provenance, fingerprint=fingerprint)
    mixed.near_duplicates = leucocytes.near_duplicates
    return mixed


def leaked_test_images(leucocytes: Leucocytes) -> np.ndarray:
    """Whether the cell of each test image is also in training or validation, bool (n,)."""
    seen = {*leucocytes["train"]["group"], *leucocytes["validation"]["group"]}
    return np.array([group in seen for group in leucocytes["test"]["group"]], dtype=bool)


def _is_path(spec: str) -> bool:
    return spec.startswith((".", "/", "~")) or spec.endswith("/") or spec.count("/") != 1


def _finish(
    rows: Dataset, spec: str, known: KnownSet | None, seed: int, *, known_by_names: bool, compare: bool
) -> Leucocytes:
    """Check the rows of any source, group them, and split them."""
    labels = label_indices(rows["class_name"], spec)
    results = read_digests(rows)
    skipped = check_readable(results, labels, spec)
    kept = np.array([index for index, digest in enumerate(results) if isinstance(digest, str)])
    readable = rows.select(kept)
    sources, named, given = (list(readable[name]) for name in ("source", "group", "split"))
    labels, digests = labels[kept], [digest for digest in results if isinstance(digest, str)]

    def read(index: int) -> PIL.Image.Image:
        return read_image(image_content(readable[index]["image"]))

    contradictions = count_contradictions(digests, labels, sources, spec)
    near_duplicates = find_near_duplicates(digests, sources, read, compare=compare)
    groups = group_images(sources, named, near_duplicates)
    splits, test_given = _assign_splits(given, labels, groups, spec, seed)
    across = _count_groups_across(splits, groups, spec)
    _warn_of_missing_classes(splits, labels, spec)

    result = Leucocytes(_take(rows, kept, splits, labels, groups))
    known = known_by_file_names(sources) if known_by_names else known
    result.provenance = Provenance(
        spec=spec,
        title=known.title if known else spec,
        licence=known.licence if known else None,
        homepage=known.homepage if known else None,
        given_splits=test_given,
        skipped=skipped,
        groups_across=across,
        contradictions=contradictions,
        near_duplicates=sum(pair.matches is not None for pair in near_duplicates) if compare else None,
        fingerprint=_fingerprint(splits, labels, digests),
    )
    result.near_duplicates = tuple(near_duplicates)
    return result


def _take(
    rows: Dataset, kept: np.ndarray, splits: dict[str, np.ndarray], labels: np.ndarray, groups: Sequence[str]
) -> dict[str, Dataset]:
    """The splits as data sets of `FEATURES`. `splits`, `labels` and `groups` are of the rows in `kept`.

    No image is copied: the splits are lists of row numbers into one table, that of the source with two columns more.
    (Columns joined to a selection of rows would make datasets write all of them anew, pictures and all.)
    """
    all_labels, all_groups = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), None, dtype=object)
    all_labels[kept], all_groups[kept] = labels, groups
    beside = Dataset.from_dict(
        {"label": all_labels, "group": all_groups.tolist()},
        features=Features({name: FEATURES[name] for name in ("label", "group")}),
    )
    rows = rows.select_columns(["image", "source"]).cast_column("image", Image())
    whole = concatenate_datasets([rows, beside], axis=1).select_columns(list(FEATURES))
    return {name: whole.select(kept[splits[name]]) for name in SPLITS}


def _assign_splits(
    given: Sequence[str | None], labels: np.ndarray, groups: Sequence[str], spec: str, seed: int
) -> tuple[dict[str, np.ndarray], bool]:
    """Keep given splits and split the missing ones off the training images; and whether the test split is given."""
    named = set(given)
    if None in named and len(named) > 1:
        raise WbcError(
            f"{spec}: some class folders are below {', '.join(sorted(filter(None, named)))} and some do not. "
            "Move all of them into split folders, or none."
        )
    members = {name: np.flatnonzero([split == name for split in given]) for name in SPLITS}
    source = np.arange(len(given)) if None in named else members["train"]
    if not len(source):
        raise WbcError(f"{spec}: has {', '.join(sorted(map(str, named))) or 'no rows'} but nothing to train on.")
    missing = [name for name in ("validation", "test") if not len(members[name])]
    if missing:
        fractions = {name: FRACTIONS[name] for name in missing}
        fractions = {"train": 1 - sum(fractions.values())} | fractions
        cut = split_by_group(labels[source], [groups[i] for i in source.tolist()], fractions, seed)
        members |= {name: source[indices] for name, indices in cut.items()}
    empty = [name for name in SPLITS if not len(members[name])]
    if empty:
        raise WbcError(
            f"{spec}: {len(given)} images in {len(set(groups))} groups leave {' and '.join(empty)} empty; "
            "at least three distinct cells of a class are needed."
        )
    return members, "test" not in missing


def _count_groups_across(splits: dict[str, np.ndarray], groups: Sequence[str], spec: str) -> int:
    """Count groups in more than one split, which only given splits can have; one warning if there are any."""
    across = groups_across({name: [groups[i] for i in indices] for name, indices in splits.items()})
    if across:
        logger.warning(
            "%s: %d groups (near-duplicates of one cell or photograph) are in more than one of its splits, for "
            "example that of %s; figures on its test split are optimistic because of this leakage.",
            spec,
            len(across),
            min(across),
        )
    return len(across)


def _warn_of_missing_classes(splits: dict[str, np.ndarray], labels: np.ndarray, spec: str) -> None:
    lacking = []
    for name, indices in splits.items():
        missing = sorted(set(labels) - set(labels[indices]))
        if missing:
            lacking.append(f"{name} has no {' and no '.join(CLASS_NAMES[label] for label in missing)}")
    if lacking:
        logger.warning("%s: %s; nothing can be measured of them there.", spec, ", ".join(lacking))


def _fingerprint(splits: dict[str, np.ndarray], labels: np.ndarray, digests: Sequence[str]) -> str:
    lines = sorted(f"{name} {labels[i]} {digests[i]}" for name, indices in splits.items() for i in indices)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
