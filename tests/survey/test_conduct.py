"""`wbc-hf survey` as it is typed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from wbc_hf.cli import app
from wbc_hf.data import paint_field
from wbc_hf.errors import WbcError


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, ["survey", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.long
def test_one_command_makes_table_plot_and_answers(folder_of_cells: Path, tmp_path: Path):
    output = tmp_path / "survey"
    words = (folder_of_cells, "--laboratory", "painted=synthetic:5", "--most", 6, "--output", output)
    result = call(*words, "--system", "tiwari-2018-bayes")
    assert result.exit_code == 0
    assert "[1/1] After Tiwari et al. 2018, naive Bayes" in result.output
    assert "tiwari-2018-bayes: accuracy test " in result.output
    assert (output / "survey.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "tiwari-2018-bayes" / "painted" / "predictions.csv").exists()
    text = (output / "survey.md").read_text(encoding="utf-8")
    assert text.count("naive Bayes") >= 5
    assert "Huang" not in text


@pytest.mark.long
def test_detectors_are_scored_once_and_a_failure_is_reported(folder_of_cells: Path, tmp_path: Path):
    output, fields = tmp_path / "survey", tmp_path / "fields"
    (fields / "images").mkdir(parents=True)
    (fields / "annotations").mkdir()
    for seed in range(4):
        painted = paint_field(range(5), seed=seed)
        Image.fromarray(painted.image).save(fields / "images" / f"{seed}.png")
        boxes = "".join(
            f"<object><name>WBC</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            "</bndbox></object>"
            for x0, y0, x1, y1 in painted.boxes.tolist()
        )
        (fields / "annotations" / f"{seed}.xml").write_text(f"<annotation>{boxes}</annotation>")
    words = (folder_of_cells, "--system", "tiwari-2018-bayes", "--system", "huang-2012", "--output", output)
    call(folder_of_cells, "--system", "tiwari-2018-bayes", "--fields", fields, "--output", output)
    scored = (output / "detectors.json").stat().st_mtime_ns
    (output / "huang-2012").write_text("a file where its folder should be")
    result = call(*words, "--fields", fields)
    assert result.exit_code == 1
    assert "failed: huang-2012. The others are done" in result.output
    assert (output / "detectors.json").stat().st_mtime_ns == scored
    assert "Ours: the page's cell finder" in (output / "survey.md").read_text(encoding="utf-8")


def test_a_set_without_a_class_is_refused(folder_of_cells: Path, tmp_path: Path):
    four = tmp_path / "four"
    shutil.copytree(folder_of_cells, four, ignore=shutil.ignore_patterns("basophil"))
    with pytest.raises(WbcError, match="has no basophil to train on; a survey needs all five"):
        call(four, "--output", tmp_path / "survey")


def test_the_training_cells_are_no_other_laboratory(folder_of_cells: Path, tmp_path: Path):
    with pytest.raises(WbcError, match="--laboratory same: holds the training cells"):
        call(folder_of_cells, "--laboratory", f"same={folder_of_cells}", "--output", tmp_path / "survey")


def test_a_set_that_is_not_there_is_said_before_anything_is_run(tmp_path: Path):
    with pytest.raises(WbcError, match="there is no such folder"):
        call(tmp_path / "nowhere", "--output", tmp_path / "survey")
    assert not (tmp_path / "survey").exists()


def test_help_says_what_it_does_and_how_to_compare():
    result = call("--help")
    assert "Run the literature's systems" in result.output
    assert "wbc-hf compare" in result.output
