"""The model card: valid front matter, figures that are the run's own, nothing private, the warnings in place."""

import copy
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.loopback_hub import LoopbackHub, connect
from wbc_hf.evaluation.model_card import render_card
from wbc_hf.hub import read_changes
from wbc_hf.labels import CLASS_NAMES

# Limits end in 1 and 9, other figures do not: a number in a card tells what it is.
METRICS = {
    "count": 103,
    "accuracy": 0.91262,
    "balanced_accuracy": 0.8654,
    "macro_precision": 0.8321,
    "macro_recall": 0.8654,
    "macro_f1": 0.84567,
    "matthews_correlation": 0.8877,
    "roc_auc": 0.97123,
    "per_class": {
        "basophil": {"precision": 0.5, "recall": 0.6667, "f1": 0.5714, "support": 3, "roc_auc": 0.9234},
        "eosinophil": {"precision": 0.9, "recall": 0.95, "f1": 0.9243, "support": 20, "roc_auc": 0.9811},
        "lymphocyte": {"precision": 0.96, "recall": 0.93, "f1": 0.9447, "support": 40, "roc_auc": 0.9922},
        "monocyte": {"precision": None, "recall": None, "f1": None, "support": 0, "roc_auc": None},
        "neutrophil": {"precision": 0.97, "recall": 0.92, "f1": 0.9443, "support": 40, "roc_auc": 0.9888},
    },
    "confusion_matrix": [[2, 1, 0, 0, 0], [1, 19, 0, 0, 0], [0, 0, 37, 3, 0], [0, 0, 0, 0, 0], [1, 1, 0, 1, 37]],
    "intervals": {
        "accuracy": [0.851, 0.959],
        "balanced_accuracy": [0.701, 0.909],
        "macro_precision": [0.711, 0.919],
        "macro_recall": [0.701, 0.909],
        "macro_f1": [0.721, 0.929],
        "matthews_correlation": [0.801, 0.949],
        "roc_auc": [0.931, 0.989],
        "per_class": {
            "basophil": dict.fromkeys(("precision", "recall", "f1", "roc_auc")),
            "eosinophil": {
                "precision": [0.741, 0.979],
                "recall": [0.801, 0.999],
                "f1": [0.791, 0.969],
                "roc_auc": [0.901, 0.999],
            },
            "lymphocyte": {
                "precision": [0.881, 0.999],
                "recall": [0.841, 0.989],
                "f1": [0.881, 0.979],
                "roc_auc": [0.951, 0.999],
            },
            "monocyte": dict.fromkeys(("precision", "recall", "f1", "roc_auc")),
            "neutrophil": {
                "precision": [0.891, 0.999],
                "recall": [0.831, 0.979],
                "f1": [0.881, 0.979],
                "roc_auc": [0.941, 0.999],
            },
        },
    },
    "distinct_cells": {"basophil": 1, "eosinophil": 20, "lymphocyte": 33, "monocyte": 0, "neutrophil": 19},
}
CALIBRATION = {
    "temperature": 1.4567,
    "before": {"ece": 0.0812, "brier": 0.1534, "intervals": {"ece": [0.041, 0.129], "brier": [0.091, 0.219]}},
    "after": {"ece": 0.0234, "brier": 0.1432, "intervals": {"ece": [0.011, 0.069], "brier": None}},
}
REVIEW = {
    "threshold": 0.8768,
    "target_accuracy": 0.99,
    "coverage": 0.8252,
    "accuracy_of_accepted": 0.9882,
    "intervals": {"coverage": [0.751, 0.889], "accuracy_of_accepted": [0.961, 0.999]},
    "error_at_coverage": [[0.5, 0.0], [0.95, 0.0612], [1.0, 0.0874]],
}
WITHOUT_LEAKED = METRICS | {"count": 91, "accuracy": 0.8022, "intervals": METRICS["intervals"] | {"accuracy": None}}
AUDIT = {
    "distinct_cells": {
        "train": {"basophil": 7, "eosinophil": 50, "lymphocyte": 60, "monocyte": 1, "neutrophil": 70},
        "validation": {"basophil": 2, "eosinophil": 21, "lymphocyte": 30, "neutrophil": 31},
        "test": {"basophil": 1, "eosinophil": 20, "lymphocyte": 33, "monocyte": 0, "neutrophil": 19},
    },
    "across": 4,
    "contradictions": 1,
    "near_duplicates": 250,
}
RUN = {
    "base_model": "microsoft/resnet-50",
    "width": 1.0,
    "image_size": 224,
    "freeze": "stage2",
    "arguments": {"learning_rate": 0.0005, "num_train_epochs": 15.0, "seed": 7, "output_dir": "/home/anna/runs/a"},
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "finished": "2026-03-14T15:09:26+00:00",
    "data": {
        "spec": "somebody/cells",
        "title": "Cells of Somebody (2020)",
        "licence": "CC-BY-4.0",
        "homepage": "https://example.org/cells",
        "fingerprint": "f1a2b3c4",
        "given_splits": False,
        "splits": {
            "train": {"basophil": 14, "eosinophil": 93, "lymphocyte": 187, "monocyte": 1, "neutrophil": 188},
            "validation": {"basophil": 3, "eosinophil": 21, "lymphocyte": 41, "neutrophil": 42},
            "test": {"basophil": 3, "eosinophil": 20, "lymphocyte": 40, "monocyte": 0, "neutrophil": 40},
        },
        "skipped": [{"name": "/home/anna/smears/broken.png", "reason": "not an image"}],
    },
}


