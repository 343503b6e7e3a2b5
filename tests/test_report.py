import csv
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure
from scipy.special import softmax

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.confidence_intervals import bootstrap_intervals
from wbc_hf.evaluation.metrics import HEADLINE_NAMES, compute_metrics
from wbc_hf.evaluation.reliability import RiskCoverage
from wbc_hf.evaluation.report import format_metrics, write_json, write_report
from wbc_hf.labels import CLASS_NAMES


def image(_: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (32, 32), "#c080c0")


@pytest.fixture(scope="module")
def judged() -> dict:
    """Four cells; the second, a basophil, is given as an eosinophil."""
    probabilities = np.full((4, 5), 0.05)
    probabilities[range(4), [0, 1, 2, 4]] = 0.8
    return {
        "references": np.array([0, 0, 2, 4]),
        "probabilities": probabilities,
        "names": ["a.png", 'odd, "quoted".png', "c.png", "d.png"],
        "groups": ["cell 1", "cell 2", "cell 3", "cell 4"],
        "log_history": [{"loss": 1.0, "learning_rate": 1e-3, "epoch": 1.0}],
    }


@pytest.fixture(scope="module")
def report(judged, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "new" / "report"
    return folder, write_report(folder, image_at=image, **judged)


def test_report_writes_every_file(report):
    folder, metrics = report

    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "figures/confusion_matrix.png",
        "figures/misclassified.png",
        "figures/training_curves.png",
        "metrics.json",
        "predictions.csv",
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
    monkeypatch.setattr("wbc_hf.evaluation.report.GALLERY_SIZE", 2)
    confidence = np.array([0.6, 0.9, 0.7, 0.95])
    probabilities = np.column_stack([confidence, 1 - confidence, *np.zeros((3, 4))])
    asked = []

    def image_at(index: int) -> PIL.Image.Image:
        asked.append(index)
        return image(index)

    write_report(
        tmp_path,
        references=np.array([1, 1, 1, 0]),  # the last, most confident of all, is right
        probabilities=probabilities,
        names=list("abcd"),
        groups=range(4),
        image_at=image_at,
        log_history=[],
    )
    assert asked == [1, 2]


@pytest.mark.parametrize("what", ["names", "groups", "before", "accepted", "statuses", "leaked"])
def test_report_needs_one_of_each_per_cell(tmp_path, judged, what):
    with pytest.raises(WbcError, match=f"{what}: 1 for 4 cells: give one per cell"):
        write_report(tmp_path, image_at=image, **{**judged, what: np.ones(1, dtype=bool)})
    assert not list(tmp_path.iterdir())


def test_json_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    seen = []

    def replace(source: Path, target: Path) -> None:
        seen.append((json.loads(Path(source).read_text()), json.loads(Path(target).read_text())))
        Path(source).rename(target)

    monkeypatch.setattr("os.replace", replace)
    write_json(path, {"neu": "ä"})

    assert seen == [({"neu": "ä"}, {"old": 1})]
    assert path.read_text(encoding="utf-8") == '{\n  "neu": "ä"\n}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), np.float32(1)])
def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises((TypeError, ValueError)):
        write_json(path, {"value": value})
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def full() -> dict:
    """300 images of 150 cells, of which 20 leaked, from a calibrated model; basophils are few."""
    random = np.random.default_rng(0)
    labels = np.repeat(random.choice(5, 150, p=[0.04, 0.24, 0.24, 0.24, 0.24]), 2)
    logits = random.normal(size=(300, 5)) + 2 * np.eye(5)[labels]
    probabilities = softmax(logits * 2, axis=1)  # what is true of such cells
    accepted = probabilities.max(1) > 0.9
    return {
        "references": labels,
        "probabilities": probabilities,
        "names": [f"{index}.png" for index in range(300)],
        "groups": [f"cell {index // 2}" for index in range(300)],
        "image_at": image,
        "log_history": [],
        "before": softmax(logits * 5, axis=1),
        "temperature": 2.5,
        "accepted": accepted,
        "review_threshold": 0.9,
        "review_target": 0.99,
        "statuses": np.where(accepted, "confident", "review").tolist(),
        "leaked": np.arange(300) < 20,
    }


@pytest.fixture(scope="module")
def full_report(full, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("full")
    return folder, write_report(folder, **full)


def test_full_report_goes_into_json_and_figures(full_report):
    folder, metrics = full_report
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        "confusion_matrix",
        "misclassified",
        "reliability",
        "risk_coverage",
        "training_curves",
    }
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["group", "status"]
    assert {row["status"] for row in rows} == {"confident", "review"}
    assert rows[7]["group"] == "cell 3"


def test_every_figure_has_an_interval(full, full_report):
    _, metrics = full_report
    assert metrics["intervals"] == bootstrap_intervals(full["references"], full["probabilities"], full["groups"])
    for name in (*HEADLINE_NAMES, "roc_auc"):
        low, high = metrics["intervals"][name]
        assert low < metrics[name] < high
    supports = {name: figures["support"] for name, figures in metrics["per_class"].items()}
    assert metrics["distinct_cells"] == {name: support // 2 for name, support in supports.items()}


def test_calibration_before_and_after(full_report):
    calibration = full_report[1]["calibration"]
    assert calibration["temperature"] == 2.5
    before, after = calibration["before"], calibration["after"]
    assert after["ece"] < before["ece"]
    for judged in (before, after):
        for key in ("ece", "brier"):
            assert judged["intervals"][key][0] < judged[key] < judged["intervals"][key][1]


def test_what_is_accepted_and_how_right_that_is(full, full_report):
    review = full_report[1]["review"]
    accepted = full["accepted"]
    right = full["probabilities"].argmax(1) == full["references"]
    assert (review["threshold"], review["target_accuracy"]) == (0.9, 0.99)
    assert review["coverage"] == accepted.mean()
    assert review["accuracy_of_accepted"] == pytest.approx(right[accepted].mean())
    assert review["accuracy_of_accepted"] > right.mean()
    for key in ("coverage", "accuracy_of_accepted"):
        assert review["intervals"][key][0] < review[key] < review["intervals"][key][1]
    shares, errors = zip(*review["error_at_coverage"], strict=True)
    assert shares == (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    assert errors[-1] == pytest.approx(1 - right.mean())
    assert errors[0] < errors[-1]


def test_without_leaked_images(full, full_report):
    metrics = full_report[1]
    assert metrics["leaked"] == 20
    others = metrics["without_leaked"]
    expected = compute_metrics(
        full["references"][20:], full["probabilities"][20:].argmax(1), full["probabilities"][20:]
    )
    assert {name: others[name] for name in expected} == expected
    assert others["intervals"]["accuracy"] != metrics["intervals"]["accuracy"]
    assert sum(others["distinct_cells"].values()) == 140


def test_no_leak_and_nothing_but_leaks(judged, tmp_path):
    none = write_report(tmp_path, image_at=image, **judged, leaked=np.zeros(4, dtype=bool))
    assert none["leaked"] == 0
    assert "without_leaked" not in none
    every = write_report(tmp_path, image_at=image, **judged, leaked=np.ones(4, dtype=bool))
    assert (every["leaked"], every["without_leaked"]) == (4, None)
    assert "4 of the images show cells that were also trained or chosen on: none is left" in format_metrics(every)


def test_nothing_accepted(judged, tmp_path):
    metrics = write_report(tmp_path, image_at=image, **judged, accepted=np.zeros(4, dtype=bool), review_threshold=0.99)
    assert metrics["review"]["coverage"] == 0
    assert metrics["review"]["accuracy_of_accepted"] is None
    assert metrics["review"]["intervals"]["accuracy_of_accepted"] is None
    assert (tmp_path / "figures" / "risk_coverage.png").exists()
    assert "right among those            -  -" in format_metrics(metrics)


def test_the_figure_shows_the_error_of_what_is_accepted(full, tmp_path, monkeypatch):
    drawn = []

    def draw(curve: RiskCoverage, **marks: object) -> Figure:
        drawn.append(marks)
        return Figure()

    monkeypatch.setattr("wbc_hf.evaluation.report.risk_coverage_figure", draw)
    review = write_report(tmp_path, **full)["review"]
    low, high = review["intervals"]["accuracy_of_accepted"]
    assert drawn == [
        {
            "threshold": 0.9,
            "coverage": review["coverage"],
            "error": 1 - review["accuracy_of_accepted"],
            "interval": [1 - high, 1 - low],
            "target_error": pytest.approx(0.01),
        }
    ]


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
    assert lines[0] == "                         all images                not trained on"
    assert lines[1] == "images                     300                       280"
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    assert re.fullmatch(
        r"accuracy {17}(0\.\d{3}  0\.\d{3} to 0\.\d{3} {5}|0\.\d{3}  0\.\d{3} to 0\.\d{3}){2}", accuracy
    )
    assert "20 of the images show cells that were also trained or chosen on." in lines
    assert [line.split()[0] for line in lines if re.match(r"\w+ \*", line)] == ["basophil"]
    assert "* fewer than 20 distinct cells: too few to judge the class by" in lines
    for part in ("before calibration        after calibration", "calibration error ", "review below 0.900"):
        assert part in text


def test_metrics_as_text(tmp_path):
    metrics = write_report(
        tmp_path,
        references=np.array([0, 0, 1, 1]),
        probabilities=np.eye(5)[[0, 0, 2, 1]],
        names=list("abcd"),
        groups=["cell 1", "cell 1", "cell 2", "cell 3"],
        image_at=image,
        log_history=[],
    )
    # Limits of four images are what chance makes them: others for the layout.
    metrics["intervals"] |= {"accuracy": [0.25, 1.0], "matthews_correlation": [-0.5, 1.0], "macro_f1": None}
    metrics["intervals"]["per_class"]["eosinophil"] = {
        key: [0.0, 1.0] for key in ("precision", "recall", "f1", "roc_auc")
    }
    head, classes, matrix = format_metrics(metrics).split("\n\n")
    assert head.splitlines()[:3] == [
        "                         all images",
        "images                       4",
        "accuracy                 0.750  0.250 to 1.000",
    ]
    assert head.splitlines()[6:8] == [
        "macro f1                 0.833  -",
        "matthews correlation     0.671  -0.500 to 1.000",
    ]
    assert classes == (
        "class           precision       recall           f1      roc auc  images   cells\n"
        "basophil *          1.000        1.000        1.000        1.000       2       1\n"
        "eosinophil *        1.000        0.500        0.667        0.750       2       2\n"
        "              0.000-1.000  0.000-1.000  0.000-1.000  0.000-1.000\n"
        "lymphocyte *            -            -            -            -       0       0\n"
        "monocyte *              -            -            -            -       0       0\n"
        "neutrophil *            -            -            -            -       0       0\n"
        "* fewer than 20 distinct cells: too few to judge the class by"
    )
    assert matrix == (
        "true / given    basophil  eosinophil  lymphocyte    monocyte  neutrophil\n"
        "basophil               2           0           0           0           0\n"
        "eosinophil             0           1           1           0           0\n"
        "lymphocyte             0           0           0           0           0\n"
        "monocyte               0           0           0           0           0\n"
        "neutrophil             0           0           0           0           0"
    )
