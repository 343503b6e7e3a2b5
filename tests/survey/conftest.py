"""Painted cells that all systems are tried on, and no Hub: networks start from scratch, whatever can be reached."""

from dataclasses import dataclass

import numpy as np
import pytest
from datasets import concatenate_datasets
from PIL import Image

from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.errors import HubUnreachableError
from wbc_hf.survey.system import pictures


@pytest.fixture(autouse=True, scope="session")
def _no_hub():
    def unreachable(model: str) -> None:
        raise HubUnreachableError(f"{model}: no Hub in tests.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_hf.survey.networks.fetch_model", unreachable)
        yield


@dataclass(frozen=True)
class Cells:
    """Pictures with their classes."""

    images: list[Image.Image]
    labels: np.ndarray


@pytest.fixture(scope="session")
def cells(leucocytes: Leucocytes) -> Cells:
    """All two hundred, those trained on too: what a network of seconds gets right of thirty is mostly chance."""
    every = concatenate_datasets(list(leucocytes.values()))
    return Cells(list(pictures(every)), np.array(every["label"]))


@pytest.fixture(scope="session")
def leucocytes() -> Leucocytes:
    """Two hundred painted cells, forty of each class, of which thirty are to test on. Not to be changed."""
    return load_leucocytes("synthetic:40")
