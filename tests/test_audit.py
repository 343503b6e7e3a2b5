"""The audit names what is wrong with a set, and writes a clean split of it that reads back."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from tests.conftest import TinyRun
from wbc_hf.cli import app
from wbc_hf.data import (
    DOUBTED_BELOW,
    LabelIssue,
    LabelIssues,
    Leucocytes,
    leaked_test_images,
    load_leucocytes,
    paint_cells,
)
from wbc_hf.data.auditing import Audit, audit, format_audit
from wbc_hf.data.picture_checks import picture_fault
from wbc_hf.data.splits import groups_across
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty cells in given splits; a mirrored image across them, one under another class, and a blank one."""
    folder = tmp_path_factory.mktemp("audited")
    labels = np.arange(40) % 5
    images = [Image.fromarray(cell) for cell in paint_cells(labels, size=128, seed=5)]
    for index, (label, image) in enumerate(zip(labels, images, strict=True)):
        split = "test" if index < 10 else "validation" if index < 15 else "train"
        (folder / split / CLASS_NAMES[label]).mkdir(parents=True, exist_ok=True)
        image.save(folder / split / CLASS_NAMES[label] / f"{index:02d}.png")
    ImageOps.mirror(images[0]).save(folder / "train" / "basophil" / "mirrored.png")
    images[21].transpose(Image.Transpose.ROTATE_90).save(folder / "train" / "monocyte" / "turned.png")
    Image.new("RGB", (64, 64), "white").save(folder / "train" / "monocyte" / "blank.png")
    return folder


