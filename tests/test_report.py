import csv
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.test_evaluation import calibration, four_cells, full
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import EvaluatedSet, EvaluationRecord, compare_predictions, evaluate, read_record
from wbc_hf.evaluation.report import write_report
from wbc_hf.evaluation.summary import format_metrics
from wbc_hf.labels import CLASS_NAMES


def image(_: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (32, 32), "#c080c0")


NAMES = ["=a.png;@b\n.png", 'odd, "quoted".png', "not in UTF-8 \udcff.png", "d.png"]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "new" / "report"
    evaluation = four_cells(groups=[f"cell {number}" for number in range(1, 5)])
    history = [{"loss": 1.0, "learning_rate": 1e-3, "epoch": 1.0}]
    write_report(folder, evaluation, names=NAMES, image_at=image, log_history=history)
    return folder, evaluation.metrics


def test_report_writes_every_file(report):
    folder, metrics = report

    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "figures/confusion_matrix.png",
        "figures/misclassified.png",
        "figures/training_curves.png",
        "metrics.json",
        "predictions.csv",
        "report.html",
    ]
    assert metrics["accuracy"] == 0.75
    assert metrics["roc_auc"] is not None
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    for figure in (folder / "figures").iterdir():
        with PIL.Image.open(figure) as opened:
            assert opened.format == "PNG" and min(opened.size) > 200


def test_predictions_hold_a_row_per_cell(report):
    with (report[0] / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [r"'=a.png;'@b\n.png", NAMES[1], r"not in UTF-8 \xff.png", "d.png"]
    assert list(rows[0]) == [
        "name",
        "true",
        "given",
        "probability",
        *(f"probability_{name}" for name in CLASS_NAMES),
        "group",
    ]
    assert len(rows) == 4
    mistake = rows[1]
    assert (mistake["name"], mistake["true"], mistake["given"]) == ('odd, "quoted".png', "basophil", "eosinophil")
    assert mistake["probability"] == mistake["probability_eosinophil"] == "0.800000"
    assert mistake["probability_neutrophil"] == "0.050000"
    assert mistake["group"] == "cell 2"


def test_only_images_of_shown_mistakes_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("wbc_hf.evaluation.figures.GALLERY_SIZE", 2)
    confidence = np.array([0.6, 0.9, 0.7, 0.95])
    probabilities = np.column_stack([confidence, 1 - confidence, *np.zeros((3, 4))])
    asked = []

    def image_at(index: int) -> PIL.Image.Image:
        asked.append(index)
        return image(index)

    # The last, most confident of all, is right.
    write_report(tmp_path, evaluate([1, 1, 1, 0], probabilities), names=list("abcd"), image_at=image_at)
    assert asked == [1, 2]


def test_report_needs_a_name_per_image(tmp_path):
    with pytest.raises(WbcError, match="names: 1 for 4 images: give one per image"):
        write_report(tmp_path, four_cells(), names=["a.png"], image_at=image)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def full_report(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("full")
    evaluation = evaluate(**full())
    write_report(folder, evaluation, names=[f"{index}.png" for index in range(300)], image_at=image)
    return folder, evaluation.metrics


def test_full_report_goes_into_json_and_figures(full_report):
    folder, metrics = full_report
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        "confusion_matrix",
        "misclassified",
        "reliability",
        "risk_coverage",
    }
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["group", "status"]
    assert {row["status"] for row in rows} == {"confident", "review"}
    assert rows[7]["group"] == "cell 3"


def test_nothing_but_leaks_as_text():
    text = format_metrics(four_cells(leaked=np.ones(4, dtype=bool)).metrics)
    assert "4 of the images show cells that were also in training or validation: none is left" in text


def test_nothing_accepted(tmp_path):
    evaluation = four_cells(statuses=["review"] * 4, calibration=calibration(0.99))
    write_report(tmp_path, evaluation, names=NAMES, image_at=image)
    assert (tmp_path / "figures" / "risk_coverage.png").exists()
    assert re.search(r"^accuracy of accepted +– +–$", format_metrics(evaluation.metrics), re.MULTILINE)


def test_a_class_of_few_cells_is_marked_however_many_images_it_has(full_report):
    metrics = full_report[1]
    assert metrics["per_class"]["monocyte"]["support"] > 20
    few = metrics | {"distinct_cells": metrics["distinct_cells"] | {"monocyte": 19}}
    assert "\nmonocyte *" in format_metrics(few)
    assert "\nmonocyte *" not in format_metrics(metrics)


def test_full_metrics_as_text(full_report):
    text = format_metrics(full_report[1])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]
    assert lines[0].split() == ["300", "images", "95", "%", "CI", "280", "not", "leaked", "95", "%", "CI"]
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    assert re.fullmatch(r"accuracy( +0\.\d{3}  0\.\d{3} to 0\.\d{3}){2}", accuracy)
    assert "20 of the images show cells that were also in training or validation." in lines
    assert [line.split()[0] for line in lines if re.match(r"\w+ \*", line)] == ["basophil"]
    assert "* fewer than 20 distinct cells: too few to evaluate the class" in lines
    for part in (r"temperature scaling +before +95 % CI +after +95 % CI\ncalibration error", r"review below 0\.900"):
        assert re.search(part, text)


