"""A laboratory's record and its name."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapted_models import AdaptedModel, make_adapted, write_tiny_model
from wbc_hf.adaptation import CountRecord, Laboratory, normalise_laboratory
from wbc_hf.adaptation.laboratory import laboratory_folder_name
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "before")
    return make_adapted(Predictor.from_pretrained(folder / "before", "torch"), folder / "after")


@pytest.fixture
def laboratory(adapted: AdaptedModel) -> Laboratory:
    return Laboratory(
        name="Raabin 2026 / MGG",
        made="2026-01-01T00:00:00.000+00:00",
        changed="2026-02-01T00:00:00.000+00:00",
        adaptation=adapted.adaptation,
        version=adapted.version,
        revision=3,
        keep_cells=True,
        history=(CountRecord("2026-02-02T00:00:00.000+00:00", 100, 0.25, False),),
    )


def test_a_record_is_read_as_it_was_written(laboratory: Laboratory, tmp_path: Path):
    laboratory.save(tmp_path / "laboratory.json")
    assert Laboratory.load(tmp_path / "laboratory.json") == laboratory
    assert (laboratory.labelled, laboratory.unlabelled) == (18, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "../../elsewhere"},
        {"revision": True},
        {"name": ".."},
        {"name": 5},
        {"keep_cells": "no"},
        {"changed": None},
        {"history": [{"time": "now"}]},
        {"history": [{"time": "now", "cells": 1, "distance": float("nan"), "unlike": False}]},
        {"history": "often"},
        {"adaptation": {}},
        {"adaptation": None},
        {"another": 1},
    ],
)
def test_a_record_with_other_values_is_named(laboratory: Laboratory, tmp_path: Path, change: dict):
    file = tmp_path / "laboratory.json"
    laboratory.save(file)
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), encoding="utf-8")
    with pytest.raises(WbcError, match=r"laboratory.json: cannot be read .*Remove the laboratory"):
        Laboratory.load(file)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\ud800"])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, content: str):
    file = tmp_path / "laboratory.json"
    file.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(WbcError, match=r"laboratory.json: cannot be read"):
        Laboratory.load(file)


def test_a_record_of_a_later_version_is_named(laboratory: Laboratory, tmp_path: Path):
    file = tmp_path / "laboratory.json"
    laboratory.save(file)
    file.write_text(file.read_text("utf-8").replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(WbcError, match=r"was written by another version of wbc_hf\. Update the package"):
        Laboratory.load(file)


# ---- drift


@pytest.mark.parametrize(
    ("unlike", "began"),
    [("", None), (".", None), ("!", 0), (".!!", 1), ("!.!", 2), ("!!.", None), ("!!!", 0)],
)
def test_drift_began_with_the_first_of_the_last_unlike_specimens(laboratory: Laboratory, unlike: str, began: int):
    history = tuple(
        CountRecord(f"2026-03-{day + 1:02d}T00:00:00.000+00:00", 100, 1.0, sign == "!")
        for day, sign in enumerate(unlike)
    )
    found = replace(laboratory, history=history).drift()
    assert found == (None if began is None else history[began].time)


def test_what_an_earlier_model_found_unlike_is_no_drift(laboratory: Laboratory):
    times = ("2026-01-15T00:00:00.000+00:00", "2026-02-15T00:00:00.000+00:00")
    history = tuple(CountRecord(time, 100, 1.0, True) for time in times)
    assert replace(laboratory, history=history[:1]).drift() is None
    assert replace(laboratory, history=history).drift() == times[1]


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "Raabin 2026 / MGG",
        "a",
        "../../etc/passwd",
        "CON",
        "nul.txt",
        "C:\\lab",
        "血液",
        "Ä" * 60,
        "-x",
        "~root",
        "$HOME",
    ],
)
def test_a_name_is_kept_and_its_folder_is_safe_on_every_system(name: str):
    assert normalise_laboratory(name) == name
    folder = laboratory_folder_name(name)
    assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert folder[0].isalnum() and len(folder) <= 43 and len(folder.split("-")[-1]) == 12
    assert Path(os.path.normpath(Path("/store") / folder)).parent == Path("/store")


def test_names_that_look_alike_are_one_laboratory_and_others_are_not():
    assert len({laboratory_folder_name(name) for name in ("Straße 1", "STRASSE  1", " strasse 1\n")}) == 1
    assert len({laboratory_folder_name(name) for name in ("Zu\u0308rich", "Z\u00fcrich", "ZÜRICH")}) == 1
    different = ("Zürich", "Zurich", "a/b", "a b", "a-b", "血", "液", "lab 1", "lab 2", "x" * 60, "x" * 59)
    assert len({laboratory_folder_name(name) for name in different}) == len(different)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "has 1 to 60 characters"),
        ("  \t", "has 1 to 60 characters"),
        ("x" * 61, "has 1 to 60 characters"),
        ("a\0b", r"a\\x00b: holds characters that cannot be seen"),
        ("a\x1b[31m", r"a\\x1b\[31m: holds characters that cannot be seen"),
        ("a\u202eb", "cannot be seen"),
        ("a\ud800", "cannot be seen"),
        ("..", "has no letter or digit"),
        ("/ / /", "has no letter or digit"),
    ],
)
def test_what_is_no_name_is_refused(name: str, reason: str):
    for check in (normalise_laboratory, laboratory_folder_name):
        with pytest.raises(WbcError, match=reason):
            check(name)