@pytest.fixture(scope="module")
def cells(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Leucocytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WBC_HF_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_leucocytes(root)


def test_what_is_found(cells: Leucocytes):
    found = audit(cells)
    assert isinstance(found, Audit)
    assert [(pair.first, pair.second, pair.labels) for pair in found.pairs] == [
        ("train/eosinophil/21.png", "train/monocyte/turned.png", ("eosinophil", "monocyte")),
        ("test/basophil/00.png", "train/basophil/mirrored.png", ("basophil", "basophil")),
    ]
    assert [pair.contradictory for pair in found.pairs] == [True, False]
    assert [pair.across for pair in found.pairs] == [False, True]
    assert [pair.mirrored for pair in found.pairs] == [False, True]
    assert found.groups_across == found.leaked == 1
    assert found.bad == (("train/monocyte/blank.png", "blank"),)
    assert found.images["train"] == dict(zip(CLASS_NAMES, (6, 5, 5, 7, 5), strict=True))
    assert found.too_small == CLASS_NAMES


def test_leaked_test_images(cells: Leucocytes):
    leaked = leaked_test_images(cells)
    assert np.array(cells["test"]["source"])[leaked].tolist() == ["test/basophil/00.png"]


@pytest.mark.parametrize(
    ("low", "high", "fault"),
    [(100, 102, "blank"), (5, 60, "too dark"), (250, 256, None), (60, 220, None)],
)
def test_faults_of_pictures(low: int, high: int, fault: str | None):
    grey = np.random.default_rng(0).integers(low, high, (50, 50)).astype(np.uint8)
    assert picture_fault(grey) == (fault or ("blank" if low == 250 else None))


def test_the_command_and_a_clean_split(root: Path, cells: Leucocytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WBC_HF_CACHE", str(tmp_path / "cache"))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    words = ["audit", str(root), "--output", str(tmp_path / "out"), "--resplit", str(tmp_path / "clean")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "2 pairs of near-duplicates; 1 of them with different classes" in result.output
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["leaked"] == 1
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4
    assert "doubted" not in result.output + page.lower()
    assert "label_issues" not in json.loads((tmp_path / "out" / "audit.json").read_text())
    assert page.count("<b>different classes</b>") == page.count("<b>across splits</b>") == 1
    clean = load_leucocytes(tmp_path / "clean")
    assert not groups_across({name: rows["group"] for name, rows in clean.items()})
    assert clean.provenance.given_splits
    assert sizes(clean) == sizes(cells)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(WbcError, match="is not empty; a clean split is written to a new folder only"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def sizes(cells: Leucocytes) -> list[int]:
    """Sizes of the groups."""
    return sorted(Counter(group for rows in cells.values() for group in rows["group"]).values())


def test_several_laboratories(tmp_path: Path):
    """A cell of one laboratory's is also in the other's set, mirrored; slides of one stay whole in a clean split."""
    labels = np.arange(30) % 5
    images = [Image.fromarray(cell) for cell in paint_cells(labels, size=128, seed=6)]
    for index, (label, image) in enumerate(zip(labels, images, strict=True)):
        name = f"north/{CLASS_NAMES[label]}/{index:02d}.png"
        if index >= 12:
            name = f"south/{CLASS_NAMES[label]}/95-8-10-{index // 3}_{index}_0.jpg"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    ImageOps.mirror(images[0]).save(tmp_path / "south" / "basophil" / "95-8-10-4_99_0.jpg")
    words = ["audit", str(tmp_path / "north"), str(tmp_path / "south"), "--resplit", str(tmp_path / "clean")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["distinct", "cells", *CLASS_NAMES] in lines
    assert ["north", "3", "3", "2", "2", "2"] in lines
    assert ["Raabin", "4", "3", "4", "4", "4"] in lines
    assert "1 pairs of near-duplicates" in result.output or "1 pair of near-duplicates" in result.output
    sides: dict[str, set[str]] = {}
    for path in (tmp_path / "clean").rglob("*_95-8-10-*"):
        sides.setdefault(path.name.split("_")[1], set()).add(path.relative_to(tmp_path / "clean").parts[0])
    assert len(sides) == 6
    assert all(len(splits) == 1 for splits in sides.values())


# ---- labels that a model doubts


def write_cells(root: Path, labels: Sequence[int], folders: Sequence[int], seed: int = 9) -> None:
    """Painted cells of the classes `labels` in the sub-folders of the classes `folders`."""
    for index, cell in enumerate(paint_cells(labels, size=96, seed=seed)):
        folder = root / CLASS_NAMES[folders[index]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell).save(folder / f"{index:02d}.png")


@pytest.mark.long
def test_a_model_finds_cells_in_the_wrong_folder(tmp_path: Path):
    """The model knows painted cells; two lie in the folder of another class, and no folder is the basophils'."""
    labels = [1 + index % 4 for index in range(60)]
    folders = list(labels)
    folders[10], folders[33] = 4, 1
    assert folders[10] != labels[10] and folders[33] != labels[33]
    write_cells(tmp_path / "cells", labels, folders)
    words = ["audit", str(tmp_path / "cells"), "--output", str(tmp_path / "out"), "--model", str(DEFAULT_MODEL_FOLDER)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())["label_issues"]
    issues = {issue["source"]: issue for issue in found["issues"]}
    for index in (10, 33):
        given, predicted = CLASS_NAMES[folders[index]], CLASS_NAMES[labels[index]]
        issue = issues[f"{given}/{index:02d}.png"]
        assert (issue["given"], issue["predicted"]) == (given, predicted)
        assert issue["probability_of_given"] < DOUBTED_BELOW < 0.5 < issue["probability_of_predicted"]
        assert f"  {given}/{index:02d}.png: {given} 0." in result.output
    assert len(issues) <= 5
    assert (found["model"], found["images"], found["seen"]) == ("starter", 60, [])
    assert 2 <= found["differing"] <= 5
    assert f"{len(issues)} of 60 labels are doubted by the model starter\n" in result.output
    assert "The model was not trained on this set, but on PBC" in result.output
    page = (tmp_path / "out" / "audit.html").read_text()
    assert f"Doubted labels: {len(issues)} of {len(issues)}" in page
    assert page.count("data:image/jpeg;base64,") >= len(issues)
    assert "label: <b>neutrophil</b> 0." in page


@pytest.mark.slow
def test_a_model_that_was_trained_on_the_set_is_said_to_be(tiny_run: TinyRun, folder_of_cells: Path):
    result = CliRunner().invoke(app, ["audit", str(folder_of_cells), "--model", str(tiny_run.folder)])
    assert result.exit_code == 0, result.output
    assert f"The model was trained on a set of this name ({folder_of_cells})" in result.output


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_refused_before_anything_is_read(tiny_run: TinyRun, tmp_path: Path):
    with pytest.raises(WbcError, match="no-such-model"):
        CliRunner().invoke(app, ["audit", "nowhere/", "--model", "./no-such-model"], catch_exceptions=False)
    shutil.copytree(tiny_run.folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())

    def audit_with(names: Sequence[str], spec: str) -> None:
        by_number = {str(index): name for index, name in enumerate(names)}
        by_name = {name: index for index, name in enumerate(names)}
        text = json.dumps(config | {"id2label": by_number, "label2id": by_name})
        (tmp_path / "model" / "config.json").write_text(text)
        words = ["audit", spec, "--model", str(tmp_path / "model")]
        CliRunner().invoke(app, words, catch_exceptions=False)

    with pytest.raises(WbcError, match=r"are not all leucocytes.*cannot be compared with labels"):
        audit_with([*CLASS_NAMES[:4], "platelet"], "nowhere/")
    # Of two spellings of one class, the fifth is unknown to the model.
    with pytest.raises(WbcError, match="does not know the class neutrophil of this set"):
        audit_with([*CLASS_NAMES[:4], "mono"], "synthetic:4")


def test_text_of_doubted_labels(cells: Leucocytes):
    issues = tuple(LabelIssue(f"{index}.png", "monocyte", "lymphocyte", 0.021, 0.934) for index in range(23))
    issues += (LabelIssue("last.png", "neutrophil", "eosinophil", 0.3, 0.6),)
    doubted = LabelIssues("starter", None, (), 41, 30, issues)
    lines = format_audit(dataclasses.replace(audit(cells), label_issues=doubted)).splitlines()
    start = lines.index("24 of 41 labels are doubted by the model starter")
    assert lines[start + 1] == "It gives them less than 5%; it predicts another class than the label for 30"
    assert "has no calibration" in lines[start + 2]
    assert [line.split() for line in lines[start + 3 : start + 5]] == [
        ["monocyte", "→", "lymphocyte", "23"],
        ["neutrophil", "→", "eosinophil", "1"],
    ]
    assert lines[start + 5] == "  0.png: monocyte 0.02, lymphocyte 0.93"
    assert lines[-1] == "  and 4 more, all in audit.json"
    seen = dataclasses.replace(doubted, trained_on="a, b", seen=("b",))
    assert "trained on a set of this name (b)" in seen.caveat