def run_with(**changes: object) -> dict:
    """`RUN` with some values changed; a key of `data` is given as `data_key`."""
    run = copy.deepcopy(RUN)
    for key, value in changes.items():
        target, key = (run["data"], key.removeprefix("data_")) if key.startswith("data_") else (run, key)
        target[key] = value
    return run


def front_matter(card: str) -> dict:
    return ModelCard(card).data.to_dict()


def test_front_matter():
    data = front_matter(render_card(RUN, METRICS, "me/name"))
    index = data.pop("model-index")
    tags = data.pop("tags")
    assert data == {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "license": "apache-2.0",
        "base_model": "microsoft/resnet-50",
        "datasets": ["somebody/cells"],
        "metrics": ["accuracy", "precision", "recall", "f1", "matthews_correlation", "roc_auc"],
    }
    assert {"leucocytes", "haematology"} <= set(tags)
    [model] = index
    [result] = model["results"]
    assert model["name"] == "me/name"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"type": "somebody/cells", "name": "Cells of Somebody (2020)", "split": "test"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {
        "accuracy": 0.9126,
        "precision": 0.8321,
        "recall": 0.8654,
        "f1": 0.8457,
        "matthews_correlation": 0.8877,
        "roc_auc": 0.9712,
    }


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        run_with(base_model=None, width=0.25, data_spec="synthetic", data_title="Painted cells", data_homepage=""),
        run_with(data_spec="/home/anna/smears", data_title="/home/anna/smears", data_licence=None, data_homepage=None),
        run_with(data_title='Cells: "a" & b # c', arguments={}, width=None),
        run_with(data_given_splits=True, data_groups_across=0),
        run_with(data_given_splits=None, data_fingerprint=None, data_splits={"test": RUN["data"]["splits"]["test"]}),
        run_with(data_audit=AUDIT, data_given_splits=True),
    ],
)
@pytest.mark.parametrize(
    "added",
    [
        {},
        {"calibration": CALIBRATION},
        {"review": REVIEW},
        {"calibration": CALIBRATION, "review": REVIEW, "leaked": 12, "without_leaked": WITHOUT_LEAKED},
    ],
)
def test_the_hub_accepts_it(run: dict, added: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    card = render_card(run, METRICS | added)
    with LoopbackHub() as hub:
        connect(hub, monkeypatch, tmp_path)
        ModelCard(card).validate()
    assert front_matter(card)["model-index"][0]["results"][0]["dataset"]["name"]
    for leftover in ("{{", "{%", "None", " \n"):
        assert leftover not in card
    assert "\n\n\n" not in card


def numbers_in(value: object) -> set[str]:
    """Every float in a structure, with three places and as percentage with one."""
    if isinstance(value, float):
        return {f"{value:.3f}", f"{100 * value:.1f}"}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return set().union(*map(numbers_in, inner))


@pytest.mark.parametrize("added", [{}, {"calibration": CALIBRATION, "review": REVIEW}])
def test_every_figure_comes_from_the_run(added: dict):
    body = render_card(RUN, METRICS | added, "me/name").split("\n---\n", 1)[1]
    numbers = set(re.findall(r"\d+\.\d+", body)) - {
        "2.0",
        "10.1148",
        "10.1136",
    }  # Apache-2.0, and the papers of the checklists
    assert numbers - numbers_in(METRICS | added) == {"2.13", "5.23", "0.0005", "15.0", "4.0"}
    assert {number for number in numbers_in(METRICS) if len(number) == 5} <= numbers


def test_tables():
    card = render_card(RUN, METRICS)
    assert "| class | train | validation | test |" in card
    assert "| eosinophil | 93 | 21 | 20 |" in card
    assert "| monocyte | 1 | 0 | 0 |" in card
    assert "| **all** | 483 | 107 | 103 |" in card
    assert "| measure | value | 95 % CI |\n|---|---:|---:|\n| Accuracy | 0.913 | 0.851 to 0.959 |\n" in card
    assert "| Macro F1 | 0.846 | 0.721 to 0.929 |" in card
    assert "| basophil | 0.500 | 0.667 | 0.571 | 0.923 | 3 | 1 | too few to evaluate |" in card
    eosinophil = "0.900 (0.741 to 0.979) | 0.950 (0.801 to 0.999) | 0.924 (0.791 to 0.969) | 0.981 (0.901 to 0.999)"
    assert f"| eosinophil | {eosinophil} | 20 | 20 |  |" in card
    assert "| monocyte | – | – | – | – | 0 | 0 | not evaluated: no test cells |" in card
    assert "| 40 | 19 | too few to evaluate |" in card  # twenty cells, not twenty images
    assert "| `learning_rate` | 0.0005 |" in card
    assert "Fewer than 20 distinct test cells are too few" in card
    for heading in ("without those", "brackets how many", "### Calibration", "### Selective prediction", "3/n"):
        assert heading not in card


def test_every_row_of_a_table_is_as_wide_as_its_head():
    run = run_with(data_audit=AUDIT)
    leak = {"leaked": 12, "without_leaked": WITHOUT_LEAKED}
    for metrics in (METRICS, METRICS | leak | {"calibration": CALIBRATION, "review": REVIEW}):
        tables = re.findall(r"(?:^\|.*\n)+", render_card(run, metrics).split("\n---\n", 1)[1], re.MULTILINE)
        assert len(tables) == (6 if metrics is METRICS else 8)
        for table in tables:
            head, rule, *rows = table.splitlines()
            assert set(rule) <= set("|-:")
            assert rows
            assert {row.count("|") for row in (rule, *rows)} == {head.count("|")}


def test_no_class_is_called_too_small_where_none_is():
    metrics = METRICS | {"distinct_cells": dict.fromkeys(CLASS_NAMES, 20)}
    assert "too few" not in render_card(RUN, metrics)


def test_calibration():
    card = render_card(RUN, METRICS | {"calibration": CALIBRATION})
    assert "| Expected calibration error | 0.081 (0.041 to 0.129) | 0.023 (0.011 to 0.069) |" in card
    assert "| Brier score, 0 to 2 | 0.153 (0.091 to 0.219) | 0.143 |" in card
    assert "divides the logits by\n1.457" in card
    assert "(figures/reliability.png)" in card
    assert "figures/risk_coverage.png" not in card


def test_review():
    card = render_card(RUN, METRICS | {"review": REVIEW})
    assert "below 0.877 have the status `review`" in card
    share = "82.5 % (75.1 to 88.9 %) of the images, and 98.8 % (96.1 to 99.9 %) of those are right."
    assert f"On the test split these are {share}" in card
    assert "aiming at 99 % right predictions" in card
    assert "| coverage | 50 % | 95 % | 100 % |\n|---|---:|---:|---:|\n| error rate | 0.0 % | 6.1 % | 8.7 % |" in card
    assert "(figures/risk_coverage.png)" in card
    assert "figures/reliability.png" not in card


def test_the_card_says_what_temperature_and_threshold_were_fitted_on():
    metrics = METRICS | {"calibration": CALIBRATION, "review": REVIEW}
    home = " ".join(render_card(RUN, metrics).split())
    assert "Temperature scaling, fitted on the validation split, divides" in home
    assert "The threshold was chosen on the validation split, aiming" in home
    elsewhere = metrics | {"review": REVIEW | {"left_out": ["One", "Other"]}}
    left_out = " ".join(render_card(RUN, elsewhere).split())
    assert "Temperature scaling, fitted on laboratories that were left out of training, so" in left_out
    assert "The threshold was chosen on One, Other, each predicted by a model trained without it" in left_out
    assert "the validation split" not in left_out


def test_review_that_accepts_nothing_for_no_target():
    nothing = {
        "coverage": 0.0,
        "accuracy_of_accepted": None,
        "target_accuracy": None,
        "intervals": {"coverage": None, "accuracy_of_accepted": None},
    }
    card = render_card(RUN, METRICS | {"review": REVIEW | nothing})
    assert "On the test split these are 0.0 % of the images.\n" in card
    assert "aiming at" not in card
    assert "None" not in card


def test_leaked_images_are_reported_both_ways():
    card = render_card(RUN, METRICS | {"leaked": 12, "without_leaked": WITHOUT_LEAKED})
    assert "**12 of the test images show cells that were also in training or validation**. The columns" in card
    assert "from 91 images" in card
    assert "| Accuracy | 0.913 | 0.851 to 0.959 | 0.802 | – |" in card
    assert front_matter(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9126


def test_leaks_of_none_of_one_and_of_all():
    assert render_card(RUN, METRICS | {"leaked": 0}) == render_card(RUN, METRICS)
    one = render_card(RUN, METRICS | {"leaked": 1, "without_leaked": WITHOUT_LEAKED})
    assert "**1 of the test images shows a cell that was also in training or validation**" in one
    every = render_card(RUN, METRICS | {"leaked": 103, "without_leaked": None})
    assert "**103 of the test images show cells that were also in training or validation**: none is left" in every
    assert "without those" not in every


def test_commit_and_machine_stand_under_the_versions():
    machine = {"processor": "Some Processor", "cores": 2, "gpu": None, "system": "Linux x86_64"}
    card = render_card(RUN | {"commit": "abc", "machine": machine}, METRICS)
    assert "Commit `abc`.\nTrained on Some Processor, 2 cores, Linux x86_64." in card
    card = render_card(RUN | {"commit": "abc+", "machine": machine | {"gpu": "Some GPU", "cores": 1}}, METRICS)
    assert "Commit `abc+`, with changes that were not committed.\nTrained on Some GPU, 1 core," in card
    assert "Commit" not in render_card(RUN | {"commit": None}, METRICS)


def test_the_first_change_is_the_training():
    [change] = read_changes(render_card(RUN, METRICS))
    assert change == "2026-03-14: trained on Cells of Somebody (2020), finished at 15:09:26 UTC."


def test_audit():
    card = render_card(run_with(data_audit=AUDIT, data_given_splits=True, data_groups_across=99), METRICS)
    assert "| eosinophil | 93 (50) | 21 (21) | 20 (20) |" in card
    assert "| monocyte | 1 (1) | 0 (0) | 0 (0) |" in card
    assert "| **all** | 483 (188) | 107 (84) | 103 (73) |" in card
    assert "250 of them show a cell that another one shows already, and 1 cell carries more than one class." in card
    assert "**4 groups of images" in card
    assert "99 groups" not in card


def test_audit_that_finds_nothing():
    card = render_card(run_with(data_audit=AUDIT | {"across": 0, "contradictions": 0, "near_duplicates": 0}), METRICS)
    assert "none of them shows a cell that another one shows already, and no cells carry more than one class." in card


def test_an_undefined_measure_is_left_out_of_the_model_index():
    card = render_card(RUN, METRICS | {"roc_auc": None, "matthews_correlation": None})
    assert front_matter(card)["metrics"] == ["accuracy", "precision", "recall", "f1"]
    assert "| Matthews correlation | – | 0.801 to 0.949 |" in card


def test_warnings_and_limits_stand_in_the_body():
    card = render_card(RUN, METRICS)
    first_section = card.split("\n---\n", 1)[1].split("\n## ")[0]
    assert "**Research use, not for diagnosis.**" in first_section
    for words in ("Other laboratories", "Five classes only", "by patient", "figures/confusion_matrix.png"):
        assert words in card
    assert "figures/misclassified.png" not in card
    assert "1 file could not be read and was left out." in card
    assert "torch 2.13.0, transformers 5.23.0." in card
    assert "f1a2b3c4" in card


def test_snippets_name_the_model():
    card = render_card(RUN, METRICS, "me/name")
    assert 'pipeline("image-classification", model="me/name")' in card
    assert 'Predictor.from_pretrained("me/name")' in card
    assert "OWNER/NAME" not in card
    assert render_card(RUN, METRICS).count("OWNER/NAME") == 3  # two snippets and the model-index


def test_splits_given_or_cut():
    assert "divided here, 70/15/15" in render_card(RUN, METRICS)
    given = render_card(run_with(data_given_splits=True), METRICS)
    assert "published with the data" in given
    assert "70/15/15" not in given
    assert "both sides of it" not in given
    leaking = render_card(run_with(data_given_splits=True, data_groups_across=12), METRICS)
    assert "**12 groups of images that show the same cell or photograph stand on both sides of it**" in leaking


def test_a_stream_is_called_one():
    run = run_with(data_given_splits=None, data_fingerprint=None, data_splits={"test": RUN["data"]["splits"]["test"]})
    card = render_card(run, METRICS)
    assert "read as a stream" in card
    assert "| class | test |" in card
    assert "Fingerprint" not in card
    assert "could be read" not in card


@pytest.mark.parametrize(
    ("base_model", "width", "name"),
    [
        ("microsoft/resnet-50", None, "A ResNet-50 that"),
        ("microsoft/resnet-18", None, "A ResNet that"),
        (None, 1.0, "A ResNet-50 that"),
        (None, 0.25, "A ResNet-50 with 0.25 times the channels that"),
    ],
)
def test_the_network_is_named(base_model: str | None, width: float | None, name: str):
    assert name in render_card(run_with(base_model=base_model, width=width), METRICS)


def test_no_local_path_gets_out():
    run = run_with(base_model="/home/anna/checkpoint", data_spec="/home/anna/smears", data_title="/home/anna/smears")
    card = render_card(run, METRICS)
    assert "anna" not in card
    assert "a folder of images that is not published" in card
    assert "Fine-tuned from a local checkpoint." in card
    assert not {"datasets", "base_model"} & set(front_matter(card))


def test_a_relative_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "cells").mkdir(parents=True)
    run = run_with(data_spec="data/cells", data_title="data/cells")
    assert "datasets" not in front_matter(render_card(run, METRICS))
    assert "data/cells" not in render_card(run, METRICS)


@pytest.mark.parametrize("spec", ["kaggle:somebody/cells", "synthetic:5", "cells"])
def test_only_a_hub_id_counts_as_a_data_set(spec: str):
    data = front_matter(render_card(run_with(data_spec=spec), METRICS))
    assert "datasets" not in data
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "imagefolder"


def test_painted_cells_are_called_painted():
    assert "drawn by a program" not in render_card(RUN, METRICS)
    card = render_card(run_with(data_spec="synthetic", base_model=None, width=0.25), METRICS)
    assert "drawn by a program" in card
    assert "Trained from scratch" in card
    assert "ResNet-50 with 0.25 times the channels" in card
    assert "by patient" not in card


def test_what_was_searched_and_what_was_computed_once():
    searched = {"trials": 20, "epochs": 3, "space": {"learning_rate": {}, "freeze": []}}
    run = RUN | {"search": searched, "arguments": RUN["arguments"] | {"cached_views": 4}}
    card = render_card(run, METRICS)
    assert "Layers frozen during training: stage2, computed once for 4 views of each image. Of 20 trials" in card
    assert " Of 20 trials of 3 epochs, the best on validation chose `learning_rate`, `freeze`.\n" in card
    assert "Layers frozen during training: stage2.\n" in render_card(RUN, METRICS)


def test_each_laboratory_has_a_row():
    shared = {"licence": None, "homepage": None, "given_splits": False}
    ours = shared | {"laboratory": "ours", "spec": "/home/anna/ours", "title": "/home/anna/ours"}
    theirs = {"laboratory": "theirs", "spec": "somebody/cells", "title": "Cells of Somebody (2020)"}
    theirs |= {"licence": "MIT", "homepage": "https://example.org/cells", "given_splits": True}
    run = run_with(
        data_origins=[ours, theirs],
        data_spec="/home/anna/ours somebody/cells",
        data_title="/home/anna/ours, Cells of Somebody (2020)",
        data_licence="not known (ours), MIT (theirs)",
        data_homepage=None,
    )
    part = {"count": 40, "accuracy": 0.9, "balanced_accuracy": None, "intervals": METRICS["intervals"]}
    review = part | {"review": REVIEW | {"coverage": 0.6543}}
    metrics = METRICS | {"review": REVIEW, "laboratories": {"ours": review, "theirs": part | {"review": REVIEW}}}
    card = render_card(run, metrics)
    assert "| ours | a folder of images that is not published | not known | made here |" in card
    assert "| theirs | [Cells of Somebody (2020)](https://example.org/cells) | MIT | published |" in card
    [row] = [line for line in card.splitlines() if line.startswith("| ours | 40 |")]
    assert "65.4 %" in row
    assert row.count("|") == 7
    assert "anna" not in card
    assert front_matter(card)["datasets"] == ["somebody/cells"]
    assert front_matter(card)["model-index"][0]["results"][0]["dataset"]["type"] == "imagefolder"
    assert "| laboratory |" not in render_card(RUN, METRICS)


def test_card_says_what_to_expect_in_laboratories_that_the_model_has_not_seen():
    elsewhere = METRICS | {"count": 351, "accuracy": 0.7752, "review": REVIEW}
    card = render_card(RUN, METRICS | {"review": REVIEW, "unseen": {"Somewhere": elsewhere}})
    [row] = [line for line in card.splitlines() if line.startswith("| Somewhere | 351 | 0.775")]
    assert row.count("|") == 7
    assert "### In laboratories that it has not seen" in card
    assert "not seen\n" not in render_card(RUN, METRICS)
