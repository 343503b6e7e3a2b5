"""`wbc-hf` as a person types it: help, predictions in three formats, bad input, comparing and adapting."""

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError
from typer.testing import CliRunner

import train
from tests.adapted_models import make_adapted
from tests.conftest import TinyRun
from tests.tiny_sets import write_set
from wbc_hf import __version__, cli
from wbc_hf.adaptation import AdaptationCell, Laboratories
from wbc_hf.cli.shared import exit_on_error
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import CellCounter, LaboratoryCheck, Origin, Specimen

FORMATS = ("table", "csv", "json")
COMMANDS = ("predict", "count", "audit", "distil", "evaluate", "compare", "push", "export", "adapt", "serve", "survey")
HEAVY = ("numpy", "torch", "transformers", "datasets", "cv2", "sklearn", "scipy", "gradio", "openvino", "matplotlib")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    for index, cell in enumerate(paint_cells([0, 1, 2], size=48, seed=5)):
        Image.fromarray(cell).save(folder / f"{index}.png")
    return folder


def run(*words: object):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(command: str):
    result = run(command, "--help")
    assert result.exit_code == 0
    function = getattr(getattr(cli, command), command)
    assert function.__doc__.split("\n")[0][:40] in result.output


def test_help_lists_the_commands():
    assert all(command in run("--help").output for command in (*COMMANDS, "laboratories", "train"))


def test_version():
    assert run("--version").output == f"{__version__}\n"


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom wbc_hf.cli import main\n"
        "for words in sys.argv[1:]:\n    sys.argv = ['wbc-hf', *words.split(), '--help']\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    words = [sys.executable, "-c", program, *COMMANDS, "laboratories list"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_train_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch):
    passed: list[list[str]] = []
    monkeypatch.setattr(cli.train, "run_training", passed.append)
    words = ["configs/a.yaml", "--output_dir", "x", "--learning_rate=1e-3", "-h", "--help"]
    assert run("train", *words).exit_code == 0
    assert passed == [words]


def test_train_lists_its_arguments(capsys: pytest.CaptureFixture):
    assert "--output_dir" in run("train", "--help").output


def test_json_csv_and_table_give_the_answers_of_the_predictor(cells: Path, tiny_run: TinyRun):
    files = sorted(cells.iterdir())
    expected = Predictor.from_pretrained(tiny_run.folder).predict(files)
    as_json = json.loads(run("predict", cells, "--model", tiny_run.folder, "--format", "json").stdout)
    as_csv = list(
        csv.DictReader(io.StringIO(run("predict", cells, "--model", tiny_run.folder, "--format", "csv").stdout))
    )
    table = run("predict", cells, "--model", tiny_run.folder).stdout.splitlines()[1:]
    for file, answer, row, other, line in zip(files, expected, as_json, as_csv, table, strict=True):
        assert (row["file"], row["label"], row["status"]) == (str(file), answer.label, answer.status)
        assert row["probability"] == pytest.approx(answer.probability, abs=1e-6)
        assert sum(row[name] for name in CLASS_NAMES) == pytest.approx(1, abs=1e-5)
        assert (other["file"], other["label"]) == (str(file), answer.label)
        assert line.split() == [answer.label, f"{answer.probability:.3f}", answer.status, str(file)]


def test_a_broken_file_is_named_and_the_others_are_answered(cells: Path, tiny_run: TinyRun):
    (cells / "1.png").write_text("no picture")
    result = run("predict", cells, "--model", tiny_run.folder, "--format", "json")
    assert result.exit_code == 1
    assert [Path(row["file"]).name for row in json.loads(result.stdout)] == ["0.png", "2.png"]
    assert "1.png: is not a picture in a known format" in result.stderr
    assert "1 of 3 files are not readable images." in result.stderr


