"""`load_leucocytes`: a folder, a Hub data set, a Kaggle set or painted cells become one `DatasetDict` of one form."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    Value,
    concatenate_datasets,
    load_dataset,
)
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from wbc_hf.data.folders import scan_folder, split_name
from wbc_hf.data.known_sets import KnownSet, known_by_file_names, known_by_spec, photograph
from wbc_hf.data.reading import read_image
from wbc_hf.data.splits import FRACTIONS, SPLITS, groups_across, split_by_group, stream_split
from wbc_hf.data.synthetic import paint_cells
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.hub import check_hub_reachable
from wbc_hf.labels import CLASS_NAMES, LEUCOCYTES, class_index

logger = logging.getLogger(__name__)

FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=list(CLASS_NAMES)),
        "group": Value("string"),
        "source": Value("string"),
    }
)
MAX_UNREADABLE = 0.05
PAINTED_PER_CLASS = 300
PAINTED_SIZE = 128
_NAMED_IN_WARNINGS = 20


@dataclass(frozen=True)
class Provenance:
    """Where a loaded set comes from and what was done to it, for reports and cards.

    Attributes:
        spec: What the user gave.
        title, licence, homepage: Of a known set; else the spec, None and None.
        given_splits: Whether the test split was published with the set (else it was cut here).
        skipped: Names and reasons of files that are no readable image.
        groups_across: Groups that stand on both sides of a given split.
        fingerprint: SHA-256 over content, label and split of every image; the same data give the same value.
    """

    spec: str
    title: str
    licence: str | None
    homepage: str | None
    given_splits: bool
    skipped: tuple[UnreadableImageError, ...]
    groups_across: int
    fingerprint: str


class Leucocytes(DatasetDict):
    """The splits "train", "validation" and "test" of one set, with its `provenance`."""

    provenance: Provenance


@dataclass(frozen=True)
class _Examined:
    """What opening every image of one source told: per row, in order, None for unreadable ones."""

    digests: list[str | None]
    unreadable: list[UnreadableImageError]


def load_leucocytes(
    spec: str | Path, *, streaming: bool = False, seed: int = 0
) -> "Leucocytes | IterableDatasetDict":
    """Load pictures of leucocytes from wherever they are.

    Every row has `image` (any mode and size; `read_image` makes it RGB), `label` (ClassLabel over the five names),
    `group` (images with the same value show the same physical cell or photograph) and `source` (the file's name).
    Groups come from a `group` column or `metadata.csv`, from the file names of known sets, and from identical bytes.
    Given splits are kept; missing ones are cut, 70/15/15, stratified by class, never through a group.

    Args:
        spec: A folder of class sub-folders with or without split folders above them; `synthetic` or `synthetic:N`
            (N painted cells a class); `kaggle:owner/name`; or a Hub data set id.
        streaming: For Hub sets that do not fit the disk: splits that read from the Hub while they are iterated.
            Missing splits are then cut by a hash of the group.
        seed: Of the split and of painted cells.

    Raises:
        WbcError: No such set, unknown class names, an empty class, no labels, or more than 5 % unreadable images.
        HubUnreachableError: The Hub did not answer.
    """
    spec = str(spec)
    if spec.startswith("kaggle:"):
        known = known_by_spec(spec)
        folder = _download_from_kaggle(spec.removeprefix("kaggle:"))
        unsplit = _from_folder(folder / known.subfolder if known else folder)
    elif spec == "synthetic" or spec.startswith("synthetic:"):
        known = known_by_spec("synthetic")
        unsplit = _painted(spec, seed)
    elif Path(spec).exists() or _is_path(spec):
        unsplit = _from_folder(Path(spec))
        known = known_by_file_names(unsplit["source"])
    else:
        known = known_by_spec(spec)
        if streaming:
            return _stream(spec)
        unsplit = _from_hub(spec)
    if streaming:
        raise WbcError(f"{spec}: streaming is for Hub data sets; a folder is read image by image anyway. Leave it out.")
    return _finish(unsplit, spec, known, seed)


def _is_path(spec: str) -> bool:
    return spec.startswith((".", "/", "~")) or spec.count("/") != 1


# ---- sources: each gives a Dataset with image (not decoded), class_name, split, group, source


_RAW = Features(
    {
        "image": Image(decode=False),
        "class_name": Value("string"),
        "split": Value("string"),
        "group": Value("string"),
        "source": Value("string"),
    }
)


def _from_folder(root: Path) -> Dataset:
    images = scan_folder(root.expanduser())
    return Dataset.from_dict(
        {
            "image": [{"path": str(image.path), "bytes": None} for image in images],
            "class_name": [image.class_name for image in images],
            "split": [image.split for image in images],
            "group": [image.group for image in images],
            "source": [image.source for image in images],
        },
        features=_RAW,
    )


def _download_from_kaggle(handle: str) -> Path:
    import kagglehub
    import kagglehub.exceptions
    import requests

    if handle.count("/") != 1:
        raise WbcError(f"kaggle:{handle}: a Kaggle data set is named 'kaggle:owner/name'.")
    try:
        return Path(kagglehub.dataset_download(handle))
    except (
        requests.RequestException,
        kagglehub.exceptions.NotFoundError,
        kagglehub.exceptions.BackendError,
        kagglehub.exceptions.CredentialError,
        kagglehub.exceptions.UnauthenticatedError,
        kagglehub.exceptions.DataCorruptionError,
    ) as error:
        raise WbcError(
            f"kaggle:{handle} could not be downloaded ({type(error).__name__}: {error}). Check the network and, for "
            "sets that ask for it, KAGGLE_USERNAME and KAGGLE_KEY; or download it by hand and give the folder."
        ) from error


def _painted(spec: str, seed: int) -> Dataset:
    number = spec.removeprefix("synthetic").removeprefix(":")
    if number and not (number.isdecimal() and int(number) > 0):
        raise WbcError(f"{spec}: 'synthetic' or 'synthetic:N' is expected, N cells a class, for example synthetic:100.")
    labels = np.tile(np.arange(len(CLASS_NAMES)), int(number or PAINTED_PER_CLASS))

    def rows() -> Iterator[dict]:
        cells = paint_cells(labels, size=PAINTED_SIZE, seed=seed)
        for index, (label, cell) in enumerate(zip(labels, cells, strict=True)):
            name = f"painted-{index:05d}"
            image = Image().encode_example(cell)
            yield {"image": image, "class_name": CLASS_NAMES[label], "split": None, "group": None, "source": name}

    return Dataset.from_list(list(rows()), features=_RAW)


def _from_hub(spec: str) -> Dataset:
    parts = []
    for name, part in _open_hub_set(spec, streaming=False).items():
        columns = _hub_columns(spec, part.features)
        part = part.cast_column(columns.image, Image(decode=False))
        rows = Dataset.from_dict(
            {
                "class_name": columns.class_names(part[columns.label]),
                "split": [columns.split(name)] * len(part),
                "group": [str(group) for group in part["group"]] if "group" in part.features else [None] * len(part),
                "source": [_hub_source(name, index, row) for index, row in enumerate(part[columns.image])],
            },
            features=Features({key: value for key, value in _RAW.items() if key != "image"}),
        )
        image = part.select_columns(columns.image).rename_column(columns.image, "image").cast_column("image", _RAW["image"])
        parts.append(concatenate_datasets([image, rows], axis=1))
    return concatenate_datasets(parts)


def _open_hub_set(spec: str, streaming: bool) -> DatasetDict | IterableDatasetDict:
    check_hub_reachable()
    try:
        return load_dataset(spec, streaming=streaming)
    except DatasetNotFoundError:
        raise WbcError(
            f"{spec}: neither a folder here nor a data set on the Hub (or a private one: log in, or set HF_TOKEN)."
        ) from None
    except DatasetsError as error:
        raise WbcError(f"{spec}: the Hub data set could not be loaded ({error}).") from error


@dataclass(frozen=True)
class _HubColumns:
    """Which columns of a Hub set hold what."""

    image: str
    label: str
    names: Sequence[str] | None

    def class_names(self, values: Sequence) -> list[str]:
        return [self.class_name(value) for value in values]

    def class_name(self, value) -> str:
        return str(value) if self.names is None else self.names[value]

    @staticmethod
    def split(name: str) -> str:
        known = split_name(name)
        if known is None:
            raise WbcError(f"The split {name!r} is not known: train, validation and test (or val, dev …) are.")
        return known


def _hub_columns(spec: str, features: Features) -> _HubColumns:
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)] or [
        name for name in ("label", "labels", "class", "category", "cell_type") if name in features
    ]
    if not images or not labels:
        raise WbcError(
            f"{spec}: has the columns {', '.join(features)}; one with images and one with the class "
            "(a ClassLabel, or a string called 'label') are needed."
        )
    feature = features[labels[0]]
    return _HubColumns(images[0], labels[0], feature.names if isinstance(feature, ClassLabel) else None)


def _hub_source(split: str, index: int, image: dict) -> str:
    return f"{split}/{Path(image['path']).name if image.get('path') else index}"


# ---- from any source to the finished splits


def _finish(raw: Dataset, spec: str, known: KnownSet | None, seed: int) -> Leucocytes:
    labels = _to_labels(raw["class_name"], spec)
    examined = _examine(raw)
    _check_unreadable(examined.unreadable, len(raw), spec)
    kept = [index for index, digest in enumerate(examined.digests) if digest is not None]
    raw = raw.select(kept)
    labels = labels[kept]
    digests = [examined.digests[index] for index in kept]
    sources = list(raw["source"])
    named = [group or photograph(known, source) for group, source in zip(raw["group"], sources, strict=True)]
    groups = _merge_groups(named, digests, sources)

    splits, given = _assign_splits(list(raw["split"]), labels, groups, spec, seed)
    crossing = groups_across({name: [groups[i] for i in indices] for name, indices in splits.items()})
    if crossing:
        logger.warning(
            "%s: %d groups (copies of one cell or photograph) stand in more than one of its splits, %s for one; "
            "figures on its test split are too good by what that gives away.",
            spec,
            len(crossing),
            min(crossing),
        )
    columns = Dataset.from_dict(
        {"label": labels, "group": groups, "source": sources},
        features=Features({name: FEATURES[name] for name in ("label", "group", "source")}),
    )
    whole = concatenate_datasets([raw.select_columns("image"), columns], axis=1).cast_column("image", Image())
    result = Leucocytes({name: whole.select(splits[name]) for name in SPLITS})
    result.provenance = Provenance(
        spec=spec,
        title=known.title if known else spec,
        licence=known.licence if known else None,
        homepage=known.homepage if known else None,
        given_splits=given,
        skipped=tuple(examined.unreadable),
        groups_across=len(crossing),
        fingerprint=_fingerprint(splits, labels, digests),
    )
    return result


def _to_labels(class_names: Sequence[str], spec: str) -> np.ndarray:
    counts = Counter(class_names)
    index_of = {name: class_index(name) for name in counts}
    unknown = sorted(name for name, index in index_of.items() if index is None)
    if unknown:
        found = ", ".join(f"{name!r} ({counts[name]})" for name in sorted(counts))
        known = ", ".join(f"{cell.name} ({', '.join(cell.synonyms[:3])})" for cell in LEUCOCYTES)
        raise WbcError(
            f"{spec}: the class {', '.join(map(repr, unknown))} is none of the five leucocytes. Found: {found}. "
            f"Known, with other spellings: {known}. Rename or remove what is unknown."
        )
    return np.array([index_of[name] for name in class_names], dtype=np.int64)


def _examine(raw: Dataset) -> _Examined:
    """Open every image once: unreadable ones become known before training, and identical ones by their digest."""

    def examine(row: dict) -> tuple[str | None, UnreadableImageError | None]:
        image, source = row["image"], row["source"]
        try:
            content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            read_image(content if content else Path(image["path"] or source), name=source)
        except UnreadableImageError as error:
            return None, error
        except OSError as error:
            return None, UnreadableImageError(source, f"could not be read ({error.strerror})")
        return hashlib.sha256(content).hexdigest(), None

    with ThreadPoolExecutor() as pool:
        results = list(
            tqdm(pool.map(examine, raw), total=len(raw), desc="Reading images", unit="image", delay=2, leave=False)
        )
    return _Examined([digest for digest, _ in results], [error for _, error in results if error is not None])


def _check_unreadable(unreadable: Sequence[UnreadableImageError], total: int, spec: str) -> None:
    for error in unreadable[:_NAMED_IN_WARNINGS]:
        logger.warning("Skipped %s", error)
    if len(unreadable) > _NAMED_IN_WARNINGS:
        logger.warning("Skipped %d more; the report names them all.", len(unreadable) - _NAMED_IN_WARNINGS)
    if len(unreadable) > MAX_UNREADABLE * total:
        raise WbcError(
            f"{spec}: {len(unreadable)} of {total} files are not readable images, more than {MAX_UNREADABLE:.0%}: "
            f"{'; '.join(map(str, unreadable[:3]))}. Check the download, or remove them."
        )


def _merge_groups(named: Sequence[str | None], digests: Sequence[str], sources: Sequence[str]) -> list[str]:
    """One group where either the given name or the content is shared, named after its first image."""
    columns = [{key: number for number, key in enumerate(dict.fromkeys(keys))} for keys in (named, digests)]
    rows, keys = [], []
    for index, (name, digest) in enumerate(zip(named, digests, strict=True)):
        if name is not None:
            rows.append(index)
            keys.append(columns[0][name])
        rows.append(index)
        keys.append(len(columns[0]) + columns[1][digest])
    images, size = len(named), len(named) + len(columns[0]) + len(columns[1])
    links = coo_array((np.ones(len(rows)), (rows, np.array(keys) + images)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    first: dict[int, str] = {}
    return [first.setdefault(number, source) for number, source in zip(component[:images], sources, strict=True)]


def _assign_splits(
    given: Sequence[str | None], labels: np.ndarray, groups: Sequence[str], spec: str, seed: int
) -> tuple[dict[str, np.ndarray], bool]:
    """Keep the given splits and cut those that are missing out of the training images. True: the test split is given."""
    named = set(given)
    if None in named and len(named) > 1:
        raise WbcError(
            f"{spec}: some class folders stand below {', '.join(sorted(filter(None, named)))} and some do not. "
            "Move all of them into split folders, or none."
        )
    members = {name: np.flatnonzero([split == name for split in given]) for name in SPLITS}
    source = np.arange(len(given)) if None in named else members["train"]
    if not len(source):
        raise WbcError(f"{spec}: has {', '.join(sorted(map(str, named)))} but nothing to train on.")
    missing = [name for name in ("validation", "test") if not len(members[name])]
    if missing:
        fractions = {name: FRACTIONS[name] for name in missing}
        cut = split_by_group(
            labels[source], [groups[i] for i in source], {"train": 1 - sum(fractions.values())} | fractions, seed
        )
        members |= {name: source[indices] for name, indices in cut.items()}
    empty = [name for name in SPLITS if not len(members[name])]
    if empty:
        raise WbcError(
            f"{spec}: {len(given)} images in {len(set(groups))} groups leave {', '.join(empty)} empty; "
            "at least three distinct cells of a class are needed."
        )
    return members, "test" not in missing


def _fingerprint(splits: dict[str, np.ndarray], labels: np.ndarray, digests: Sequence[str]) -> str:
    lines = sorted(f"{name} {labels[i]} {digests[i]}" for name, indices in splits.items() for i in indices)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _stream(spec: str) -> IterableDatasetDict:
    """The same columns from a Hub set that is never stored: images are checked and grouped as they come by."""
    given = {_HubColumns.split(name): part for name, part in _open_hub_set(spec, streaming=True).items()}
    if "train" not in given:
        raise WbcError(f"{spec}: has {', '.join(given)} but nothing to train on.")
    missing = [name for name in ("validation", "test") if name not in given]
    fractions = {"train": 1 - sum(FRACTIONS[name] for name in missing)} | {name: FRACTIONS[name] for name in missing}
    result = {name: _stream_part(spec, name, part) for name, part in given.items()}
    whole = result["train"]
    for name in fractions if missing else ():
        result[name] = whole.filter(_InStreamSplit(name, fractions))
    return IterableDatasetDict({name: result[name] for name in SPLITS})


@dataclass(frozen=True)
class _InStreamSplit:
    name: str
    fractions: dict[str, float]

    def __call__(self, row: dict) -> bool:
        return stream_split(row["group"], self.fractions) == self.name


def _stream_part(spec: str, split: str, part: IterableDataset) -> IterableDataset:
    if part.features is None:
        part = part._resolve_features()
    columns = _hub_columns(spec, part.features)
    part = part.cast_column(columns.image, Image(decode=False))

    def convert(row: dict, index: int) -> dict:
        image, source = row[columns.image], _hub_source(split, index, row[columns.image])
        label = class_index(columns.class_name(row[columns.label]))
        if label is None:
            _to_labels([columns.class_name(row[columns.label])], spec)
        try:
            read_image(image["bytes"], name=source)
        except UnreadableImageError as error:
            logger.warning("Skipped %s", error)
            return {"image": image, "label": label, "group": None, "source": source}
        group = row.get("group") or hashlib.sha256(image["bytes"]).hexdigest()
        return {"image": image, "label": label, "group": str(group), "source": source}

    converted = part.map(convert, with_indices=True, remove_columns=list(part.features))
    return converted.filter(lambda row: row["group"] is not None).cast(FEATURES)
