"""A survey: who is run, what is kept, what is measured."""

import csv
import fcntl
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wbc_hf.data import Leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import compare_reports
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.survey.running import (
    HOME,
    Plan,
    Row,
    claim,
    finished_rows,
    read_plan,
    read_row,
    run_in_process,
    run_system,
    thin,
)
from wbc_hf.survey.system import Published, System, pictures

SPEC = "synthetic:12"


class MeanColour(System):
    """The class whose mean colour is nearest: what any system has to offer, and no more."""

    name = "mean-colour"
    title = "Mean colour"
    published = Published("these tests", cells="none")

    def fit(self, leucocytes: Leucocytes) -> None:
        colours = np.array([_colour(image) for image in pictures(leucocytes["train"])])
        labels = np.array(leucocytes["train"]["label"])
        self._means = np.array([colours[labels == label].mean(0) for label in range(len(CLASS_NAMES))])

    def predict_proba(self, images: Sequence[Image.Image]) -> np.ndarray:
        apart = np.array([[np.linalg.norm(_colour(image) - mean) for mean in self._means] for image in images])
        weights = np.exp(-apart)
        return weights / weights.sum(1, keepdims=True)

    @property
    def parameters(self) -> int:
        return self._means.size


def _colour(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float).mean((0, 1)) / 10


@pytest.mark.parametrize("most", [2, 9, 1000])
def test_a_subset_has_at_most_so_many_training_cells_of_each_class(leucocytes: Leucocytes, most: int):
    thinned = thin(leucocytes, most, seed=0)
    counts = np.bincount(thinned["train"]["label"])
    assert counts.tolist() == np.minimum(np.bincount(leucocytes["train"]["label"]), most).tolist()
    assert thinned["test"]["source"] == leucocytes["test"]["source"]
    assert thinned["validation"]["source"] == leucocytes["validation"]["source"]


def test_a_subset_hangs_on_its_seed(leucocytes: Leucocytes):
    sources = [list(thin(leucocytes, 5, seed)["train"]["source"]) for seed in (0, 0, 1)]
    assert sources[0] == sources[1] != sources[2]


@pytest.mark.parametrize("most", [1, 0, -3])
def test_a_subset_of_nothing_is_refused(most: int):
    with pytest.raises(WbcError, match=f"--most {most}: 2 cells of a class or more"):
        Plan(SPEC, most=most)


@pytest.mark.parametrize("names", [("a", "a"), ("test",), ("work",)])
def test_a_laboratory_has_a_name_of_its_own(names: tuple[str, ...]):
    with pytest.raises(WbcError, match=f"--laboratory {names[0]}: stands twice, or is a name"):
        Plan(SPEC, laboratories=tuple((name, SPEC) for name in names))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Row]:
    folder = tmp_path_factory.mktemp("survey") / MeanColour.name
    plan = Plan(SPEC, laboratories=(("elsewhere", "synthetic:5"),), most=6)
    return folder, run_system(MeanColour, plan, folder)


def test_a_row_says_what_was_measured(measured: tuple[Path, Row]):
    folder, row = measured
    assert (row.name, row.start, row.training_cells, row.parameters, row.resumed) == ("mean-colour", "", 30, 15, False)
    assert row.seconds > 0
    assert row.images_per_second > 0
    assert 50e6 < row.peak_bytes < 8e9
    assert list(row.reports) == [HOME, "elsewhere"]
    assert row.reports["elsewhere"]["count"] == 25  # all cells of another laboratory, not one of its splits
    assert row == read_row(folder.parent, row.name)


def test_answers_can_be_compared_pair_by_pair(measured: tuple[Path, Row], tmp_path: Path):
    folder, row = measured
    with (folder / HOME / "predictions.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == row.reports[HOME]["count"]
    assert np.mean([answer["true"] == answer["given"] for answer in answers]) == row.reports[HOME]["accuracy"]
    other = tmp_path / "other"
    other.mkdir()
    for answer in answers[:3]:
        answer["given"] = "basophil" if answer["given"] != "basophil" else "monocyte"
    with (other / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(answers[0]))
        writer.writeheader()
        writer.writerows(answers)
    assert sum(compare_reports(folder / HOME, other)["changed"].values()) == 3


def test_what_lets_a_fit_go_on_is_removed_when_it_is_done(measured: tuple[Path, Row]):
    folder, _ = measured
    assert sorted(path.name for path in folder.iterdir()) == ["elsewhere", "row.json", HOME]


def test_a_fit_that_was_stopped_is_told_from_a_whole_one(tmp_path: Path):
    (tmp_path / "mean-colour" / "work").mkdir(parents=True)
    assert run_system(MeanColour, Plan(SPEC), tmp_path / "mean-colour").resumed


def test_only_one_process_is_at_a_system(tmp_path: Path):
    work = tmp_path / "mean-colour" / "work"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(WbcError, match="another process runs it"):
            run_system(MeanColour, Plan(SPEC), tmp_path / "mean-colour")


def test_cells_with_near_duplicates_in_training_are_reported_apart(folder_of_cells: Path, tmp_path: Path):
    for path in folder_of_cells.rglob("*.png"):
        number = int(path.stem)
        split = ("train", "train", "validation", "test")[number % 4]
        copied = tmp_path / "set" / split / path.parent.name / path.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    leak = next((tmp_path / "set" / "train" / "monocyte").iterdir())
    shutil.copyfile(leak, tmp_path / "set" / "test" / "monocyte" / "leak.png")
    row = run_system(MeanColour, Plan(str(tmp_path / "set")), tmp_path / "mean-colour")
    report = row.reports[HOME]
    assert report["leaked"] == 1
    assert report["without_leaked"]["count"] == report["count"] - 1


@pytest.mark.long
def test_what_is_done_is_not_done_again_and_a_failure_stops_nobody_else(tmp_path: Path, capfd):
    survey = tmp_path / "survey"
    claim(survey, Plan(SPEC), {HOME: "a"})
    done = run_in_process(survey, "tiwari-2018-bayes")
    assert done == read_row(survey, "tiwari-2018-bayes")
    (survey / "manik-2016").write_text("a file where its folder should be")
    assert run_in_process(survey, "manik-2016") is None
    assert "manik-2016" in capfd.readouterr().err
    assert finished_rows(survey) == [done]

    written = (survey / "tiwari-2018-bayes" / "row.json").stat().st_mtime_ns
    assert run_in_process(survey, "tiwari-2018-bayes") == done
    assert (survey / "tiwari-2018-bayes" / "row.json").stat().st_mtime_ns == written


def test_a_folder_goes_on_with_its_own_survey_only(tmp_path: Path):
    survey = tmp_path / "survey"
    plan = Plan(SPEC, laboratories=(("elsewhere", "there"),), most=5)
    prints = {HOME: "a", "elsewhere": "b"}
    claim(survey, plan, prints)
    claim(survey, plan, prints)
    assert read_plan(survey) == plan
    with pytest.raises(WbcError, match="holds a survey already, whose most was 5, now 6; seed was 0, now 1"):
        claim(survey, replace(plan, most=6, seed=1), prints)
    with pytest.raises(WbcError, match="holds a survey already, whose images of elsewhere were others"):
        claim(survey, plan, prints | {"elsewhere": "c"})


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WbcError, match="is there already and holds no survey"):
        claim(tmp_path, Plan(SPEC), {})
    assert (tmp_path / "thesis.txt").read_text() == "mine"
