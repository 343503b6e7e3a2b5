"""Where figures come from: commit and machine."""

import json
import platform
import subprocess
from pathlib import Path

import pytest

from wbc_hf import provenance


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", "-C", folder, *names, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provenance, "_REPOSITORY", tmp_path)
    return tmp_path


def test_the_commit_says_whether_files_were_changed(repository: Path):
    assert provenance.source_commit() is None  # as in an installed wheel
    git(repository, "init", "--quiet")
    assert provenance.source_commit() is None  # no commit yet
    (repository / "a.py").write_text("a = 1")
    git(repository, "add", "a.py")
    git(repository, "commit", "--quiet", "--message", "a")
    commit = git(repository, "rev-parse", "HEAD").strip()
    (repository / "notes.txt").write_text("unknown to git")
    assert provenance.source_commit() == commit
    (repository / "a.py").write_text("a = 2")
    assert provenance.source_commit() == f"{commit}+"


def test_the_machine_is_described_without_its_name():
    machine = provenance.describe_machine()
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert machine["system"].startswith(platform.system())
    assert platform.node() not in json.dumps(machine).split('"')
