"""The notebooks: their code runs, prints what they show, and their outputs are small."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(source: str, names: dict) -> object:
    """Run a cell as Jupyter does; its last expression is the value."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def without_figures(text: str) -> list[str]:
    """The words, without numbers and statuses: how sure the model is of a cell depends on the processor."""
    words = re.sub(r"\d+(\.\d+)?", "#", text).split()
    return [word for word in words if word not in ("confident", "review", "unfamiliar", "counted", "waiting")]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_prints_what_it_shows(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(notebook.parent)
    names: dict = {}
    values = []
    for cell in code_cells(notebook):
        source = "".join(cell["source"])
        if source.startswith("%pip install"):
            assert all(Path(word).exists() for word in source.split() if word.startswith(".."))
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            values.append(run(source, names))
        shown = "".join(text for output in cell["outputs"] for text in output.get("text", []))
        assert without_figures(printed.getvalue()) == without_figures(shown)
    assert any(isinstance(value, Image.Image) for value in values)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_small_and_shows_a_run_without_errors(notebook: Path):
    assert notebook.stat().st_size < 100_000
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    counted = [cell["execution_count"] for cell in code_cells(notebook) if cell["execution_count"]]
    assert counted == sorted(set(counted))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_of_a_notebook_lead_somewhere(notebook: Path):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert links and all((notebook.parent / link).exists() for link in links)
