"""Load leucocyte images from folders, the Hugging Face Hub, Kaggle or the painter as one `DatasetDict`."""

import dataclasses
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
from datasets import Dataset, DatasetDict, Features, Image, IterableDatasetDict, concatenate_datasets

from wbc_hf.data.checks import OtherClasses, check_readable, count_contradictions, label_indices
from wbc_hf.data.known_sets import KnownSet, known_by_file_names, known_by_spec, laboratory_name
from wbc_hf.data.layouts.choose_layout import folder_rows
from wbc_hf.data.near_duplicates import NearDuplicate, find_near_duplicates, group_images, group_slides
from wbc_hf.data.picture_checks import check_pictures
from wbc_hf.data.reading import SUFFIXES, image_content, read_image
from wbc_hf.data.rows import FEATURES
from wbc_hf.data.sources import fetch_kaggle_set, hub_rows, painted_rows
from wbc_hf.data.splits import FRACTIONS, SPLITS, groups_across, split_by_group
from wbc_hf.data.streaming import stream_hub_set
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.labels import CLASS_NAMES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """One of the sets that were loaded together.

    Attributes:
        laboratory: Its name in the column `laboratory`.
        spec: As given to `load_leucocytes`.
        title, licence, homepage: Of a known set; else the spec, None and None.
        given_splits: Whether the test split was published with the set (else it was split off here).
    """

    laboratory: str
    spec: str
    title: str
    licence: str | None
    homepage: str | None
    given_splits: bool


@dataclass(frozen=True)
class Provenance:
    """Where loaded images come from and what was done to them, for reports and cards.

    Attributes:
        origins: The sets, one a laboratory.
        skipped: Names and reasons of unreadable images.
        groups_across: Number of groups in more than one given split.
        contradictions: Number of images in more than one class, byte for byte the same.
        near_duplicates: Number of pairs of different files that show the same cell; None where they were not compared.
        fingerprint: SHA-256 over content, label and split of every image; the same data give the same value.
    """

    origins: tuple[Origin, ...]
    skipped: tuple[UnreadableImageError, ...]
    groups_across: int
    contradictions: int
    near_duplicates: int | None
    fingerprint: str

    @property
    def spec(self) -> str:
        """What was given to `load_leucocytes`, as on a command line."""
        return " ".join(origin.spec for origin in self.origins)

    @property
    def title(self) -> str:
        """The names of the sets."""
        return ", ".join(origin.title for origin in self.origins)

    @property
    def licence(self) -> str | None:
        """The licence of the only set, or that of each; None where it is unknown."""
        if len(self.origins) == 1:
            return self.origins[0].licence
        return ", ".join(f"{origin.licence or 'not known'} ({origin.laboratory})" for origin in self.origins)

    @property
    def homepage(self) -> str | None:
        """Where the only set is published; None where it is unknown, or there are several."""
        return self.origins[0].homepage if len(self.origins) == 1 else None

    @property
    def given_splits(self) -> bool:
        """Whether every test split was published with its set."""
        return all(origin.given_splits for origin in self.origins)

    @property
    def laboratories(self) -> list[str]:
        """The names of the laboratories."""
        return [origin.laboratory for origin in self.origins]


class Leucocytes(DatasetDict):
    """The splits "train", "validation" and "test" of one or more sets.

    Attributes:
        provenance: Where they come from.
        near_duplicates: Pairs of images that show the same cell or photograph: enough of them to link every group.
        faults: By source, what is wrong with a picture (blank, too dark, too bright, clipped).
        others: Images of other classes, with the columns `image` and `source`, where they were asked for.
    """

    provenance: Provenance
    near_duplicates: tuple[NearDuplicate, ...]
    faults: Mapping[str, str]
    others: Dataset | None = None

    def with_splits(self, **splits: Dataset) -> "Leucocytes":
        """Copy with other rows in some splits, of the same provenance."""
        changed = copy(self)
        changed.update(splits)
        return changed

    def with_more_to_train_on(self, rows: Dataset, digests: str) -> "Leucocytes":
        """Copy with more training rows, whose content goes into the fingerprint in the form of digests."""
        mixed = self.with_splits(train=concatenate_datasets([self["train"], rows]))
        fingerprint = hashlib.sha256((self.provenance.fingerprint + digests).encode()).hexdigest()
        mixed.provenance = dataclasses.replace(self.provenance, fingerprint=fingerprint)
        return mixed


