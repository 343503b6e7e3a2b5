"""The documents: files that they name exist, and what they claim to run runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))))
# A path of this repository: what users make themselves (runs/, cells/) is not meant.
OWN = re.compile(r"(?:wbc_hf|tests|docs|benchmarks|configs|models)/[\w./-]*\w/?")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_a_document_names_exist(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    missing = [path for path in OWN.findall(text) if not (ROOT / path).exists() and path != "models/ours"]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert not [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]


def test_ten_changes_lead_to_files():
    rows = re.findall(r"^\| (.+?) \| .*`(?:wbc_hf/\S+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)
    assert len(rows) == 10
