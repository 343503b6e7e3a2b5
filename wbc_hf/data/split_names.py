"""Names of splits in folders, files and Hub sets."""

from collections.abc import Sequence

from wbc_hf.labels import normalise_name

_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_BESIDE = frozenset({"set", "data", "image"})
# A second test split: Raabin's Test-A and Test-B, for two microscopes.
_OTHER_TESTS = frozenset({"external", "internal", "extra", "unseen"})
# Kaggle's paultimothymooney/blood-cells keeps the originals of its augmented TEST images beside them.
_SAME_TESTS = frozenset({"simple"})


def split_name(name: str) -> str | None:
    """The split of a name ("TRAIN", "val", "Testing", "test set", "Test-B"), or None."""
    split, words = _parse(name)
    if split == "test":
        words = {word for word in words - _OTHER_TESTS - _SAME_TESTS if len(word) > 1}
    return None if words else split


def named_test_set(name: str) -> str | None:
    """The name itself, where it tells one of several test splits ("Test-B", "test_external"), or None."""
    _, words = _parse(name)
    return name if split_name(name) == "test" and words - _SAME_TESTS else None


def nearest_split(parts: Sequence[str]) -> tuple[str | None, str | None]:
    """The split that the last of these names tells, and its `named_test_set`; None and None where none does."""
    for part in reversed(parts):
        if split := split_name(part):
            return split, named_test_set(part)
    return None, None


def _parse(name: str) -> tuple[str | None, set[str]]:
    first, *others = normalise_name(name).split() or [""]
    return _SPLITS.get(first), set(others) - _BESIDE