def load_leucocytes(
    specs: str | Path | Sequence[str | Path],
    *,
    streaming: bool = False,
    near_duplicates: bool = True,
    other_classes: OtherClasses = "refuse",
    seed: int = 0,
) -> Leucocytes | IterableDatasetDict:
    """Load leucocyte images with labels, groups and splits.

    Every row has `image` (any mode and size; `read_image` makes it RGB), `label` (ClassLabel over the five names),
    `group` (images with the same value show the same physical cell or photograph), `laboratory` (the set's) and
    `source` (the file's name; of several sets after that of its laboratory). Where a set has several test splits, the
    name of its test split follows that of the laboratory.
    Groups come from a `group` column or `metadata.csv`, from the file names of known sets, from identical bytes, and
    from near-duplicates, also of different sets.
    Given splits are kept; missing ones are split off, 70/15/15, stratified by laboratory and class, never through a
    group, nor through a slide or session where the file names of a known set tell it.

    Args:
        specs: A folder in one of the layouts of `docs/data.md` (class folders, tables of labels, photographs with
            boxes, what `datasets` has saved); `synthetic` or `synthetic:N` (N painted cells a class);
            `kaggle:owner/name`; or a Hub data set id. A folder that exists wins over an id. Several of them are
            several laboratories.
        streaming: For one Hub set that does not fit the disk: splits that read from the Hub while they are iterated.
            See `stream_hub_set`.
        near_duplicates: Whether to compare images to find near-duplicates, which takes some hundredths of a second an
            image, the first time. Painted cells and streams are never compared.
        other_classes: What becomes of images of other classes than the five: "refuse" raises, "leave_out" leaves them
            out, "none_of_these" keeps them in `others`. Streams refuse them.
        seed: Random seed of the split and of painted cells.

    Raises:
        WbcError: No such set, unknown class names, an empty class, no labels, a class of which no file is readable,
            or more than 5 % unreadable images; or the same set twice.
        HubUnreachableError: The Hub did not answer.
    """
    given = [specs] if isinstance(specs, str | Path) else list(specs)
    names = [str(spec) for spec in given]
    if streaming:
        _check_streams(names)
        return stream_hub_set(names[0])
    _check_distinct(names)
    sets = [_read_set(name, seed) for name in names]
    painted = all(_kind(name) == "painted" for name in names)
    return _finish(_name_apart(sets), seed, compare=near_duplicates and not painted, other_classes=other_classes)


@dataclass(frozen=True)
class _ImageSet:
    """The unchecked rows of one set, and what is known of it."""

    spec: str
    rows: Dataset
    known: KnownSet


def _check_streams(specs: Sequence[str]) -> None:
    if len(specs) > 1:
        raise WbcError(f"{' '.join(specs)}: streaming is for a single Hub data set. Leave it out.")
    if _kind(specs[0]) != "hub":
        raise WbcError(
            f"{specs[0]}: streaming is for Hub data sets; a folder is read image by image anyway. Leave it out."
        )


def _check_distinct(specs: Sequence[str]) -> None:
    if not specs:
        raise WbcError("load_leucocytes: no data set is given.")
    seen: dict[str, str] = {}
    for spec in specs:
        same = str(Path(spec).expanduser().resolve()) if _kind(spec) == "folder" else spec
        if same in seen:
            raise WbcError(f"{spec}: is the same set as {seen[same]}. Each set is one laboratory; give it once.")
        seen[same] = spec


def _kind(spec: str) -> str:
    if spec.startswith("kaggle:"):
        return "kaggle"
    if spec == "synthetic" or spec.startswith("synthetic:"):
        return "painted"
    return "folder" if _is_path(spec) or Path(spec).exists() else "hub"


def _read_set(spec: str, seed: int) -> _ImageSet:
    kind = _kind(spec)
    known = known_by_spec("synthetic" if kind == "painted" else spec)
    if kind == "kaggle":
        rows = folder_rows(fetch_kaggle_set(spec.removeprefix("kaggle:")) / (known.subfolder if known else "."))
    elif kind == "painted":
        rows = painted_rows(spec, seed)
    elif kind == "folder":
        rows = folder_rows(Path(spec))
        known = known_by_file_names([name for name in rows["source"] if Path(name).suffix.lower() in SUFFIXES])
    else:
        rows = hub_rows(spec)
    unknown = KnownSet(title=spec, laboratory=laboratory_name(spec), homepage=None, licence=None)
    return _ImageSet(spec, rows, known or unknown)


