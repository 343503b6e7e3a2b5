"""`wbc-hf store` as a person types it."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.kept_specimens import add_field, fill, new_cell
from tests.postgresql_server import PostgresServer
from wbc_hf import cli
from wbc_hf.errors import WbcError
from wbc_hf.smear import sign
from wbc_hf.store import KeptSpecimen, SpecimenStore


def run(*words: object, typed: str | None = None):
    return CliRunner().invoke(cli.app, ["store", *map(str, words)], input=typed)


@pytest.fixture
def store(tmp_path: Path) -> SpecimenStore:
    return SpecimenStore(tmp_path / "specimens")


@pytest.fixture
def specimen(store: SpecimenStore) -> KeptSpecimen:
    """One of two."""
    specimen = store.begin()
    fill(specimen)
    other = store.begin()
    add_field(other, new_cell())
    other.describe(name="\x1b[31mred")
    return specimen


@pytest.mark.parametrize("command", ["", "list", "show", "remove", "backup", "restore"])
def test_help_teaches(command: str):
    result = CliRunner().invoke(cli.app, ["store", *command.split(), "--help"])
    assert result.exit_code == 0
    assert "wbc-hf store" in result.output or "--store" in result.output


def test_specimens_are_listed_and_found(store: SpecimenStore, specimen: KeptSpecimen):
    listed = run("list", store.name).output
    assert specimen.key in listed and "S 17" in listed and "in review" in listed and "2 of 2 specimens" in listed
    assert "red" in listed and "\x1b" not in listed
    assert "1 of 1 specimens" in run("list", store.name, "--words", "p-1").output


def test_a_specimen_is_shown_with_its_history(store: SpecimenStore, specimen: KeptSpecimen):
    said = run("show", store.name, specimen.key).output
    assert "S 17" in said and "2 pictures, 6 cells" in said
    assert "Ana: reviewed, cell 2: not reviewed → monocyte" in said
    assert "Ben: reviewed, cells 2: monocyte → none of the five; cells 3: not reviewed → basophil" in said


def test_a_specimen_is_removed_once_a_person_says_so(store: SpecimenStore, specimen: KeptSpecimen):
    assert run("remove", store.name, specimen.key, typed="n\n").exit_code == 1
    assert store.find().total == 2
    assert run("remove", store.name, specimen.key, "--yes").exit_code == 0
    assert store.find().total == 1


def test_a_specimen_that_is_signed_while_a_person_thinks_is_not_removed(
    store: SpecimenStore, specimen: KeptSpecimen, monkeypatch: pytest.MonkeyPatch
):
    def sign_first(question: str, abort: bool) -> bool:
        assert "(in review)" in question
        sign(specimen, [], "Dr. Roe")
        return True

    monkeypatch.setattr(typer, "confirm", sign_first)
    result = run("remove", store.name, specimen.key)
    assert isinstance(result.exception, WbcError) and "is signed now" in str(result.exception)
    assert store.find().total == 2


def test_a_backup_is_made_and_restored(store: SpecimenStore, specimen: KeptSpecimen, tmp_path: Path):
    assert "Copied 2 specimens" in run("backup", store.name, tmp_path / "copy").output
    assert "Restored 2 specimens" in run("restore", tmp_path / "copy", tmp_path / "again").output
    assert SpecimenStore(tmp_path / "again").open(specimen.key).history == specimen.history


@pytest.mark.parametrize("words", [["list"], ["show", "key"], ["remove", "key"], ["backup", "to"]])
def test_names_a_folder_that_is_no_store(tmp_path: Path, words: list[str]):
    result = run(words[0], tmp_path / "nothing", *words[1:])
    assert isinstance(result.exception, WbcError) and "is no store" in str(result.exception)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("words", [["list"], ["show", "key"], ["remove", "key"], ["backup", "to"]])
def test_an_empty_database_stays_empty(postgresql: PostgresServer, words: list[str]):
    address, tables = postgresql.new_database(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    result = run(words[0], address, *words[1:])
    assert isinstance(result.exception, WbcError) and "is no store" in str(result.exception)
    assert postgresql.run(tables, address.rpartition("/")[2]) == "0"
