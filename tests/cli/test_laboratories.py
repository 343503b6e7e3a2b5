"""`wbc-hf laboratories` as a person types it."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.adapted_models import AdaptedModel, make_adapted
from tests.conftest import TinyRun
from wbc_hf import cli
from wbc_hf.adaptation import AdaptationCell, Laboratories
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor

NAME = "Raabin 2026 / MGG"


@pytest.fixture(scope="module")
def model(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    base = Predictor.from_pretrained(tiny_run.folder, "torch")
    return make_adapted(base, tmp_path_factory.mktemp("adapted") / "model")


@pytest.fixture
def store(tmp_path: Path, model: AdaptedModel) -> Laboratories:
    """Two laboratories, one of them with six pictures and a lamp that was changed."""
    store = Laboratories(tmp_path / "laboratories")
    store.keep(NAME, model.base, model.folder, model.adaptation, keep_cells=True)
    store.keep("BCCD", model.base, model.folder, model.adaptation)
    images = [Image.fromarray(cell) for cell in paint_cells([0, 1, 2, 3, 4, 4], size=48, seed=8)]
    store.add_cells(NAME, [AdaptationCell(image, min(index, 4), "one") for index, image in enumerate(images)])
    for unlike in (False, True, True):
        store.record_count(NAME, 100, 0.5, unlike)
    return store


def run(store: Laboratories, *words: str, typed: str | None = None):
    return CliRunner().invoke(cli.app, ["laboratories", *words, "--folder", str(store.folder)], input=typed)


@pytest.mark.parametrize("command", ["", "list", "show", "remove"])
def test_help_says_what_a_command_does(command: str):
    result = CliRunner().invoke(cli.app, ["laboratories", *command.split(), "--help"])
    assert result.exit_code == 0
    assert "laborator" in result.output
    assert ("WBC_HF_LABORATORIES" in result.output) == bool(command)


def test_laboratories_are_listed(store: Laboratories):
    result = run(store, "list")
    assert result.exit_code == 0
    heading, first, second = result.output.splitlines()
    assert " ".join(heading.split()) == "laboratory model adapted cells counted unlike since pictures size"
    today, began = store.show(NAME).changed[:10], (store.show(NAME).drift() or "")[:10]
    assert " ".join(first.split()[:-2]) == f"BCCD tiny {today} 20 0 – 0"
    assert " ".join(second.split()[:-2]) == f"{NAME} tiny {today} 20 3 {began} 6"
    assert second.endswith(" MB")


def test_an_empty_store_says_where_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert (
        run(Laboratories(tmp_path / "none"), "list").output == f"No laboratory is kept in {tmp_path / 'none'} yet.\n"
    )
    monkeypatch.setenv("WBC_HF_LABORATORIES", str(tmp_path / "other"))
    assert str(tmp_path / "other") in CliRunner().invoke(cli.app, ["laboratories", "list"]).output


def test_a_laboratory_is_shown(store: Laboratories, model: AdaptedModel):
    result = run(store, "show", NAME.lower())
    assert result.exit_code == 0
    lines = [line.strip() for line in result.output.splitlines()]
    assert lines[0] == NAME
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines[1:11]}
    assert facts["base model"] == f"tiny, version {model.base.identity.version}"
    assert facts["adapted model"].startswith(f"version {model.version}, wbc_hf ")
    assert facts["learned from"] == "18 cells with labels, 2 without"
    assert facts["counted"].startswith("3 specimens, last 20")
    assert facts["unlike since"] == store.show(NAME).drift()[:16].replace("T", " ") + " UTC"
    assert facts["pictures"] == "basophil 1, eosinophil 1, lymphocyte 1, monocyte 1, neutrophil 2"
    assert facts["folder"] == str(store.folder)
    assert "balanced accuracy" in result.output
    assert result.output.endswith("Research use, not for diagnosis.\n")
    assert "not kept" in run(store, "show", "bccd").output


def test_removing_asks_first(store: Laboratories):
    result = run(store, "remove", NAME, typed="n\n")
    assert result.exit_code == 1
    assert "and 6 pictures of reviewed cells of Raabin 2026 / MGG? [y/N]" in result.output
    assert store.names() == ("BCCD", NAME)
    assert run(store, "remove", NAME, typed="y\n").exit_code == 0
    assert store.names() == ("BCCD",)
    assert run(store, "remove", "bccd", "--yes").exit_code == 0
    assert store.names() == ()


def test_removing_the_pictures_alone(store: Laboratories):
    result = run(store, "remove", NAME, "--cells-only", "--yes")
    assert result.output == f"Removed 6 pictures of reviewed cells of {NAME}.\n"
    assert store.names() == ("BCCD", NAME) and store.cells(NAME) == ()
    assert not store.show(NAME).keep_cells


@pytest.mark.parametrize(
    "words", [("show", "other"), ("remove", "other", "--yes"), ("remove", "other", "--cells-only")]
)
def test_what_is_not_there_is_named(store: Laboratories, words: tuple[str, ...]):
    result = run(store, *words)
    assert isinstance(result.exception, WbcError)
    assert "other: no laboratory of this name" in str(result.exception)
    assert f"There are: BCCD, {NAME}." in str(result.exception)
