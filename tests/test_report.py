import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from wbc_hf.errors import WbcError
from wbc_hf.evaluation.metrics import compute_metrics
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
    assert list(rows[0]) == ["name", "true", "given", "probability", *(f"probability_{name}" for name in CLASS_NAMES)]
    assert len(rows) == 4
    mistake = rows[1]
    assert (mistake["name"], mistake["true"], mistake["given"]) == ('odd, "quoted".png', "basophil", "eosinophil")
    assert mistake["probability"] == mistake["probability_eosinophil"] == "0.800000"
    assert mistake["probability_neutrophil"] == "0.050000"


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
        image_at=image_at,
        log_history=[],
    )
    assert asked == [1, 2]


def test_report_needs_a_name_for_every_cell(tmp_path, judged):
    with pytest.raises(WbcError, match="1 names for 4 cells: give one name per cell"):
        write_report(tmp_path, image_at=image, **{**judged, "names": ["a.png"]})
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


def test_metrics_as_text():
    text = format_metrics(compute_metrics(references=[0, 0, 1], predictions=[0, 0, 2]))
    assert text == (
        "cells                        3\n"
        "accuracy                 0.667\n"
        "balanced accuracy        0.500\n"
        "macro precision          0.500\n"
        "macro recall             0.500\n"
        "macro f1                 0.500\n"
        "matthews correlation     0.500\n"
        "macro roc auc                -\n"
        "\n"
        "class         precision     recall         f1    roc auc    support\n"
        "basophil          1.000      1.000      1.000          -          2\n"
        "eosinophil        0.000      0.000      0.000          -          1\n"
        "lymphocyte            -          -          -          -          0\n"
        "monocyte              -          -          -          -          0\n"
        "neutrophil            -          -          -          -          0\n"
        "\n"
        "true / given    basophil  eosinophil  lymphocyte    monocyte  neutrophil\n"
        "basophil               2           0           0           0           0\n"
        "eosinophil             0           0           1           0           0\n"
        "lymphocyte             0           0           0           0           0\n"
        "monocyte               0           0           0           0           0\n"
        "neutrophil             0           0           0           0           0"
    )