def test_line_breaks_and_escape_codes_in_names_are_spelt_out(cells: Path, tiny_run: TinyRun):
    (cells / "0.png").rename(cells / "0\n\x1b[31m.png")
    (cells / "9\n.png").write_text("no picture")
    result = run("predict", cells, "--model", tiny_run.folder)
    assert "0\\n\\x1b[31m.png" in result.stdout
    assert "9\\n.png: is not a picture" in result.stderr


def test_no_format_lets_a_name_through_that_drives_a_terminal_or_a_spreadsheet(
    cells: Path, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(cells)
    names = ["=1+1\x1b[2J.png", "-x;@y\x9b.png", os.fsdecode(b"+\xff.png")]
    for index, name in enumerate(names):
        Path(f"{index}.png").rename(name)
    written = {form: run("predict", "--model", tiny_run.folder, "--format", form, "--", *names) for form in FORMATS}
    assert {result.exit_code for result in written.values()} == {0}
    assert not any(letter in result.output for result in written.values() for letter in "\x1b\x9b\udcff")
    rows = csv.DictReader(io.StringIO(written["csv"].stdout))
    assert [row["file"] for row in rows] == [r"'=1+1\x1b[2J.png", r"'-x;'@y\x9b.png", r"'+\xff.png"]
    assert [row["file"] for row in json.loads(written["json"].stdout)] == [*names[:2], r"+\xff.png"]


@pytest.mark.long
def test_an_output_holds_every_picture_and_says_which_are_unreadable(cells: Path, tiny_run: TinyRun, tmp_path: Path):
    (cells / "1.png").write_text("no picture")
    output = tmp_path / "answers"
    result = run("predict", cells, "--model", tiny_run.folder, "--output", output, "--format", "csv")
    assert result.exit_code == 1
    assert result.stdout == f"3 images classified: {output}\n"
    assert "1 of 3 are not readable images; their rows say why." in result.stderr
    rows = list(csv.DictReader((output / "predictions.csv").open(newline="", encoding="utf-8")))
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert [row["status"] == "unreadable" for row in rows] == [False, True, False]
    assert rows[1]["reason"].startswith("is not a picture in a known format")


@pytest.mark.parametrize("job", ["predict", "count"])
def test_a_stopped_job_says_how_it_goes_on(
    cells: Path, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
):
    def press_ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wbc_hf.inference.bulk.ray_session", press_ctrl_c)
    monkeypatch.setattr("wbc_hf.smear.archive.ray_session", press_ctrl_c)
    result = run(job, cells, "--model", tiny_run.folder, "--output", tmp_path / "answers")
    assert result.exit_code == 130
    assert "wbc-hf: stopped. Finished results are kept: the same command resumes there.\n" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predict --format json --output out", "--format json: is for the terminal. --output out gets Parquet"),
        (
            "predict --output out.parquet",
            "--output out.parquet: results are written to a folder. Name one, such",
        ),
        ("predict --address auto", "--address auto: is for very many images. Name a folder for them with --output."),
        ("count --address auto", "--address auto: is for an archive. Name a folder for it with --output."),
        ("count --output out --adapt", "--adapt: is for one smear; --output out is a folder, for an archive."),
        ("count --output folder --format csv", "--format csv: is for one smear. An archive is written to folder as"),
    ],
)
def test_what_bulk_jobs_cannot_do_is_named(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    command, *options = words.split()
    assert message in str(run(command, cells, *options).exception)


def test_a_folder_without_pictures_is_named(tmp_path: Path):
    with pytest.raises(WbcError, match="no pictures in this folder"):
        list(cli.find_files([tmp_path]))


def test_errors_are_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["wbc-hf", "predict", "x.png", "--model", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"wbc-hf: {tmp_path}: has no config.json, so it is not the folder of a model. "
        "Pass the folder that training wrote.\n"
    )


class FullError(OSError):
    def __init__(self):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FullError(), "there is no room left to write to. Make room, and start again."),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 8"), "there is no room left"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "there is no room left to write to."),
        (PermissionError(errno.EACCES, "Permission denied", "/a\nb"), "/a\\nb: Permission denied. Change its"),
    ],
)
def test_what_the_disk_refuses_is_one_line(error: Exception, said: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped, exit_on_error("wbc-hf"):
        raise error
    assert stopped.value.code == 2
    captured = capsys.readouterr().err
    assert captured.startswith(f"wbc-hf: {said}")
    assert captured.count("\n") == 1


def test_other_errors_are_not_hidden():
    with pytest.raises(RuntimeError, match="shape"), exit_on_error("wbc-hf"):
        raise RuntimeError("shape")


def test_a_full_disk_while_training_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def fill(*arguments: object) -> None:
        raise FullError

    monkeypatch.setattr("wbc_hf.training.run", fill)
    with pytest.raises(SystemExit) as stopped:
        train.main([])
    assert stopped.value.code == 2
    assert "there is no room left to write to. Checkpoints that are whole stay so" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "wbc_hf.cli", "--version"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "wbc-hf: there is no room left to write to. Make room, and start again.\n",
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_console_of_any_encoding_prints_what_it_can(encoding: str):
    code = "from wbc_hf.cli.shared import exit_on_error\nwith exit_on_error('x'): print('µ – 95 %')"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    printed = {"ascii": b"\\xb5 \\u2013 95 %", "latin-1": b"\xb5 \\u2013 95 %", "utf-8": "µ – 95 %".encode()}[encoding]
    assert done.stdout.rstrip() == printed


def test_what_is_no_picture_in_a_folder_is_named_and_counted(cells: Path, tiny_run: TinyRun):
    (cells / "smear.svs").touch()
    (cells / "clip.mp4").touch()
    (cells / "gone.png").symlink_to(cells / "nowhere.png")
    (cells / "labels.csv").touch()
    result = run("predict", cells, "--model", tiny_run.folder)
    assert result.exit_code == 1
    for said in (
        "smear.svs: is a whole-slide image",
        "clip.mp4: is a video",
        "gone.png: is a link to a file that is not",
    ):
        assert said in result.stderr
    assert "3 of 6 files are not readable images." in result.stderr


def test_ports_that_are_none():
    result = run("serve", "--port", 99999)
    assert result.exit_code == 2
    assert "less than or equal to 65535" in " ".join(result.stderr.split())


@pytest.mark.parametrize("words", [["audit", "cells"], ["evaluate", "model", "cells"], ["survey", "cells"]])
def test_an_output_that_is_a_file_is_named_before_anything_is_read(words: list[str], tmp_path: Path):
    (tmp_path / "file").touch()
    error = run(*words, "--output", tmp_path / "file").exception
    assert str(error) == f"{tmp_path}/file: cannot be made a folder (File exists). Give another --output."


def test_other_classes_are_left_out_where_that_is_asked_for(tmp_path: Path):
    write_set(tmp_path / "set", {"eos": 3, "mono": 3, "platelet": 2})
    assert "Rename or remove what is unknown" in str(run("audit", tmp_path / "set").exception)
    result = run("audit", tmp_path / "set", "--other-classes", "leave_out")
    assert result.exit_code == 0
    assert "never predicts it: basophil, lymphocyte, neutrophil" in result.stdout


# ---- counting


@pytest.fixture
def smear(tmp_path: Path) -> Path:
    """Two painted fields, one of them twice, and a text that calls itself a picture."""
    folder = tmp_path / "smear"
    folder.mkdir()
    for name, seed in (("1.png", 1), ("2.png", 2), ("3.png", 2)):
        Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=seed).image).save(folder / name)
    (folder / "4.png").write_text("no picture")
    return folder


