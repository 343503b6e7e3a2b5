"""The columns of every set: as its source gives them, unchecked, and as `load_leucocytes` does."""

from collections.abc import Iterable, Mapping

from datasets import ClassLabel, Dataset, Features, Image, Value

from wbc_hf.labels import CLASS_NAMES

# Every row that `load_leucocytes` gives, streamed or not.
FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=list(CLASS_NAMES)),
        "group": Value("string"),
        "laboratory": Value("string"),
        "source": Value("string"),
    }
)
# Unchecked rows of a source: class names as published, `source` unique; `split`, `test_set` (the name of one of
# several test splits) and `group` None where unknown.
ROW_FEATURES = Features(
    {
        "image": Image(decode=False),
        "class_name": Value("string"),
        "split": Value("string"),
        "test_set": Value("string"),
        "group": Value("string"),
        "source": Value("string"),
    }
)
TEXT_FEATURES = Features({name: feature for name, feature in ROW_FEATURES.items() if name != "image"})


def make_rows(rows: Iterable[Mapping[str, object]]) -> Dataset:
    """A data set of `ROW_FEATURES`; columns that a row lacks are None."""
    return Dataset.from_list([dict.fromkeys(ROW_FEATURES) | dict(row) for row in rows], features=ROW_FEATURES)
