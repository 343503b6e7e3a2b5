"""What the tests of laboratories share: a tiny model, and two adaptations of it."""

from pathlib import Path

import pytest

from tests.adapted_models import AdaptedModel, make_adapted
from tests.conftest import TinyRun
from wbc_hf.inference import Predictor


@pytest.fixture(scope="session")
def first(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    base = Predictor.from_pretrained(tiny_run.folder, "torch")
    return make_adapted(base, tmp_path_factory.mktemp("adapted") / "first", seed=1)


@pytest.fixture(scope="session")
def second(first: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return make_adapted(first.base, tmp_path_factory.mktemp("adapted") / "second", seed=2)


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    return tmp_path / "laboratories"