def test_counting_gives_the_cells_of_a_cell_counter(smear: Path, tiny_run: TinyRun):
    specimen = Specimen()
    counter = CellCounter(Predictor.from_pretrained(tiny_run.folder), specimen)
    for name in ("1.png", "2.png", "3.png"):
        counter.add_image(Image.open(smear / name), name, whole_field=True)

    words = ["count", smear, "--model", tiny_run.folder, "--specimen", "S 1", "--leucocyte-count", 6.4]
    result = run(*words, "--format", "json")

    assert result.exit_code == 1
    assert "4.png: is not a picture" in result.stderr
    document = json.loads(result.stdout)
    assert [(cell["picture"], cell["box"], cell["state"]) for cell in document["cells"]] == [
        (cell.picture, list(cell.box), cell.state) for cell in specimen.cells
    ]
    assert {cell["state"] for cell in document["cells"] if cell["picture"] == 3} == {"duplicate"}
    assert (document["specimen"], document["differential"]["leucocytes"]) == ("S 1", 6.4)


def test_a_differential_in_the_terminal(smear: Path, tiny_run: TinyRun, tmp_path: Path):
    (smear / "4.png").unlink()
    (tmp_path / "ranges.yaml").write_text("source: our own\nbasophil: [0, 2]\n")
    words = ["count", smear, "--model", tiny_run.folder, "--ranges", tmp_path / "ranges.yaml"]
    result = run(*words)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == list(CLASS_NAMES)
    assert "0 to 2" in lines[1]
    assert "Not counted again, seen before:" in result.stdout
    assert "Reference ranges: our own; other classes: adults, MedlinePlus 003657." in result.stdout
    assert "not for diagnosis" in result.stdout


