"""Folders of the package import each other by what their `__init__.py` exports, and programs what is there."""

import ast
import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import wbc_hf

PACKAGE = Path(wbc_hf.__file__).parent
ROOT = Path(__file__).parents[1]
ROOMS = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))


def imported_modules(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    imports = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return imports | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_reaches_past_the_face_of_another_folder(room: str):
    past = {
        f"{file.relative_to(PACKAGE)}: {module}"
        for file in (PACKAGE / room).rglob("*.py")
        for module in imported_modules(file)
        if module.startswith("wbc_hf.") and module.count(".") > 1 and module.split(".")[1] in set(ROOMS) - {room}
    }
    assert not past


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_exports_what_it_names(room: str):
    """Imports that wait until a name is used: none is forgotten, and none is hidden by a module of its name."""
    face = importlib.import_module(f"wbc_hf.{room}")
    modules = {file.stem for file in Path(face.__file__).parent.glob("*.py")}
    for name in getattr(face, "__all__", ()):
        assert not isinstance(getattr(face, name), ModuleType)
        assert name not in modules or not hasattr(face, "__getattr__")
    if hasattr(face, "__getattr__"):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = face.nothing


def test_no_folder_holds_more_than_a_fifth_of_the_package():
    lines = Counter[str]()
    for file in PACKAGE.rglob("*.py"):
        lines[file.relative_to(PACKAGE).parts[0]] += len(file.read_bytes().splitlines())
    assert set(ROOMS) < set(lines)
    assert not [room for room in ROOMS if lines[room] > lines.total() / 5]


PROGRAMS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("benchmarks", "models", "scripts", "docs")
    for path in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_imports_what_the_package_has(program: str):
    """No test runs them all: what moves within the package must not stop them unseen."""
    nodes = ast.walk(ast.parse((ROOT / program).read_text(encoding="utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wbc_hf")]
    lacking = [
        f"{node.module}.{alias.name}"
        for node in imports
        for alias in node.names
        if not hasattr(importlib.import_module(node.module), alias.name)
    ]
    assert not lacking
