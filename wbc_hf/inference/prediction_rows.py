"""Rows of a table of predictions: their columns, and what is said of a file beside its prediction."""

from collections.abc import Sequence

from wbc_hf.data import ImageSource, find_pages
from wbc_hf.errors import WbcError

NUMBER = "number"
# Beside one for each class.
_COLUMNS = (NUMBER, "file", "label", "probability", "status", "reason")


def check_columns(labels: Sequence[str]) -> None:
    """Check that each class of a model can be a column of a table of predictions.

    Raises:
        WbcError: A class has the name of another column.
    """
    if taken := [label for label in labels if label in _COLUMNS]:
        raise WbcError(
            f"{taken[0]}: is a class of this model, and a column of the table already. Rename it in id2label of the "
            "model's config.json."
        )


def describe_left_out(source: ImageSource) -> str | None:
    """What prediction leaves out of a file with several pages or frames; None of any other."""
    pages = find_pages(source)
    left_out = len(pages.numbers) - 1 + pages.frames
    return f"only the first picture in it is classified, {left_out} more are left out" if left_out else None
