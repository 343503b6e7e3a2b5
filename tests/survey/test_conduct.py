"""`wbc-hf survey` as it is typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from wbc_hf.cli import app
from wbc_hf.errors import WbcError


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, ["survey", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_one_command_makes_table_plot_and_answers(folder_of_cells: Path, tmp_path: Path):
    output = tmp_path / "survey"
    words = (folder_of_cells, "--laboratory", "painted=synthetic:5", "--most", 6, "--output", output)
    result = call(*words, "--system", "tiwari-2018-bayes")
    assert result.exit_code == 0
    assert "[1/1] tiwari-2018-bayes: accuracy test 0." in result.output
    assert (output / "survey.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "tiwari-2018-bayes" / "painted" / "predictions.csv").exists()
    text = (output / "survey.md").read_text(encoding="utf-8")
    assert text.count("naive Bayes") >= 5
    assert "Huang" not in text

    call(*words, "--system", "huang-2012")
    text = (output / "survey.md").read_text(encoding="utf-8")
    assert text.index("Huang") < text.index("naive Bayes"), "tables hold all that is done, in their order"


def test_an_unknown_system_is_told_which_there_are(tmp_path: Path):
    with pytest.raises(WbcError, match=r"--system resnet: is none of huang-2012, .*, ours\."):
        call("synthetic", "--system", "resnet", "--output", tmp_path / "survey")


@pytest.mark.parametrize("given", ["bccd", "=cells", "bccd=", "test=cells", "a b=cells"])
def test_a_laboratory_needs_name_and_set(given: str):
    with pytest.raises(WbcError, match="NAME=SPEC is expected"):
        call("synthetic", "--laboratory", given)


def test_a_set_that_is_not_there_is_said_once(tmp_path: Path):
    with pytest.raises(WbcError, match="there is no such folder"):
        call(tmp_path / "nowhere", "--output", tmp_path / "survey")
    assert not (tmp_path / "survey").exists()


def test_help_says_what_it_does_and_how_to_compare():
    result = call("--help")
    assert "Run the literature's ways" in result.output
    assert "wbc-hf compare" in result.output
