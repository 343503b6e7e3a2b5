"""A model adapted to another laboratory: what is read, held back, fitted, written and told."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, pipeline

from tests.adapted_models import build_tiny_model
from tests.conftest import TinyRun
from wbc_hf.adaptation import MIN_UNLABELLED, Adaptation, AdaptationCell, adapt, describe_adaptation, last_layer
from wbc_hf.adaptation.adaptation import _load, _new_folder
from wbc_hf.adaptation.cells import read_cells
from wbc_hf.adaptation.few_shot import cross_validation_folds
from wbc_hf.adaptation.unsupervised import unsupervised_review_threshold
from wbc_hf.data import paint_cells, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import compute_metrics, map_checklists
from wbc_hf.hub import read_changes
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import (
    OUT_OF_DISTRIBUTION_SHARE,
    Calibration,
    OutOfDistributionScore,
    build_from_scratch,
    load_classifier,
)

SIDE = 64


def elsewhere(labels: list[int] | np.ndarray, seed: int) -> list[Image.Image]:
    """Painted cells as another stain and camera would show them."""
    gamma = np.array([1.6, 1.2, 0.8])
    return [
        Image.fromarray((255 * (cell / 255) ** gamma).astype(np.uint8)) for cell in paint_cells(labels, SIDE, seed)
    ]


def silent(what: str, share: float) -> None:
    pass


@dataclass(frozen=True)
class Adapted:
    """An adaptation, its folder, and what it told on the way. Not to be changed: several tests read it."""

    adaptation: Adaptation
    folder: Path
    images: Path
    told: list[tuple[str, float]]


@pytest.fixture(scope="module")
def unlabelled(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """Adapted to a folder of 200 cells, one white picture and one file that is none."""
    root = tmp_path_factory.mktemp("unlabelled")
    images = root / "images"
    (images / "slide 2").mkdir(parents=True)
    for index, cell in enumerate(elsewhere(np.arange(200) % 5, 1)):
        cell.save(images / ("slide 2" if index % 2 else ".") / f"{index:03d}.png")
    Image.new("RGB", (SIDE, SIDE), "white").save(images / "white.png")
    (images / "broken.png").write_text("no picture")
    return adapted(tiny_run.folder, images, root / "new" / "model")


@pytest.fixture(scope="module")
def labelled(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """Adapted to class folders of four cells each, of basophils two, and of monocytes none."""
    root = tmp_path_factory.mktemp("labelled")
    labels = np.repeat([0, 1, 2, 4], [2, 4, 4, 4])
    for index, (label, cell) in enumerate(zip(labels, elsewhere(labels, 2), strict=True)):
        folder = root / "images" / f"{CLASS_NAMES[label].upper()}S"
        folder.mkdir(parents=True, exist_ok=True)
        cell.save(folder / f"{index:02d}.png")
    return adapted(tiny_run.folder, root / "images", root / "model")


def adapted(model: Path, images: Path, output: Path) -> Adapted:
    told: list[tuple[str, float]] = []
    adaptation = adapt(model, images, output, progress=lambda what, share: told.append((what, share)))
    return Adapted(adaptation, output, images, told)


# ---- what comes out


@pytest.mark.parametrize("kind", ["unlabelled", "labelled"])
def test_the_folder_is_an_ordinary_model(kind: str, tiny_run: TinyRun, request: pytest.FixtureRequest):
    done = request.getfixturevalue(kind)
    assert {path.name for path in done.folder.iterdir()} == {
        "README.md",
        "adaptation.json",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "wbc.json",
        "wbc.safetensors",
    }
    assert list(done.folder.parent.glob(".adapt-*")) == []
    predictor = Predictor.from_pretrained(done.folder, "torch")
    same = done.adaptation.labelled is None and done.adaptation.warning is not None  # taken back
    assert same == (predictor.identity.version == Predictor.from_pretrained(tiny_run.folder, "torch").identity.version)
    file = next(done.images.rglob("0*.png"))
    (answer,) = predictor.predict([file])
    (best, *_) = pipeline("image-classification", model=str(done.folder))(str(file))
    assert (best["label"], best["score"]) == (answer.label, pytest.approx(answer.probability, abs=1e-4))


@pytest.mark.parametrize("kind", ["unlabelled", "labelled"])
def test_what_is_written_names_no_place_of_this_machine(kind: str, tiny_run: TinyRun, request: pytest.FixtureRequest):
    done = request.getfixturevalue(kind)
    record = json.loads((done.folder / "adaptation.json").read_text(encoding="utf-8"))
    assert (record["model"], record["cells"]) == ("tiny", done.adaptation.cells)
    assert Calibration.load(done.folder).trained_on.endswith(
        f"adapted to {done.adaptation.cells} cells of another laboratory"
    )
    for name in ("README.md", "adaptation.json", "config.json", "preprocessor_config.json"):
        text = (done.folder / name).read_text(encoding="utf-8")
        assert str(done.folder.parent) not in text and str(tiny_run.folder.parent) not in text


@pytest.mark.parametrize("kind", ["unlabelled", "labelled"])
def test_progress_goes_from_start_to_end(kind: str, request: pytest.FixtureRequest):
    shares = [share for _, share in request.getfixturevalue(kind).told]
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == 1


@pytest.mark.seeded  # by what it asks for below
@pytest.mark.parametrize("kind", ["unlabelled", "labelled"])
def test_the_new_laboratory_is_in_distribution(kind: str, request: pytest.FixtureRequest):
    done = request.getfixturevalue(kind)
    calibration = Calibration.load(done.folder)
    images = [read_image(path) for path in sorted(done.images.rglob("[0-9]*.png"))]
    _, features = Predictor.from_pretrained(done.folder, "torch").logits_and_features(images)
    assert calibration.out_of_distribution_score.references.shape[0] == len(images) == done.adaptation.cells
    scores = OutOfDistributionScore.fit(features).leave_one_out(features)
    assert calibration.out_of_distribution_threshold == pytest.approx(
        np.quantile(scores, 1 - OUT_OF_DISTRIBUTION_SHARE), rel=0.02
    )


def test_the_version_is_that_of_the_folder_also_of_weights_in_half_precision():
    starter = Path(__file__).parents[1] / "models" / "starter"
    assert _load(starter, starter).identity == Predictor.from_pretrained(starter, "torch").identity


# ---- without labels


def test_without_labels_a_diagnosis_stands_before_and_after(unlabelled: Adapted, tiny_run: TinyRun):
    done = unlabelled.adaptation
    assert (done.cells, done.unreadable, done.not_cells, done.labelled) == (200, 1, 1, None)
    files = sorted(unlabelled.images.rglob("[0-9]*.png"))
    for diagnosis, folder in ((done.diagnosis_before, tiny_run.folder), (done.diagnosis_after, unlabelled.folder)):
        answers = Predictor.from_pretrained(folder, "torch").predict(files)
        for status, share in diagnosis.statuses.items():
            # A threshold may lie between two roundings of one answer.
            assert share == pytest.approx(np.mean([answer.status == status for answer in answers]), abs=2 / 200)
        assert diagnosis.confidence == pytest.approx(np.mean([answer.probability for answer in answers]), abs=1e-3)
        assert 0 <= diagnosis.consistency <= 1
    assert sum(done.proportions.values()) == pytest.approx(1)
    # Where the consistency falls, the weights are those of before.
    assert done.diagnosis_after.consistency >= done.diagnosis_before.consistency


def test_without_labels_the_surest_are_accepted(unlabelled: Adapted):
    assert unsupervised_review_threshold(np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])) == pytest.approx(
        np.quantile([0.9, 0.8, 0.7], 0.65)
    )
    calibration = Calibration.load(unlabelled.folder)
    assert calibration.review_threshold == unlabelled.adaptation.review_threshold
    assert not calibration.target_reached
    card = (unlabelled.folder / "README.md").read_text(encoding="utf-8")
    assert "this threshold was not fitted on labels" in card


def changed(before: Path, after: Path) -> set[str]:
    """First parts of the names of what is in another way in the weights of two folders."""
    old, new = (load_classifier(folder).state_dict() for folder in (before, after))
    return {name.split(".")[0] for name, tensor in old.items() if not torch.equal(tensor, new[name])}


def test_few_labels_move_the_last_layer_and_more_all_weights(labelled: Adapted, tiny_run: TinyRun, tmp_path: Path):
    assert changed(tiny_run.folder, labelled.folder) == {"classifier"}
    labels = np.arange(20) % 5
    cells = [
        AdaptationCell(image, int(label), str(index))
        for index, (image, label) in enumerate(zip(elsewhere(labels, 4), labels, strict=True))
    ]
    done = adapt(tiny_run.folder, cells, tmp_path / "model")
    assert changed(tiny_run.folder, tmp_path / "model") == {"classifier", "resnet"}
    assert not any("last layer alone" in remark or "labels alone" in remark for remark in done.remarks)


def test_of_very_many_cells_a_part_is_fitted_to_and_all_are_told_of(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fitted: list[int] = []
    fit = last_layer.fit_last_layer
    monkeypatch.setattr(last_layer, "_MOST_CELLS", 20)
    monkeypatch.setattr(
        last_layer, "fit_last_layer", lambda *given, cells: (fitted.append(cells), fit(*given, cells=cells))[1]
    )
    cells = [AdaptationCell(image, None, str(index)) for index, image in enumerate(elsewhere(np.arange(45) % 5, 3))]
    done = adapt(tiny_run.folder, cells, tmp_path / "model")
    assert fitted == [20]
    assert done.cells == 45
    assert sum(done.proportions.values()) == pytest.approx(1)


def test_pictures_that_cannot_be_used_are_named(unlabelled: Adapted, caplog: pytest.LogCaptureFixture):
    cells, left_out = read_cells(unlabelled.images, silent)
    assert (len(cells), left_out.unreadable, left_out.not_cells) == (200, 1, 1)
    assert all(cell.label is None for cell in cells)
    broken, white = sorted(record.getMessage() for record in caplog.records)
    assert "broken.png: is not a picture" in broken
    assert white.endswith("white.png: shows no stained cell.")


def test_a_model_that_says_nothing_of_trust_can_be_adapted_and_is_told_that_it_did_not_help(tmp_path: Path):
    """Its last layer gives one class to everything, in every view, before and after."""
    network, processor = build_tiny_model()
    network.classifier[-1].bias.data[2] = 100.0
    network.save_pretrained(tmp_path / "plain")
    processor.save_pretrained(tmp_path / "plain")
    cells = [AdaptationCell(cell, None, str(index)) for index, cell in enumerate(elsewhere(np.arange(200) % 5, 3))]
    done = adapt(tmp_path / "plain", cells, tmp_path / "new")
    assert done.diagnosis_before.statuses is None
    assert set(done.diagnosis_after.statuses) == {"confident", "review", "unfamiliar", "not_a_cell"}
    assert done.warning.startswith("Nearly all cells were answered lymphocyte")
    before, after = (load_classifier(tmp_path / name).state_dict() for name in ("plain", "new"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert f"Warning: {done.warning}" in describe_adaptation(done)
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "# plain\n\n## Adapted to another laboratory" in card
    assert "Reporting checklists" not in card
    assert len(read_changes(card)) == 1
    assert f"> **{done.warning}**" in card
    assert "| share confident | – |" in card


# ---- with labels


def test_with_labels_the_scores_are_those_of_held_back_cells(labelled: Adapted, tiny_run: TinyRun):
    done = labelled.adaptation
    assert (done.cells, done.held_back, done.folds) == (14, 14, 2)
    assert done.labelled == {"basophil": 2, "eosinophil": 4, "lymphocyte": 4, "monocyte": 0, "neutrophil": 4}
    files = sorted(labelled.images.rglob("*.png"))
    answers = Predictor.from_pretrained(tiny_run.folder, "torch").predict(files)
    given = [CLASS_NAMES.index(answer.label) for answer in answers]
    expected = compute_metrics(np.repeat([0, 1, 2, 4], [2, 4, 4, 4]), given)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert getattr(done.scores_before, name) == pytest.approx(expected[name])
        low, high = done.scores_after.intervals[name]
        assert 0 <= low <= high <= 1
    assert done.scores_before.recall["eosinophil"] == expected["per_class"]["eosinophil"]["recall"]
    assert done.scores_after.recall["monocyte"] is None
    assert (done.warning is not None) == (done.scores_after.accuracy <= done.scores_before.accuracy)


def test_with_labels_classes_with_few_cells_are_named(labelled: Adapted):
    few_labels, alone, few, missing = labelled.adaptation.remarks
    assert few_labels.startswith("Fewer than 20 labels: the last layer alone was adapted")
    assert alone.startswith("Few labels alone made the model worse")
    assert few.endswith(": basophil (2), eosinophil (4), lymphocyte (4), neutrophil (4).")
    assert missing.endswith(": monocyte.")


def test_with_labels_thresholds_are_fitted_on_the_held_back_cells(labelled: Adapted):
    calibration, done = Calibration.load(labelled.folder), labelled.adaptation
    assert (calibration.temperature, calibration.fitted_on) == (done.temperature, 14)
    assert (calibration.review_threshold, calibration.target_reached) == (done.review_threshold, done.target_reached)
    # Of so few: the surest are accepted, and the card says that labels did not tell which.
    assert done.review_threshold < 1 and not done.target_reached
    card = (labelled.folder / "README.md").read_text(encoding="utf-8")
    assert "which was not fitted on labels: there are too few." in card


def test_the_card_says_what_was_done_right_under_its_title(labelled: Adapted, tiny_run: TinyRun):
    before = (tiny_run.folder / "README.md").read_text(encoding="utf-8")
    card = (labelled.folder / "README.md").read_text(encoding="utf-8")
    assert "model-index" in before and "](figures/" in before
    assert "model-index" not in card and "](figures/" not in card
    title, rest = before.split("\n# ")[1].split("\n", 1)
    assert f"\n# {title}\n\n## Adapted to another laboratory\n\n**Research use, not for diagnosis.**" in card
    accuracy = labelled.adaptation.scores_after.accuracy
    assert "| on 14 held-back cells | before | after |" in card
    assert f"| {accuracy:.3f} (" in card
    assert card.index("All figures below are those of the model before") < card.index("## How good it is")
    assert map_checklists(card) == card
    assert "| 24 | updating: results | “Adapted to another laboratory” |" in card
    added, *trained = read_changes(card)
    assert trained == read_changes(before)
    assert re.fullmatch(
        rf"{labelled.adaptation.made[:10]}: adapted to another laboratory, by \d+ cells with labels, at .{{8}} UTC\.",
        added,
    )
    assert "\n".join(rest.split("## Limits")[1].splitlines()[:9]) in card


def test_what_is_told_in_the_terminal(labelled: Adapted, unlabelled: Adapted):
    lines = describe_adaptation(labelled.adaptation).splitlines()
    assert lines[0].startswith("tiny: adapted to 14 cells, with labels (basophil 2, ")
    assert lines[1].split() == ["on", "14", "held-back", "cells", "before", "after"]
    assert [line.split("  ")[0] for line in lines[2:9]] == [
        "accuracy",
        "balanced accuracy",
        "macro F1",
        "recall of basophil",
        "recall of eosinophil",
        "recall of lymphocyte",
        "recall of neutrophil",
    ]
    told = describe_adaptation(unlabelled.adaptation)
    assert "share unfamiliar" in told and "Estimated proportions: basophil " in told
    assert told.endswith("Research use, not for diagnosis.")


def test_copies_of_a_cell_are_of_one_group(tmp_path: Path):
    labels = [1, 1, 1, 4, 4]
    cells = [Image.fromarray(cell) for cell in paint_cells(labels, size=128, seed=4)]
    for index, (label, cell) in enumerate(zip(labels, cells, strict=True)):
        (tmp_path / CLASS_NAMES[label]).mkdir(exist_ok=True)
        cell.save(tmp_path / CLASS_NAMES[label] / f"{index}.png")
    cells[0].rotate(90).save(tmp_path / "eosinophil" / "turned.jpg", quality=95)
    (tmp_path / "metadata.csv").write_text(
        "file_name,group\nneutrophil/3.png,field 7\nneutrophil/4.png,field 7\n", encoding="utf-8"
    )
    found, _ = read_cells(tmp_path, silent)
    assert [cell.label for cell in found] == [1, 1, 1, 1, 4, 4]
    groups = [cell.group for cell in found]
    assert groups[0] == groups[3] and groups[4] == groups[5]
    assert len(set(groups)) == 4


# ---- what is held back


def test_every_labelled_cell_is_held_back_once_and_no_group_is_parted():
    generator = np.random.default_rng(0)
    groups = [str(number) for number in generator.integers(0, 40, 120)]
    labels = generator.integers(-1, 5, 120)
    parts = cross_validation_folds(labels, groups, 0)
    assert len(parts) == 3
    assert sorted(np.concatenate([held for _, held in parts])) == np.flatnonzero(labels >= 0).tolist()
    for rest, held in parts:
        assert not {groups[index] for index in rest} & {groups[index] for index in held}
        # Of every class about a quarter.
        assert np.bincount(labels[held], minlength=5).min() > 0


def test_a_class_of_one_group_stays_to_learn_from():
    labels, groups = np.array([0, 0, 1, 1, 1, 2, 2]), ["a", "a", "b", "c", "d", "e", "f"]
    parts = cross_validation_folds(labels, groups, 0)
    assert len(parts) == 2
    for rest, held in parts:
        assert {0, 1} <= set(rest)
        assert set(labels[held]) == {1, 2}


def test_cells_of_a_single_group_cannot_be_held_back():
    with pytest.raises(WbcError, match="4 labelled cells: are all near-duplicates of one cell, or of one photograph"):
        cross_validation_folds(np.array([0, 0, 1, 1, -1]), ["a", "a", "a", "a", "b"], 0)


# ---- what cannot be adapted


def test_too_few_cells_without_labels(tiny_run: TinyRun, tmp_path: Path):
    for index, cell in enumerate(elsewhere([0, 1, 2], 5)):
        cell.save(tmp_path / f"{index}.png")
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "black.png")
    with pytest.raises(WbcError) as raised:
        adapt(tiny_run.folder, tmp_path, tmp_path / "new")
    assert str(raised.value).startswith(
        f"3 pictures without labels (left out: 1 that show no stained cell): at least {MIN_UNLABELLED} are needed."
    )


def test_too_few_cells_with_labels(tiny_run: TinyRun, tmp_path: Path):
    labels = [3, 3, 4]
    cells = [AdaptationCell(cell, label, str(label)) for label, cell in zip(labels, elsewhere(labels, 6), strict=True)]
    with pytest.raises(WbcError, match="monocyte 2, neutrophil 1 labelled cells: at least 2 cells in each of 2 class"):
        adapt(tiny_run.folder, cells, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_name_no_class_beside_some_that_do(tiny_run: TinyRun, tmp_path: Path):
    for name, cell in zip(("mono", "neu", "blasts", "smudges"), elsewhere([3, 4, 0, 1], 7), strict=True):
        (tmp_path / name).mkdir()
        cell.save(tmp_path / name / "1.png")
    with pytest.raises(WbcError, match="its sub-folders blasts, smudges name no class, beside others that do"):
        adapt(tiny_run.folder, tmp_path, tmp_path / "new")


def test_folders_that_are_none(tiny_run: TinyRun, tmp_path: Path):
    with pytest.raises(WbcError, match=r"nowhere: is not a folder\."):
        adapt(tiny_run.folder, tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(WbcError, match="no pictures in this folder"):
        adapt(tiny_run.folder, tmp_path, tmp_path / "new")


def test_an_output_that_cannot_be_made(tiny_run: TinyRun, tmp_path: Path):
    with pytest.raises(WbcError, match="exists already"):
        adapt(tiny_run.folder, [], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WbcError, match="cannot be written"):
        adapt(tiny_run.folder, [], tmp_path / "file" / "new")


def test_an_output_that_another_program_makes_meanwhile(tmp_path: Path):
    output = tmp_path / "new"

    def make() -> None:
        with _new_folder(output) as folder:
            (folder / "wbc.json").touch()
            output.mkdir()
            (output / "theirs").touch()

    with pytest.raises(WbcError, match=r"new: cannot be made .*Another program may have made it since"):
        make()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["new", "new/theirs"]


def test_models_that_cannot_be_adapted(tmp_path: Path):
    _, processor = build_from_scratch(0.0625, image_size=32)
    other = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=32, depth_multiplier=0.25, num_labels=5))
    two, _ = build_from_scratch(0.0625, image_size=32)
    two.config.id2label = dict(enumerate(reversed(CLASS_NAMES)))
    for name, network in (("mobile", other), ("reversed", two)):
        network.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    with pytest.raises(WbcError, match="is a 'mobilenet_v2' model"):
        adapt(tmp_path / "mobile", [], tmp_path / "new")
    with pytest.raises(WbcError, match="tells neutrophil, monocyte, lymphocyte, eosinophil, basophil apart"):
        adapt(tmp_path / "reversed", [], tmp_path / "new")


@pytest.mark.parametrize(
    "content", [b"---\n- a\n---\n", b"---\n5: [\n---\n", b"---\nmodel-index: 5\n---\n", "# Zürich".encode("latin-1")]
)
def test_a_card_that_is_none_is_named_before_anything_is_learned(tiny_run: TinyRun, tmp_path: Path, content: bytes):
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "model"))
    (folder / "README.md").write_bytes(content)
    with pytest.raises(WbcError, match=r"README\.md: (its front matter is no card's|is not in UTF-8)"):
        adapt(folder, [], tmp_path / "new")


def test_an_interruption_leaves_nothing_behind(tiny_run: TinyRun, tmp_path: Path):
    def press_ctrl_c(what: str, share: float) -> None:
        if what == "Looking at the cells from all sides":
            raise KeyboardInterrupt

    cells = [AdaptationCell(cell, None, str(index)) for index, cell in enumerate(elsewhere(np.arange(200) % 5, 8))]
    with pytest.raises(KeyboardInterrupt):
        adapt(tiny_run.folder, cells, tmp_path / "new", progress=press_ctrl_c)
    assert list(tmp_path.iterdir()) == []
