"""Painted cells that all systems are tried on, and no Hub: networks start from scratch, whatever can be reached."""

import pytest

from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.errors import HubUnreachableError


@pytest.fixture(autouse=True, scope="session")
def _no_hub():
    def unreachable(model: str) -> None:
        raise HubUnreachableError(f"{model}: no Hub in tests.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_hf.survey.networks.fetch_model", unreachable)
        yield


@pytest.fixture(scope="session")
def leucocytes() -> Leucocytes:
    """Two hundred painted cells, forty of each class, of which thirty are to test on. Not to be changed."""
    return load_leucocytes("synthetic:40")
