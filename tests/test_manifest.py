from pathlib import Path

import pytest

from wbc_hf.manifest import Manifest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A manifest that has been written."""
    Manifest(tmp_path / "manifest.json", {"rate": 0.1, "shape": (2, 3), "images": "abc"}).write()
    return tmp_path / "manifest.json"


def test_the_same_values_may_be_resumed(path: Path):
    assert Manifest(path, {"images": "abc", "shape": (2, 3), "rate": 0.1}).changes() == []


def test_changes_are_described(path: Path):
    manifest = Manifest(path, {"rate": 0.2, "shape": [2, 4], "images": "x"}, {"images": "other images ({before})"})
    assert manifest.changes() == ["rate was 0.1, now 0.2", "shape was [2, 3], now [2, 4]", "other images (abc)"]


def test_names_of_another_version_are_ignored(path: Path):
    assert Manifest(path, {"rate": 0.1, "momentum": 0.9}).changes() == []


def test_the_first_claim_stays(path: Path):
    before = path.read_bytes()
    Manifest(path, {"rate": 0.5}).write()
    assert path.read_bytes() == before


def test_a_folder_that_nobody_has_claimed(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.json", {"rate": 0.1})
    assert not manifest.exists()
    with pytest.raises(FileNotFoundError):
        manifest.changes()
