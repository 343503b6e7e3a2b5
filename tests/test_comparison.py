import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from wbc_hf.errors import WbcError
from wbc_hf.evaluation import compare_reports, evaluate, format_comparison, write_report

LABELS = np.repeat(np.arange(4), 25)  # no neutrophils
GROUPS = [f"cell {index // 2}" for index in range(100)]


def report(folder: Path, wrong: list[int], order: np.ndarray | None = None) -> Path:
    """A report of a model that is wrong about these images; `order` is that of the rows."""
    order = np.arange(100) if order is None else order
    given = LABELS.copy()
    given[wrong] = (given[wrong] + 1) % 5
    groups = [GROUPS[index] for index in order]
    evaluation = evaluate(LABELS[order], np.eye(5)[given[order]], groups=groups)
    names = [f"{index}.png" for index in order]
    write_report(folder, evaluation, names=names, image_at=lambda _: PIL.Image.new("RGB", (8, 8)))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The second is wrong about eleven more, in another order of rows."""
    root = tmp_path_factory.mktemp("reports")
    shuffled = np.random.default_rng(0).permutation(100)
    return report(root / "a", [0, 30]), report(root / "b", [0, *range(50, 61)], shuffled)


def rewrite(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def rows_of(folder: Path) -> list[dict]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_images_are_matched_by_name(folders: tuple[Path, Path]):
    comparison = compare_reports(*folders)
    assert comparison["count"] == 100
    assert comparison["distinct_cells"] == 50
    assert comparison["changed"] == {"first_right": 11, "second_right": 1, "both_wrong": 0}
    accuracy = comparison["figures"]["accuracy"]
    assert (accuracy["first"], accuracy["second"]) == (0.98, 0.88)
    assert accuracy["difference"] == pytest.approx(0.1)
    assert 0 < accuracy["interval"][0] < 0.1 < accuracy["interval"][1]
    assert comparison["figures"]["recall of neutrophil"]["difference"] is None
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison


def test_the_other_way_round_the_signs_change(folders: tuple[Path, Path]):
    there, back = (compare_reports(*pair) for pair in (folders, folders[::-1]))
    accuracy = back["figures"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(-there["figures"]["accuracy"]["difference"])
    assert accuracy["interval"][1] < 0
    assert next(line for line in format_comparison(back).splitlines() if line.startswith("accuracy")).endswith("  *")


def test_as_text(folders: tuple[Path, Path]):
    text = format_comparison(compare_reports(*folders))
    lines = text.splitlines()
    assert lines[:2] == [
        "100 images of 50 distinct cells",
        "predicted differently: 12, of which right by the first 11, by the second 1",
    ]
    accuracy, neutrophil = (next(line for line in lines if line.startswith(name)) for name in ("acc", "recall of neu"))
    assert accuracy.split()[:4] == ["accuracy", "0.980", "0.880", "+0.100"]
    assert accuracy.endswith("  *")
    assert neutrophil.split() == ["recall", "of", "neutrophil", "–", "–", "–", "–"]
    assert max(map(len, lines)) <= 80


def test_a_model_beside_itself(folders: tuple[Path, Path]):
    comparison = compare_reports(folders[0], folders[0])
    macro_f1 = comparison["figures"]["macro_f1"]
    assert macro_f1["difference"] == 0
    assert macro_f1["interval"][0] == -macro_f1["interval"][1] < -0.01  # fifty cells cannot tell that there is none
    assert " *\n" not in format_comparison(comparison)


def test_other_images_are_refused(folders: tuple[Path, Path], tmp_path: Path):
    fewer = rewrite(tmp_path / "fewer", rows_of(folders[0])[:97])
    message = r"are not of the same images: 3 are only in the first, 0 only in the second, for example 97\.png"
    with pytest.raises(WbcError, match=message):
        compare_reports(folders[0], fewer)


def test_other_labels_are_refused(folders: tuple[Path, Path], tmp_path: Path):
    rows = rows_of(folders[0])
    rows[3]["true"] = "monocyte"
    with pytest.raises(WbcError, match=r"true class of 1 images, for example 3\.png: basophil and monocyte"):
        compare_reports(folders[0], rewrite(tmp_path / "other", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [{k: v for k, v in row.items() if k != "group"} for row in rows],
            "has no column group",
        ),
        (lambda rows: [*rows, rows[0]], "1 names stand in it twice"),
        (
            lambda rows: [rows[0] | {"given": "blast"}],
            "given of image 1 is 'blast', not one of basophil, eos",
        ),
    ],
)
def test_a_file_that_cannot_be_compared_is_named(folders: tuple[Path, Path], tmp_path: Path, change, message: str):
    bad = rewrite(tmp_path / "bad", change(rows_of(folders[0])))
    with pytest.raises(WbcError, match=message) as caught:
        compare_reports(folders[0], bad)
    assert str(bad / "predictions.csv") in str(caught.value)


def test_a_folder_without_a_report_is_named(folders: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(WbcError, match=r"predictions\.csv: cannot be read \(No such file or directory\)"):
        compare_reports(folders[0], tmp_path)
    (tmp_path / "predictions.csv").write_text("name,true,given,group\n")
    with pytest.raises(WbcError, match="holds no predictions"):
        compare_reports(tmp_path, folders[0])