def _name_apart(sets: Sequence[_ImageSet]) -> list[_ImageSet]:
    """Number laboratories of the same name, and put their names before the groups and sources of several sets."""
    if len(sets) == 1:
        return list(sets)
    shared = Counter(each.known.laboratory for each in sets)
    seen: Counter[str] = Counter()
    named = []
    for each in sets:
        laboratory = each.known.laboratory
        if shared[laboratory] > 1:
            seen[laboratory] += 1
            laboratory = f"{laboratory} {seen[laboratory]}"
        beside = {
            name: [value and f"{laboratory}/{value}" for value in each.rows[name]] for name in ("source", "group")
        }
        features = Features({name: each.rows.features[name] for name in beside})
        rows = each.rows.remove_columns(list(beside))
        rows = concatenate_datasets([rows, Dataset.from_dict(beside, features=features)], axis=1)
        named.append(_ImageSet(each.spec, rows, dataclasses.replace(each.known, laboratory=laboratory)))
    return named


def with_painted(leucocytes: Leucocytes, per_class: int, seed: int = 0) -> Leucocytes:
    """Add painted cells, `per_class` of each class, to the training images of a set.

    Painted cells show what tells the types apart without what the images of one laboratory have in common.
    """
    painted = load_leucocytes(f"synthetic:{per_class}", seed=seed)
    cells = concatenate_datasets([painted[split] for split in SPLITS])
    return leucocytes.with_more_to_train_on(cells, painted.provenance.fingerprint)


def leaked_test_images(leucocytes: Leucocytes) -> np.ndarray:
    """Whether the cell of each test image is also in training or validation, bool (n,)."""
    seen = {*leucocytes["train"]["group"], *leucocytes["validation"]["group"]}
    return np.array([group in seen for group in leucocytes["test"]["group"]], dtype=bool)


def _is_path(spec: str) -> bool:
    return spec.startswith((".", "/", "~")) or spec.endswith("/") or spec.count("/") != 1


def _finish(sets: Sequence[_ImageSet], seed: int, *, compare: bool, other_classes: OtherClasses) -> Leucocytes:
    """Check the rows of all sets, group them, and split them."""
    specs = [each.spec for each in sets]
    spec = " ".join(specs)
    rows = sets[0].rows if len(sets) == 1 else concatenate_datasets([each.rows for each in sets])
    laboratories = np.repeat(np.arange(len(sets)), [len(each.rows) for each in sets])
    labels = np.concatenate([label_indices(each.rows["class_name"], each.spec, other_classes) for each in sets])
    checked = check_pictures(rows, ((labels >= 0) & compare).tolist())
    results, faults = checked.digests, checked.faults
    skipped = tuple(
        error
        for number, each in enumerate(sets)
        for of_set in [np.flatnonzero((laboratories == number) & (labels >= 0))]
        for error in check_readable([results[i] for i in of_set], labels[of_set], each.spec)
    )
    is_readable = np.array([isinstance(digest, str) for digest in results])
    kept = np.flatnonzero(is_readable & (labels >= 0))
    others = np.flatnonzero(is_readable & (labels < 0)) if other_classes == "none_of_these" else None
    readable = rows.select(kept)
    sources, named, given = (list(readable[name]) for name in ("source", "group", "split"))
    labels, laboratories, digests = labels[kept], laboratories[kept], [str(results[index]) for index in kept]

    def read(index: int) -> PIL.Image.Image:
        return read_image(image_content(readable[index]["image"]))

    contradictions = count_contradictions(digests, labels, sources, spec)
    near_duplicates = find_near_duplicates(digests, sources, read, compare=compare, described=checked.described)
    groups = group_images(sources, named, near_duplicates)
    together = group_slides(sources, groups)
    splits, test_given = _assign_splits(given, labels, laboratories, together, specs, seed)
    across = _count_groups_across(splits, groups, spec)
    for number, each in enumerate(sets):
        own = {name: indices[laboratories[indices] == number] for name, indices in splits.items()}
        _warn_of_missing_classes(own, labels, each.spec)

    names = [sets[number].known.laboratory for number in laboratories.tolist()]
    names = _name_test_sets(names, readable["test_set"], splits["test"])
    beside: dict[str, Sequence | np.ndarray] = {"label": labels, "group": groups, "laboratory": names}
    result = Leucocytes(_take(rows, kept, splits, beside))
    result.provenance = Provenance(
        origins=tuple(
            Origin(each.known.laboratory, each.spec, each.known.title, each.known.licence, each.known.homepage, given)
            for each, given in zip(sets, test_given, strict=True)
        ),
        skipped=skipped,
        groups_across=across,
        contradictions=contradictions,
        near_duplicates=sum(pair.matches is not None for pair in near_duplicates) if compare else None,
        fingerprint=_fingerprint(splits, labels, digests),
    )
    result.near_duplicates = tuple(near_duplicates)
    result.faults = faults
    if others is not None:
        result.others = rows.select_columns(["image", "source"]).cast_column("image", Image()).select(others)
    return result


