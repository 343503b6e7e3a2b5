"""The package: what it needs, what is locked, what the wheel holds, and that the wheel works by itself."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import wbc_hf
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError, needs_extra

ROOT = Path(__file__).parents[1]
METADATA = f"wbc_hf-{wbc_hf.__version__}.dist-info"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def read_requirements(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(found.name): found for found in map(Requirement, filter(None, lines))}


def required(words: Iterable[str]) -> dict[str, list[Requirement]]:
    """Requirements by name; extras of the package itself are resolved."""
    found: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, words):
        if requirement.name == "wbc-hf":
            for extra in requirement.extras:
                for name, more in required(EXTRAS[extra]).items():
                    found.setdefault(name, []).extend(more)
        else:
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


CORE = PROJECT["project"]["dependencies"]
LOCK = read_requirements("requirements.lock")
SPACE = read_requirements("requirements.txt")


def locked(name: str) -> str:
    (specifier,) = LOCK[name].specifier
    assert specifier.operator == "=="
    return specifier.version


def test_the_lock_is_exact_and_names_no_place():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "torch==2.13.0\n" in text
    assert not re.search(r"://|file:|--|@|\+", text)
    assert all(locked(name) for name in LOCK)
    assert "wbc-hf" not in LOCK


def test_the_lock_has_what_pyproject_asks_for():
    for name, requirements in required([*CORE, "wbc-hf[dev]"]).items():
        for requirement in requirements:
            assert requirement.specifier.contains(locked(name), prereleases=True), requirement


def test_a_space_installs_the_core_and_the_page_in_the_locked_versions():
    assert SPACE.keys() == required([*CORE, "wbc-hf[web]"]).keys()
    for name, requirement in SPACE.items():
        assert requirement.specifier.contains(locked(name)), requirement
    assert next(iter(SPACE)) == "torch"
    assert str(SPACE["torch"].specifier) == "==2.13.0"


def test_all_is_every_extra_for_users():
    assert required(["wbc-hf[all]"]).keys() == set().union(
        *(required(words) for extra, words in EXTRAS.items() if extra != "dev")
    )


def test_a_missing_package_names_its_extra():
    with pytest.raises(WbcError, match=r"package no_such_package is not.*'wbc-hf\[web\]'"), needs_extra("web"):
        import no_such_package  # noqa: F401


def test_a_broken_module_of_the_package_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError), needs_extra("web"):
        import wbc_hf.no_such_module  # noqa: F401


# ---- the wheel


def test_every_folder_of_the_package_is_listed():
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "wbc_hf").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders | {"wbc_hf.starter", "wbc_hf.finder"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, built from a copy, since setuptools leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("LICENSE", "NOTICE", "pyproject.toml", "README.md"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "wbc_hf", source / "wbc_hf", ignore=skip)
    for model in ("starter", "finder"):
        shutil.copytree(ROOT / "models" / model, source / "models" / model)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_the_default_model_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for name in ("starter", "finder"):
            weights = archive.read(f"wbc_hf/{name}/model.safetensors")
            assert weights == (ROOT / f"models/{name}/model.safetensors").read_bytes()
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(f"{METADATA}/licenses/{name}") == (ROOT / name).read_bytes()
    assert {name.split("/")[0] for name in names} == {"wbc_hf", METADATA}
    assert "wbc_hf/py.typed" in names
    tree = {str(file.relative_to(ROOT)) for file in (ROOT / "wbc_hf").rglob("*") if file.is_file()}
    tree = {name for name in tree if "__pycache__" not in name}
    assert tree <= set(names)


def test_the_wheel_predicts_in_an_environment_of_its_own(wheel: Path, tmp_path: Path):
    """Its dependencies are those of the environment of the tests, so that nothing has to be downloaded."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # Not read for .pth files, so that the working tree, which may be installed there, stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (cell,) = paint_cells([4], size=96, seed=3)
    Image.fromarray(cell).save(tmp_path / "cell.png")

    variables = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "WBC_HF_MODEL"}}
    origin = [str(python), "-c", "import wbc_hf; print(wbc_hf.__file__)"]
    assert subprocess.check_output(origin, cwd=tmp_path, env=variables, text=True).startswith(str(site))
    words = [str(environment / "bin" / "wbc-hf"), "predict", "cell.png", "--format", "csv"]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)

    (_, row) = done.stdout.splitlines()
    assert row.startswith("cell.png,")
