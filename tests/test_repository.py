"""What a repository is expected to have: licence, citation, versions that agree, workflows that call what exists."""

import importlib.util
import re
import shutil
import subprocess
import tomllib
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import wbc_hf
from wbc_hf.data.known_sets import KNOWN_SETS

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted({*(ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")} - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"})
LICENCE = "Apache-2.0"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---- licence and citation


def test_the_licence_is_the_one_that_is_named_everywhere():
    text = read("LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    project = tomllib.loads(read("pyproject.toml"))["project"]
    front = yaml.safe_load(read("scripts/space/README.md").split("---\n")[1])
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {project["license"], citation["license"], front["license"].replace("apache", "Apache")} == {LICENCE}


def test_the_notices_credit_all_that_is_by_others():
    text = " ".join(read("NOTICE").split())
    for model in ("starter", "finder"):
        assert f"models/{model}" in text and "BSD-2-Clause" in read(f"models/{model}/NOTICE")
    card = yaml.safe_load(read("models/starter/README.md").split("---\n")[1])
    trained_on = card["model-index"][0]["results"][0]["dataset"]["name"]
    for known in KNOWN_SETS:
        if known.title in trained_on:
            assert known.homepage in text
            assert known.licence.replace("CC-BY-4.0", "CC BY 4.0") in text


def test_the_citation_has_what_its_format_requires():
    """By the schema of the Citation File Format 1.2.0, as far as this file uses it."""
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert all(citation[key] for key in ("message", "title", "abstract", "keywords"))
    assert [author.keys() for author in citation["authors"]] == [{"name"}]
    assert isinstance(citation["version"], str)
    # A string: YAML reads a bare date as something else, which the schema refuses.
    assert date.fromisoformat(citation["date-released"])


# ---- release


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / ".ci" / "release_notes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that say a version."""
    (tmp_path / "wbc_hf").mkdir()
    for name in ("CHANGELOG.md", "CITATION.cff", "wbc_hf/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    # As at a release, whatever waits at the moment.
    text = re.sub(r"(## \[Unreleased\]\n)(?s:.*?)(?=## \[\d)", r"\1\n", read("CHANGELOG.md"))
    (tmp_path / "CHANGELOG.md").write_text(text, encoding="utf-8")
    return tmp_path


def test_version_changelog_and_citation_agree(script: ModuleType, copy: Path):
    notes = script.release_notes(f"v{wbc_hf.__version__}", copy)
    assert len(notes) > 100 and "## [" not in notes


def test_a_tag_on_this_commit_is_that_of_its_version():
    command = ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD", "--list", "v*"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git repository")
    assert set(done.stdout.split()) <= {f"v{wbc_hf.__version__}"}


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("wbc_hf/__init__.py", f'"{wbc_hf.__version__}"', '"9.0.0"', r"is not v9\.0\.0"),
        ("CHANGELOG.md", f"## [{wbc_hf.__version__}]", "## [9.0.0]", r"CHANGELOG\.md is 9\.0\.0"),
        ("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- A change.\n", 'under "Unreleased"'),
        ("CITATION.cff", f"version: {wbc_hf.__version__}", "version: 9.0.0", r"CITATION\.cff is 9\.0\.0"),
        ("CITATION.cff", 'date-released: "2', 'date-released: "1', r"The date in CITATION\.cff is 1"),
    ],
)
def test_a_tag_that_makes_no_release_is_refused(
    script: ModuleType, copy: Path, file: str, old: str, new: str, problem: str
):
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        script.release_notes(f"v{wbc_hf.__version__}", copy)


# ---- workflows and forms


def steps(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job.get("steps", [])]


def test_workflows_call_what_exists():
    found = [step.get("run", "") for workflow in WORKFLOWS for step in steps(workflow)]
    commands = [line for text in found for line in text.splitlines()]
    assert ".ci/run" in commands
    for command in commands:
        for target in re.findall(r"^make (\S+)", command):
            assert re.search(rf"^{target}:", read("Makefile"), re.M)
        for file in re.findall(r"\.ci/\S+", command):
            assert (ROOT / file).exists()


def test_continuous_integration_checks_style_documentation_and_tests():
    run = read(".ci/run")
    assert all(f"make {target} || status=1" in run for target in ("lint", "docs", "test"))
    # With --quiet, MkDocs 1.6 does not count warnings, and --strict means nothing.
    (build,) = re.findall(r"mkdocs build.*", read("Makefile"))
    assert "--strict" in build and "--quiet" not in build


def test_a_release_is_checked_attested_and_published_without_a_token():
    release = yaml.safe_load(read(".github/workflows/release.yml"))
    jobs = release["jobs"]
    assert jobs["checks"]["uses"] == "./.github/workflows/ci.yml"
    assert {"checks", "build"} <= set(jobs["publish"]["needs"])
    assert jobs["publish"]["permissions"] == {"id-token": "write", "attestations": "write", "contents": "read"}
    used = [step.get("uses", "").partition("@")[0] for step in jobs["publish"]["steps"]]
    assert used.index("actions/attest-build-provenance") < used.index("pypa/gh-action-pypi-publish")
    assert "secrets." not in read(".github/workflows/release.yml")


def test_browser_tests_lie_where_make_looks_for_them():
    mark = re.compile(r"^\s*@?(?:pytestmark = )?pytest\.mark\.browser\b", re.M)
    marked = [file for file in (ROOT / "tests").rglob("*.py") if mark.search(file.read_text(encoding="utf-8"))]
    assert {file.parent.relative_to(ROOT).as_posix() for file in marked} == {"tests/real"}
    assert re.search(r'-m "browser .*" tests/real ', read("Makefile"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_may_read_and_no_more_unless_a_job_says_so(workflow: Path):
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("form", FORMS, ids=lambda file: file.name)
def test_a_form_for_issues_has_what_github_requires(form: Path):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert content["name"] and content["description"]
    asked = [field for field in content["body"] if field["type"] != "markdown"]
    assert asked and all(field["attributes"]["label"] for field in asked)
    identifiers = [field["id"] for field in asked]
    assert len(set(identifiers)) == len(identifiers)


def test_an_issue_without_a_form_is_not_offered():
    assert yaml.safe_load(read(".github/ISSUE_TEMPLATE/config.yml")) == {"blank_issues_enabled": False}


def test_hooks_before_a_commit_run_the_tools_of_make_lint():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    entries = {hook["entry"].split()[0] for hook in repository["hooks"]}
    lint = read("Makefile").partition("\nlint:")[2].partition("\n\n")[0]
    assert entries == {f".venv/bin/{tool}" for tool in re.findall(r"\$\(BIN\)/([\w-]+)", lint)}
