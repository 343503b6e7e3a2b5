"""The documents: files that they name exist, commands are as the program has them, and what they claim to run runs."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from PIL import Image

import wbc_hf
from wbc_hf.cli import app
from wbc_hf.data import paint_cells
from wbc_hf.hub import UNNAMED_MODEL
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.training.parser import make_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = tuple(str(file.relative_to(ROOT)) for file in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
# A path of this repository: what users make themselves (runs/, cells/) is not meant.
OWN = re.compile(r"(?:wbc_hf|tests|docs|benchmarks|configs|models|scripts|deploy|\.ci|\.github)/[\w./-]*\w/?")


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


def test_the_readme_is_short_and_says_first_what_it_is_about():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    heading, first = text.split("\n\n")[:2]
    assert heading == "# wbc_hf"
    assert "white blood cells (WBC, leukocytes)" in first.splitlines()[0]


def test_every_page_of_the_documentation_is_in_the_menu():
    # The menu alone: elsewhere in the file are tags that only MkDocs knows.
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2].partition("\nhooks:\n")[0]
    pages = re.findall(r"[\w-]+\.md", menu)
    assert sorted(pages) == sorted(file.name for file in (ROOT / "docs").glob("*.md"))


# ---- blocks of code


class Block(NamedTuple):
    document: str
    language: str
    text: str
    runs: bool


def blocks(name: str) -> list[Block]:
    """Fenced blocks of a document. What cannot run in a test has the comment `<!-- not run: why -->` before it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^(<!-- not run: .+ -->\n)?```(.*)\n((?s:.*?))^```$", text, re.M)
    return [Block(name, language, code, not mark) for mark, language, code in found]


BLOCKS = [block for name in DOCUMENTS for block in blocks(name)]
SHELL = [block for block in BLOCKS if block.language in {"bash", "console"}]


def typed(block: Block) -> list[str]:
    """The lines that a person types, those that go on joined, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def test_every_block_says_what_it_is():
    assert {block.language for block in BLOCKS} <= {"bash", "console", "json", "python", "text"}
    assert len(SHELL) > 15 and any(block.runs for block in SHELL)


def options_of(words: list[str]) -> tuple[set[str], list[str]] | None:
    """Options that the command which the words name has, and the words that follow it; None for other programs."""
    if "wbc-hf" in words[:1]:
        words = words[1:]
    elif "wbc_hf.cli" in words:
        words = words[words.index("wbc_hf.cli") + 1 :]
    elif "train.py" in words:
        words = ["train", *words[words.index("train.py") + 1 :]]
    else:
        return None
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    if command.name in ("train", "distil"):
        return set(make_parser()._option_string_actions), words
    return {option for parameter in command.params for option in parameter.opts}, words


@pytest.mark.parametrize(
    "line", sorted({part.strip() for block in SHELL for line in typed(block) for part in line.split("&&")})
)
def test_a_command_of_a_document_exists_with_its_options(line: str):
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    elif found := options_of(words):
        options, rest = found
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= options
    elif words[0] == "python" and words[1].startswith("benchmarks/"):
        source = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in words[2:] if word.startswith("--"))


def test_every_public_name_has_a_section_with_a_snippet():
    sections = re.split(r"^## ", (ROOT / "docs/api.md").read_text(encoding="utf-8"), flags=re.M)[1:]
    assert sorted(section.split()[0] for section in sections) == wbc_hf.__all__
    for section in sections:
        assert f"wbc_hf.{section.split()[0]}" in section
        assert all(f"\n{part}" in section for part in ("```python", "**Parameters**", "**Returns**", "**Raises**"))


@pytest.mark.parametrize("name", [name for name in wbc_hf.__all__ if name != "Predictor"])
def test_a_documented_call_has_all_parameters_of_the_function(name: str):
    section = (ROOT / "docs/api.md").read_text(encoding="utf-8").partition(f"\n## {name}\n")[2]
    call = re.search(rf"```text\n{name}\(([^)]*)\)", section)[1]
    documented = [part.partition("=")[0].strip() for part in call.split(",")]
    parameters = inspect.signature(getattr(wbc_hf, name)).parameters
    assert [word for word in documented if word != "*"] == list(parameters)
    described = section.partition("**Parameters**")[2].partition("**Returns**")[0]
    assert [word for word in parameters if f"- `{word}`: " not in described] == []


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture of a cell, cells without labels and cells with. Not to be changed."""
    root = tmp_path_factory.mktemp("painted")
    (root / "their_cells").mkdir()
    for index, cell in enumerate(paint_cells([index % 5 for index in range(200)], size=48, seed=6)):
        Image.fromarray(cell).save(root / "their_cells" / f"{index:02d}.png")
        if index < 60:
            labelled = root / "cells" / CLASS_NAMES[index % 5]
            labelled.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cell).save(labelled / f"{index:02d}.png")
    Image.fromarray(cell).save(root / "cell.png")
    return root


@pytest.fixture
def folder(painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the documents presume it: the repository, and what is painted."""
    for name in ("configs", "models", "train.py", "wbc_hf"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in painted.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbered(chosen: list[Block]) -> list:
    """Parameters; those blocks that train or adapt a network take long."""
    return [
        pytest.param(
            block,
            id=f"{block.document}-{index}",
            marks=[pytest.mark.long] if re.search(r"\badapt\(|wbc-hf (train|adapt)|train\.py", block.text) else [],
        )
        for index, block in enumerate(chosen)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("block", numbered([block for block in BLOCKS if block.language == "python" and block.runs]))
def test_a_snippet_runs(block: Block):
    # The card's placeholder, for which publishing puts the model's own name.
    exec(compile(block.text.replace(UNNAMED_MODEL, "models/starter"), block.document, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("block", numbered([block for block in SHELL if block.runs]))
def test_a_block_of_commands_runs_and_prints_what_the_document_shows(block: Block, folder: Path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    script = "\n".join(["set -e", *typed(block)])
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # By the first words: how sure the model is of a single cell depends on the processor.
    if block.language == "console":
        shown_text = block.text.replace("\\\n", " ").partition("\n…")[0]
        shown = [line.split()[0] for line in shown_text.splitlines()[1:] if line]
        assert shown == [line.split()[0] for line in done.stdout.splitlines() if line][: len(shown)]
