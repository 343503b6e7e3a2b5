"""Training images without labels, for a student that learns from a teacher's predictions."""

import logging
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
from datasets import Dataset, Image, concatenate_datasets

from wbc_hf.data.checks import MAX_WARNINGS
from wbc_hf.data.layouts.walking import find_pictures
from wbc_hf.data.loading import Leucocytes
from wbc_hf.data.near_duplicates import find_near_duplicates, group_images
from wbc_hf.data.picture_checks import check_pictures
from wbc_hf.data.reading import image_content, read_image
from wbc_hf.data.rows import FEATURES
from wbc_hf.errors import UnreadableImageError, WbcError

logger = logging.getLogger(__name__)

NO_LABEL = -1
UNLABELLED_LABORATORY = "unlabelled"


def with_unlabelled(leucocytes: Leucocytes, folders: Sequence[str | Path]) -> Leucocytes:
    """Add all images below folders to the training images of a set, with `NO_LABEL` for a label.

    Images that show a cell of validation or test are left out, as near-duplicates are found: else the student would
    learn on what it is judged by. That is said, and so is each image that cannot be read.

    Raises:
        WbcError: A folder does not exist or holds no pictures, or no image is left.
    """
    files = [str(file) for folder in folders for file in _pictures(Path(folder))]
    rows = _rows(files)
    digests = check_pictures(_undecoded(rows)).digests
    errors = [each for each in digests if isinstance(each, UnreadableImageError)]
    for error in errors[:MAX_WARNINGS]:
        logger.warning("--unlabelled: %s; it is left out.", error)
    if len(errors) > MAX_WARNINGS:
        logger.warning("--unlabelled: and %d more images cannot be read.", len(errors) - MAX_WARNINGS)
    readable = [number for number, each in enumerate(digests) if isinstance(each, str)]
    rows, known = rows.select(readable), [str(digests[number]) for number in readable]
    held_out = concatenate_datasets([leucocytes["validation"], leucocytes["test"]])
    seen = _seen_in(held_out, rows, known)
    if seen:
        logger.warning(
            "--unlabelled: %d of %d images show cells of validation or test and are left out, for example %s.",
            len(seen),
            len(rows),
            rows[seen[0]]["source"],
        )
        rows = rows.select(sorted(set(range(len(rows))) - set(seen)))
    if not len(rows):
        raise WbcError(f"--unlabelled {' '.join(map(str, folders))}: no image is left to learn from.")
    return leucocytes.with_more_to_train_on(rows, "\n".join(["", *sorted(known)]))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise WbcError(f"--unlabelled {folder}: is no folder. Give a folder with images of single cells.")
    return find_pictures(folder)


def _rows(files: Sequence[str]) -> Dataset:
    columns = {
        "image": files,
        "label": [NO_LABEL] * len(files),
        "group": files,
        "laboratory": [UNLABELLED_LABORATORY] * len(files),
        "source": files,
    }
    return Dataset.from_dict(columns, features=FEATURES)


def _undecoded(rows: Dataset) -> Dataset:
    return rows.select_columns(["image", "source"]).cast_column("image", Image(decode=False))


def _seen_in(held_out: Dataset, rows: Dataset, digests: Sequence[str]) -> list[int]:
    """Numbers of those of the rows that show a cell of an image that is held out."""
    pictures, count = concatenate_datasets([_undecoded(held_out), _undecoded(rows)]), len(held_out)
    # Names of both may be alike.
    names = [f"held out/{source}" for source in held_out["source"]] + [f"/{source}" for source in rows["source"]]
    held_digests = [str(digest) for digest in check_pictures(_undecoded(held_out)).digests]

    def read(index: int) -> PIL.Image.Image:
        return read_image(image_content(pictures[index]["image"]))

    pairs = find_near_duplicates([*held_digests, *digests], names, read)
    groups = group_images(names, [None] * len(names), pairs)
    seen = set(groups[:count])
    return [number for number, group in enumerate(groups[count:]) if group in seen]