def _name_test_sets(laboratories: Sequence[str], test_sets: Sequence[str | None], test: np.ndarray) -> list[str]:
    """Names of the laboratories, those of images in one of several test splits with its name: each gets figures."""
    named: dict[str, set[str | None]] = defaultdict(set)
    for index in test.tolist():
        named[laboratories[index]].add(test_sets[index])
    apart = list(laboratories)
    for index in test.tolist():
        if test_sets[index] and len(named[laboratories[index]]) > 1:
            apart[index] = f"{laboratories[index]} {test_sets[index]}"
    return apart


def _take(
    rows: Dataset, kept: np.ndarray, splits: dict[str, np.ndarray], beside: Mapping[str, Sequence | np.ndarray]
) -> dict[str, Dataset]:
    """The splits as data sets of `FEATURES`. `splits` and the columns `beside` the images are of the rows in `kept`.

    No image is copied: the splits are lists of row numbers into one table, that of the source with columns more.
    (Columns joined to a selection of rows would make datasets write all of them anew, pictures and all.)
    """
    columns = pd.DataFrame(beside, index=kept).reindex(range(len(rows)))
    joined = Dataset.from_pandas(columns, Features({name: FEATURES[name] for name in columns}), preserve_index=False)
    rows = rows.select_columns(["image", "source"]).cast_column("image", Image())
    whole = concatenate_datasets([rows, joined], axis=1).select_columns(list(FEATURES))
    return {name: whole.select(kept[splits[name]]) for name in SPLITS}


def _assign_splits(
    given: Sequence[str | None],
    labels: np.ndarray,
    laboratories: np.ndarray,
    groups: Sequence[str],
    specs: Sequence[str],
    seed: int,
) -> tuple[dict[str, np.ndarray], list[bool]]:
    """Keep given splits and split the missing ones off the training images; and whether each test split is given.

    Sets that lack the same splits are split together, so that images of one group stay together. `laboratories` are
    indices into `specs`, and `given` is None where a set has no splits.
    """
    members = {name: np.flatnonzero([split == name for split in given]) for name in SPLITS}
    lacking = [
        _missing_splits({given[i] for i in np.flatnonzero(laboratories == number).tolist()}, spec)
        for number, spec in enumerate(specs)
    ]
    # A class of one laboratory is a stratum.
    strata = laboratories * len(CLASS_NAMES) + labels
    for missing in filter(None, dict.fromkeys(lacking)):
        numbers = [number for number, splits in enumerate(lacking) if splits == missing]
        fractions = {name: FRACTIONS[name] for name in missing}
        fractions = {"train": 1 - sum(fractions.values())} | fractions
        to_split = np.array([split in (None, "train") for split in given]) & np.isin(laboratories, numbers)
        source = np.flatnonzero(to_split)
        members["train"] = np.setdiff1d(members["train"], source)
        cut = split_by_group(strata[source], [groups[i] for i in source.tolist()], fractions, seed)
        for name, indices in cut.items():
            members[name] = np.union1d(members[name], source[indices])
    empty = [name for name in SPLITS if not len(members[name])]
    if empty:
        raise WbcError(
            f"{' '.join(specs)}: {len(given)} images in {len(set(groups))} groups leave {' and '.join(empty)} empty; "
            "at least three distinct cells of a class are needed."
        )
    return members, ["test" not in missing for missing in lacking]


def _missing_splits(named: set[str | None], spec: str) -> tuple[str, ...]:
    """The splits that a set lacks, from those that it has; None among these stands for images without."""
    if None in named and len(named) > 1:
        raise WbcError(
            f"{spec}: some class folders are below {', '.join(sorted(filter(None, named)))} and some do not. "
            "Move all of them into split folders, or none."
        )
    if not named & {None, "train"}:
        raise WbcError(f"{spec}: has {', '.join(sorted(map(str, named))) or 'no rows'} but nothing to train on.")
    return tuple(name for name in ("validation", "test") if name not in named)


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
