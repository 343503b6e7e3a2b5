"""What every system of the survey offers, and what its paper says of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from wbc_hf.data import Leucocytes, read_image


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        source: Authors, year, journal, pages or doi.
        accuracy: On the paper's own test cells, 0 to 1; None where it gives none, or gives something else.
        cells: Which cells those were, in a few words.
        copies_apart: Whether the split is known to keep copies of one cell on one side; None where nothing is known.
    """

    source: str
    accuracy: float | None
    cells: str
    copies_apart: bool | None


class System(ABC):
    """A way to tell leucocytes apart.

    Attributes:
        name: Its folder, and what the command line calls it: "huang-2012".
        title: What the table calls it.
        published: What its paper says.
        start: Where a network's weights begin: "ImageNet" or "from scratch", known once it is fitted; empty where
            there is no network.

    Args:
        folder: Its own folder, for what lets a long fit be taken up again; made where it is missing.
        seed: Of everything that is drawn.
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
        """Learn from the split "train"; what has to be chosen is chosen on "validation". "test" is not looked at.

        Killed half-way, the same call in a new process ends with the same result.
        """

    @abstractmethod
    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Probabilities of the classes, float (n, 5), rows of sum 1, columns in the order of `CLASS_NAMES`.

        Args:
            images: RGB, any size, of one cell each, n >= 1.
        """

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many numbers its answers hang on that were learnt from the cells, in all its parts together."""


def pictures(rows: Dataset) -> Iterator[Image.Image]:
    """The images of a split as RGB, decoded one after the other: a split need not fit the memory."""
    return (read_image(row["image"]) for row in tqdm(rows, "Going through pictures", delay=2, leave=False))
