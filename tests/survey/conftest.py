"""No Hub: networks start from scratch, whatever the machine can reach."""

import pytest

from wbc_hf.errors import HubUnreachableError


@pytest.fixture(autouse=True, scope="session")
def _no_hub():
    def unreachable(model: str) -> None:
        raise HubUnreachableError(f"{model}: no Hub in tests.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_hf.survey.networks.fetch_model", unreachable)
        yield