@pytest.mark.parametrize(("form", "start"), [("pdf", b"%PDF"), ("csv", b"\xef\xbb\xbfnumber,"), ("fhir", b"{")])
def test_a_differential_as_a_file(smear: Path, tiny_run: TinyRun, tmp_path: Path, form: str, start: bytes):
    (smear / "4.png").unlink()
    file = tmp_path / f"out.{form}"
    assert run("count", smear, "--model", tiny_run.folder, "--format", form, "--output", file).exit_code == 0
    assert file.read_bytes().startswith(start)


def test_a_differential_that_cannot_be_written_leaves_the_one_before(
    smear: Path, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "out.csv").write_text("before")

    def fill_the_disk(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill_the_disk)
    words = ["count", smear, "--model", tiny_run.folder, "--format", "csv", "--output", tmp_path / "out.csv"]
    assert "out.csv: cannot be written (No space left on device)" in str(run(*words).exception)
    assert (tmp_path / "out.csv").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"smear", "out.csv"}


def test_a_pipe_is_written_to_and_not_replaced(smear: Path, tiny_run: TinyRun, tmp_path: Path):
    (smear / "4.png").unlink()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    words = ["count", smear, "--model", tiny_run.folder, "--format", "csv", "--output", pipe]
    assert run(*words).exit_code == 0
    assert pipe.is_fifo() and os.read(reader, 10).startswith(b"\xef\xbb\xbfnumber")
    os.close(reader)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "pdf"], "--format pdf: is not for a terminal"),
        (["--output", "nowhere/out.json"], "nowhere/out.json: its folder does not exist"),
        (["--leucocyte-count", "6500"], "6500: a total leucocyte count"),
        (["--ranges", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_counted_with_is_named(smear: Path, tiny_run: TinyRun, words: list[str], message: str):
    result = run("count", smear, "--model", tiny_run.folder, *words)
    assert isinstance(result.exception, WbcError)
    assert message in str(result.exception)


def test_a_run_compared_with_itself_is_neither_better_nor_worse(tiny_run: TinyRun, tmp_path: Path):
    shutil.copytree(tiny_run.folder, tmp_path / "copy")
    result = run("compare", tiny_run.folder, tmp_path / "copy")
    assert result.exit_code == 0
    assert "accuracy" in result.output
    assert "0.000" in result.output


# ---- evaluating


def _words_and_numbers(file: Path) -> tuple[list[str], list[float]]:
    """Of a JSON or CSV file, what stands between its numbers, and those."""
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    text = file.read_text()
    return re.split(number, text), [float(found) for found in re.findall(number, text)]


def test_evaluating_a_run_on_its_own_test_split_gives_its_metrics(
    folder_of_cells: Path, tiny_run: TinyRun, tmp_path: Path
):
    result = run("evaluate", tiny_run.folder, folder_of_cells, "--output", tmp_path / "new" / "report")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].split() == ["10", "images", "95", "%", "CI"]
    folder = tmp_path / "new" / "report"
    assert result.stdout.endswith(f"The report is in {folder}: open {folder / 'report.html'}\n")
    # Batches of another size may round the last digit otherwise.
    for name in ("metrics.json", "predictions.csv"):
        words, numbers = _words_and_numbers(tmp_path / "new" / "report" / name)
        known_words, known_numbers = _words_and_numbers(tiny_run.folder / name)
        assert words == known_words
        assert numbers == pytest.approx(known_numbers, rel=1e-4, abs=1e-6)
    assert run("compare", tiny_run.folder, tmp_path / "new" / "report").exit_code == 0


def test_two_models_are_compared_on_the_same_images(folder_of_cells: Path, tiny_run: TinyRun, tmp_path: Path):
    words = ["evaluate", tiny_run.folder, folder_of_cells, "--compare", DEFAULT_MODEL_FOLDER, "--output", tmp_path]
    result = run(*words)
    assert result.exit_code == 0
    assert f"First {tiny_run.folder}, second {DEFAULT_MODEL_FOLDER}:\n10 images of 10 distinct cells" in result.stdout
    compared = json.loads((tmp_path / "metrics.json").read_text())["comparison"]
    assert compared["model"] == "starter"
    accuracy = compared["figures"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(accuracy["first"] - accuracy["second"])
    assert "Compared with starter" in (tmp_path / "report.html").read_text()
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["model"] == tiny_run.folder.name
    assert record["data"] | {"fingerprint": ""} == {
        "spec": str(folder_of_cells),
        "split": "test",
        "seed": 0,
        "fingerprint": "",
    }
    assert record["samples_per_second"] == pytest.approx(10 / record["total_time_in_seconds"], rel=0.1)


def test_evaluating_on_training_images_warns(
    folder_of_cells: Path, tiny_run: TinyRun, caplog: pytest.LogCaptureFixture
):
    every = run("evaluate", tiny_run.folder, folder_of_cells, "--split", "all").stdout
    assert "60 images" in every
    assert "was trained on images of this set; only --split test tells" in caplog.text
    caplog.clear()
    run("evaluate", tiny_run.folder, folder_of_cells, "--seed", 1)
    assert "was trained on images of this set, in other splits" in caplog.text


@pytest.mark.parametrize("record", ["{", "[]", '{"data": 5}', '{"data": {"spec": "cells", "fingerprint": 5}}'])
def test_a_damaged_record_of_a_training_is_named(
    folder_of_cells: Path, tiny_run: TinyRun, tmp_path: Path, record: str
):
    model = shutil.copytree(tiny_run.folder, tmp_path / "model")
    (model / "run.json").write_text(record)
    error = run("evaluate", model, folder_of_cells).exception
    assert isinstance(error, WbcError)
    assert str(error).startswith(f"{model / 'run.json'}: ")
    assert str(error).endswith("Mend it, or remove it.")


def test_evaluating_a_model_without_calibration_on_painted_cells(tiny_run: TinyRun, tmp_path: Path):
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        shutil.copy(tiny_run.folder / name, tmp_path / name)
    result = run("evaluate", tmp_path, "synthetic:20", "--split", "validation")
    assert "15 images" in result.stdout
    assert "review" not in result.stdout and "temperature" not in result.stdout


def test_what_cannot_be_evaluated_is_named(folder_of_cells: Path, tiny_run: TinyRun, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for words, message in (
        ((tiny_run.folder, "./nowhere"), "nowhere"),
        (("./nowhere", folder_of_cells), "nowhere"),
        ((tiny_run.folder, folder_of_cells, "--output", tiny_run.folder), "holds a model, whose own report"),
        ((tiny_run.folder, folder_of_cells, "--output", tmp_path / "file"), "cannot be made a folder (File exists)"),
    ):
        result = run("evaluate", *words)
        assert isinstance(result.exception, WbcError)
        assert message in str(result.exception)
    result = run("evaluate", tiny_run.folder, folder_of_cells, "--split", "every")
    assert result.exit_code == 2
    assert "'every' is not one of" in result.output


# ---- adapting


def test_adapting_writes_a_model_beside_the_one_before_and_tells_what_changed(tiny_run: TinyRun, tmp_path: Path):
    model, images = tmp_path / "model", tmp_path / "images"
    shutil.copytree(tiny_run.folder, model)
    images.mkdir()
    for index, cell in enumerate(paint_cells([index % 5 for index in range(200)], size=48, seed=6)):
        Image.fromarray(cell).save(images / f"{index:03d}.png")
    (images / "broken.png").write_text("no picture")

    result = run("adapt", model, "--images", images)

    assert result.exit_code == 1
    assert "Left out" in result.stderr and "broken.png: is not a picture" in result.stderr
    assert "1 of 201 files are not readable images." in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "model: adapted to 200 cells, without labels"
    assert lines[1].split() == ["on", "200", "cells", "before", "after"]
    assert lines[-1] == f"The adapted model: {tmp_path / 'model-adapted'}"
    (answer,) = Predictor.from_pretrained(tmp_path / "model-adapted").predict([images / "000.png"])
    assert answer.label in CLASS_NAMES
    assert "exists already" in str(run("adapt", model, "--images", images).exception)


@pytest.mark.usefixtures("brief_adaptation")
def test_adapting_to_class_folders_with_an_output_of_ones_own(tiny_run: TinyRun, tmp_path: Path):
    for index, cell in enumerate(paint_cells([0, 0, 1, 1], size=48, seed=7)):
        folder = tmp_path / "images" / CLASS_NAMES[index // 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell).save(folder / f"{index}.png")
    output = tmp_path / "deep" / "ours"
    result = run("adapt", tiny_run.folder, "--images", tmp_path / "images", "--output", output, "--seed", 3)
    assert result.exit_code == 0
    assert "recall of eosinophil" in result.stdout
    record = json.loads((output / "adaptation.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["held_back"], record["folds"]) == (3, 4, 2)


@pytest.mark.parametrize(
    ("model", "expected"), [("runs/cells/", "runs/cells-adapted"), ("owner/name", "name-adapted")]
)
def test_where_an_adapted_model_goes_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, expected: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "cells").mkdir(parents=True)
    assert (tmp_path / expected) == cli.adapt._default_output(model).absolute()


def test_counting_goes_on_where_there_are_too_few_cells_to_adapt_to(tiny_run: TinyRun, tmp_path: Path):
    """What was counted is written all the same, and nothing is kept."""
    Image.fromarray(paint_cells([2], size=48, seed=6)[0]).save(tmp_path / "cell.png")
    options = ["--model", tiny_run.folder, "--show", "cell", "--adapt", "--laboratory", "Ward 3"]
    result = run("count", tmp_path / "cell.png", *options, "--laboratories", tmp_path / "kept")
    assert result.exit_code == 1
    assert "Too few cells: 1, of which are reviewed: none" in result.stderr and "at least 20 cells" in result.stderr
    assert "lymphocyte" in result.stdout
    assert not (tmp_path / "kept").exists()


def test_counting_adapts_to_kept_cells_however_the_laboratory_is_spelt(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base, store = Predictor.from_pretrained(tiny_run.folder, "torch"), Laboratories(tmp_path / "kept")
    adapted = make_adapted(base, tmp_path / "adapted")
    store.keep("Ward 3", base, adapted.folder, adapted.adaptation, keep_cells=True)
    painted = paint_cells([2, 4] * 3, size=48, seed=9)
    store.add_cells("Ward 3", _two_classes(painted))
    Image.fromarray(paint_cells([2], size=48, seed=6)[0]).save(tmp_path / "cell.png")
    given = []

    def take(model, cells, output, **_):
        given.extend(cells)
        raise WbcError("enough")

    monkeypatch.setattr("wbc_hf.adaptation.adapt", take)
    options = ["--model", tiny_run.folder, "--show", "cell", "--adapt", "--laboratories", tmp_path / "kept"]
    result = run("count", tmp_path / "cell.png", *options, "--laboratory", "ward  3")
    assert "enough" in result.stderr and result.exit_code == 1
    assert len(given) == 7 and sum(cell.label is not None for cell in given) == 6

    mixed = LaboratoryCheck(Origin.MIXED, 12, 1.0)
    monkeypatch.setattr("wbc_hf.smear.check_laboratory", lambda *_: mixed)
    result = run("count", tmp_path / "cell.png", *options, "--laboratory", "Ward 3")
    assert "those of one laboratory at a time" in result.stderr and "enough" not in result.stderr
    assert result.exit_code == 1 and "lymphocyte" in result.stdout
    assert store.show("Ward 3").revision == 1


def _two_classes(painted: Sequence[np.ndarray]) -> list[AdaptationCell]:
    """Lymphocytes and neutrophils in turn, each of a photograph of its own."""
    return [AdaptationCell(Image.fromarray(it), (2, 4)[index % 2], f"{index}") for index, it in enumerate(painted)]


@pytest.mark.parametrize(
    ("pictures", "said"), [(6, "--adapt adapts the model to them, with 6 reviewed cells"), (0, "to 20 cells or more")]
)
def test_what_adapting_would_use_is_said(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: int, said: str
):
    base, store = Predictor.from_pretrained(tiny_run.folder, "torch"), Laboratories(tmp_path / "kept")
    adapted = make_adapted(base, tmp_path / "adapted")
    store.keep("Ward 3", base, adapted.folder, adapted.adaptation, keep_cells=True)
    painted = paint_cells([2, 4] * 3, size=48, seed=9)[:pictures]
    store.add_cells("Ward 3", _two_classes(painted))
    Image.fromarray(paint_cells([2], size=48, seed=6)[0]).save(tmp_path / "cell.png")
    monkeypatch.setattr("wbc_hf.smear.check_laboratory", lambda *_: LaboratoryCheck(Origin.ANOTHER, 12, 3.0))
    options = ["--model", tiny_run.folder, "--show", "cell", "--laboratories", tmp_path / "kept"]
    result = run("count", tmp_path / "cell.png", *options, "--laboratory", "Ward 3")
    assert result.exit_code == 0 and said in result.stderr


def test_counting_reads_zip_files_and_pages_and_finds_out_what_images_show(tiny_run: TinyRun, tmp_path: Path):
    first, second = (Image.fromarray(paint_field([0, 4], width=480, height=360, seed=seed).image) for seed in (1, 2))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    cell = Image.fromarray(paint_cells([4], size=128, seed=4)[0])
    cell.save(tmp_path / "cell.png")
    with zipfile.ZipFile(tmp_path / "smear.zip", "w") as archive:
        archive.write(tmp_path / "stack.tif", "stack.tif")
        archive.write(tmp_path / "cell.png", "cell.png")
    options = ["--model", tiny_run.folder]
    result = run("count", tmp_path / "smear.zip", *options, "--format", "json")
    names = [picture["name"] for picture in json.loads(result.stdout)["pictures"]]
    assert names == ["cell.png", "stack.tif", "stack.tif, page 2"]
    assert "1 of 3 images were read as pictures of one cell, the others as fields" in result.stderr

    result = run("count", tmp_path / "cell.png", *options, "--show", "field")
    assert "1 of 1 images look as if they showed one cell each: --show cell reads them so" in result.stderr
    result = run("predict", tmp_path / "stack.tif", *options)
    assert "stack.tif: only the first picture in it is classified, 1 more are left out" in result.stderr