def test_metrics_as_text():
    metrics = evaluate([0, 0, 1, 1], np.eye(5)[[0, 0, 2, 1]], groups=["cell 1", "cell 1", "cell 2", "cell 3"]).metrics
    # Limits of four images are what chance makes them: others for the layout.
    metrics["intervals"] |= {"accuracy": [0.25, 1.0], "matthews_correlation": [-0.5, 1.0], "macro_f1": None}
    metrics["intervals"]["per_class"]["eosinophil"] = {
        key: [0.0, 1.0] for key in ("precision", "recall", "f1", "roc_auc")
    }
    head, classes, matrix = format_metrics(metrics).split("\n\n")
    assert head.splitlines()[:2] == [
        "                      4 images          95 % CI",
        "accuracy                 0.750   0.250 to 1.000",
    ]
    assert head.splitlines()[5:7] == [
        "macro f1                 0.833                –",
        "matthews correlation     0.671  -0.500 to 1.000",
    ]
    assert classes == (
        "class           precision       recall           f1      roc auc  images  cells\n"
        "basophil *          1.000        1.000        1.000        1.000       2      1\n"
        "eosinophil *        1.000        0.500        0.667        0.750       2      2\n"
        "              0.000–1.000  0.000–1.000  0.000–1.000  0.000–1.000\n"
        "lymphocyte *            –            –            –            –       0      0\n"
        "monocyte *              –            –            –            –       0      0\n"
        "neutrophil *            –            –            –            –       0      0\n"
        "* fewer than 20 distinct cells: too few to evaluate the class"
    )
    assert matrix == (
        "true / predicted  basophil  eosinophil  lymphocyte  monocyte  neutrophil\n"
        "basophil                 2           0           0         0           0\n"
        "eosinophil               0           1           1         0           0\n"
        "lymphocyte               0           0           0         0           0\n"
        "monocyte                 0           0           0         0           0\n"
        "neutrophil               0           0           0         0           0"
    )


def test_laboratories_have_a_column_and_a_table(tmp_path):
    evaluation = four_cells(laboratories=["north", "north", "south", "south"])
    write_report(tmp_path, evaluation, names=NAMES, image_at=image)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [row["laboratory"] for row in csv.DictReader(file)] == ["north", "north", "south", "south"]
    rows = [line.split() for line in format_metrics(evaluation.metrics).splitlines()]
    assert rows[rows.index([]) + 1][:3] == ["laboratory", "images", "accuracy"]
    assert [row[:3] for row in rows if row and row[0] in ("north", "south")] == [
        ["north", "2", "0.500"],
        ["south", "2", "1.000"],
    ]


RECORD = EvaluationRecord(
    model="cells",
    version="0123456789ab",
    software="wbc_hf 1",
    backend="torch",
    data=EvaluatedSet("<b>elsewhere", "all", 0, "f1f2"),
    finished="2026-11-30T10:00:00+00:00",
    total_time_in_seconds=1.5,
    samples_per_second=200.0,
    latency_in_seconds=0.005,
)


def test_the_page_holds_every_section_and_asks_no_network(tmp_path):
    evaluation = evaluate(**full(), laboratories=["north & co"] * 150 + ["south"] * 150)
    figures = evaluation.metrics["laboratories"]["south"]
    compared = compare_predictions(evaluation.labels, evaluation.given, np.roll(evaluation.given, 3), range(300))
    evaluation.metrics.update(unseen={"west": figures}, comparison={"model": "other", "version": "0" * 12} | compared)
    names = [f"{index}.png" for index in range(300)]
    write_report(tmp_path, evaluation, names=names, image_at=image, record=RECORD, log_history=[])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)[ <]", page)
    assert headings == [*("Figures", "Compared", "By", "In", "By", "Calibration", "What", "Misclassified")]
    assert "north &amp; co" in page and "<b>elsewhere" not in page
    assert f"<td>{evaluation.metrics['accuracy']:.3f}</td>" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "default-src 'none'" in page
    assert read_record(tmp_path) == RECORD


def test_the_page_without_a_record_and_of_a_model_that_is_never_sure(report):
    page = (report[0] / "report.html").read_text(encoding="utf-8")
    assert "<h1>Evaluation</h1>" in page
    assert re.findall("<h2>(.*?)[ <]", page) == ["Figures", "By", "Training", "Misclassified"]
    assert not (report[0] / "evaluation.json").exists()
