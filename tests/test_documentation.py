"""The documents: files that they name exist, and what they claim to run runs."""

import re
from pathlib import Path

import pytest
from PIL import Image

import wbc_hf
from wbc_hf.data import paint_cells

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


# ---- snippets of Python


def snippets(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)


def test_every_public_name_has_a_section_with_a_snippet():
    sections = re.split(r"^## ", (ROOT / "docs/api.md").read_text(encoding="utf-8"), flags=re.M)[1:]
    assert sorted(section.split()[0] for section in sections) == wbc_hf.__all__
    for section in sections:
        assert f"wbc_hf.{section.split()[0]}" in section
        assert all(f"\n{part}" in section for part in ("```python", "**Parameters**", "**Returns**", "**Raises**"))


@pytest.fixture
def beside_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as the documents presume it: the repository's models, a picture of a cell, cells without labels."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "their_cells").mkdir()
    for index, cell in enumerate(paint_cells([index % 5 for index in range(200)], size=48, seed=6)):
        Image.fromarray(cell).save(tmp_path / "their_cells" / f"{index:02d}.png")
    Image.fromarray(cell).save(tmp_path / "cell.png")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("beside_models")
@pytest.mark.parametrize("snippet", [*snippets("docs/api.md"), *snippets("README.md")])
def test_a_snippet_runs(snippet: str):
    exec(compile(snippet, "snippet", "exec"), {})
