"""Interfaces of the survey's classifiers and detectors, and what their papers report."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from wbc_hf.data import Box, Leucocytes, read_image
from wbc_hf.inference import batches

_CHUNK = 256  # pictures in memory at a time


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        source: Authors, year, journal, pages or DOI.
        accuracy: On the paper's own test cells, 0 to 1; None where it gives none, or gives something else.
        cells: Which cells those were, in a few words.
        near_duplicates_apart: Whether its split is known to keep near-duplicates on one side; None if unknown.
    """

    source: str
    accuracy: float | None = None
    cells: str = "not known"
    near_duplicates_apart: bool | None = None


class System(ABC):
    """A classifier of leucocytes.

    Attributes:
        name: Its folder and its name on the command line: "huang-2012".
        title: Its name in tables; "After NAME YEAR" where the full text of the paper was not at hand, so that much of
            it had to be chosen.
        published: What its paper reports.
        start: Where a network's weights begin: "ImageNet" or "from scratch", known after `fit`; empty where there is
            no network.

    Args:
        folder: For checkpoints, so that a long fit can be resumed; made where it is missing.
        seed: Random seed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    published: ClassVar[Published]
    start: str = ""

    def __init__(self, folder: Path, seed: int = 0):
        self.folder = folder
        self.seed = seed

    @abstractmethod
    def fit(self, leucocytes: Leucocytes) -> None:
        """Fit on the split "train" and choose hyperparameters on "validation". "test" is not read.

        After a kill, the same call in a new process ends with the same result.
        """

    @abstractmethod
    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Compute class probabilities, float (n, 5), rows of sum 1, columns in the order of `CLASS_NAMES`.

        Args:
            images: RGB, any size, of one cell each, n >= 1.
        """

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of values learnt from the cells, in all parts of the system together."""


class Detector(ABC):
    """A detector of the leucocytes in a photograph, which does not classify them.

    Attributes:
        name: Its name in files: "wang-2006".
        title: Its name in tables.
        published: What its paper reports.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    published: ClassVar[Published]

    @abstractmethod
    def find_cells(self, field: Image.Image) -> list[Box]:
        """Find a box round each leucocyte, within the field.

        Args:
            field: RGB, any size.
        """


def pictures(rows: Dataset) -> Iterator[Image.Image]:
    """Decode the images of a split as RGB one by one, since a split need not fit into memory."""
    return (read_image(row["image"]) for row in tqdm(rows, "Reading pictures", delay=2, leave=False))


def in_chunks(compute: Callable[[list[Image.Image]], np.ndarray], rows: Dataset) -> np.ndarray:
    """Apply a function of RGB images, with one row of results for each, to a split chunk by chunk."""
    return np.concatenate([compute(chunk) for chunk in batches(pictures(rows), _CHUNK)])
