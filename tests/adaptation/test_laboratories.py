"""The store of laboratories: what is kept is loaded again, whole, whoever else writes and whatever breaks off."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.adapted_models import AdaptedModel, make_adapted
from wbc_hf.adaptation import AdaptationCell, Laboratories, adapt, laboratories, laboratories_folder
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "models" / "starter"
NAME = "Raabin 2026 / MGG"


@pytest.fixture
def store(store_folder: Path) -> Laboratories:
    return Laboratories(store_folder)


def kept(store: Laboratories, model: AdaptedModel, name: str = NAME, keep_cells: bool | None = None) -> None:
    store.keep(name, model.base, model.folder, model.adaptation, keep_cells=keep_cells)


def painted(count: int) -> list[Image.Image]:
    return [Image.fromarray(cell) for cell in paint_cells([index % 5 for index in range(count)], size=48, seed=8)]


def reviewed(count: int) -> list[AdaptationCell]:
    return [AdaptationCell(image, index % 5, f"{index // 5}") for index, image in enumerate(painted(count))]


# ---- where


def test_the_folder_is_the_variable_s_else_that_for_the_user_s_data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WBC_HF_LABORATORIES", "~/mine")
    assert laboratories_folder() == Path.home() / "mine"
    assert Laboratories().folder == Path.home() / "mine"
    monkeypatch.delenv("WBC_HF_LABORATORIES")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert laboratories_folder() == Path("/data/wbc_hf/laboratories")
    monkeypatch.setenv("XDG_DATA_HOME", "")
    assert laboratories_folder() == Path.home() / ".local/share/wbc_hf/laboratories"


def test_reading_makes_no_folder_and_writing_closes_it_to_others(store: Laboratories, first: AdaptedModel):
    assert store.names() == () == store.list()
    with pytest.raises(WbcError, match=r"raabin: no laboratory of this name in .*There are none yet"):
        store.show("raabin")
    assert not store.folder.exists()
    kept(store, first)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


# ---- the model


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_laboratory_answers_as_the_adapted_model_does(store: Laboratories, first: AdaptedModel, backend: str):
    kept(store, first)
    base = Predictor.from_pretrained(first.base.folder, backend)
    expected = Predictor.from_pretrained(first.folder, backend)
    loaded = store.load(NAME, base)
    assert (loaded.identity.version, loaded.identity.name) == (first.version, f"tiny, adapted to {NAME}")
    assert loaded.backend.name == base.backend.name
    images = painted(10)
    np.testing.assert_allclose(loaded.probabilities(images), expected.probabilities(images), atol=1e-5)
    assert loaded.classify(images)[1] == expected.classify(images)[1]
    assert loaded.calibration.numbers == expected.calibration.numbers
    # The base is as it was.
    assert base.identity == Predictor.from_pretrained(first.base.folder, "torch").identity


def test_a_laboratory_is_shown_as_it_was_kept(store: Laboratories, first: AdaptedModel):
    made = store.keep(f" {NAME}\n", first.base.folder, first.folder, first.adaptation)
    assert made == store.show(NAME.upper()) == store.list()[0]
    assert (made.name, made.adaptation, made.version) == (NAME, first.adaptation, first.version)
    assert (made.revision, made.keep_cells, made.history, made.changed) == (1, False, (), made.made)
    assert store.names() == (NAME,)


def test_the_model_of_a_laboratory_is_replaced(store: Laboratories, first: AdaptedModel, second: AdaptedModel):
    kept(store, first)
    store.record_count(NAME, 100, 2.0, True)
    before = store.show(NAME)
    kept(store, second, NAME.lower())
    after = store.show(NAME)
    assert (after.name, after.made, after.history) == (NAME, before.made, before.history)
    assert (after.revision, after.version) == (2, second.version)
    assert after.changed >= before.changed and after.drift() is None
    assert store.load(NAME, first.base).identity.version == second.version
    assert [path.name for path in store.folder.glob("*/revisions/*")] == ["2"]


@pytest.mark.slow
def test_what_adapt_writes_is_kept_and_what_is_kept_was_evaluated(store: Laboratories, first: AdaptedModel, tmp_path):
    cells = [AdaptationCell(cell.image, cell.label, f"{index}") for index, cell in enumerate(reviewed(10))]
    adaptation = adapt(first.base.folder, cells, tmp_path / "adapted")
    assert adaptation.labelled == dict.fromkeys(CLASS_NAMES, 2)
    store.keep(NAME, first.base, tmp_path / "adapted", adaptation)
    expected = Predictor.from_pretrained(tmp_path / "adapted", "torch").identity.version
    assert store.load(NAME, first.base).identity.version == expected != first.base.identity.version


@pytest.mark.slow
def test_a_laboratory_of_the_starter_takes_at_most_three_megabytes(store: Laboratories, tmp_path: Path, seed: int):
    base = Predictor.from_pretrained(STARTER, "torch")
    model = make_adapted(base, tmp_path / "adapted", seed=seed, cells=100)
    kept(store, model)
    (file,) = store.folder.glob("*/laboratory.json")
    record = json.loads(file.read_text("utf-8"))
    one = {"time": "2026-03-01T00:00:00.000+00:00", "cells": 100, "distance": 0.1234567890123456, "unlike": False}
    file.write_text(json.dumps(record | {"history": [one] * laboratories.MAX_HISTORY}, indent=2), encoding="utf-8")
    store.record_count(NAME, 100, 0.1, False)
    assert len(store.show(NAME).history) == laboratories.MAX_HISTORY
    assert store.size(NAME) <= 3_000_000
    loaded = store.load(NAME, base)
    assert loaded.identity.version == model.version
    assert base.identity.version == Predictor.from_pretrained(STARTER, "torch").identity.version


# ---- what cannot be kept or loaded


def test_the_base_must_be_the_one_that_was_adapted(store: Laboratories, first: AdaptedModel):
    kept(store, first)
    other = Predictor.from_pretrained(first.folder, "torch")
    version, others = first.base.identity.version, other.identity.version
    message = rf"was adapted from the model tiny, version {version}; this is first, version {others}"
    with pytest.raises(WbcError, match=message):
        store.load(NAME, other)
    with pytest.raises(WbcError, match=message):
        store.keep(NAME, other, first.folder, first.adaptation)


def test_a_model_that_was_not_rounded_is_not_kept(store: Laboratories, first: AdaptedModel, tmp_path: Path):
    shutil.copytree(first.folder, tmp_path / "model")
    network = Predictor.from_pretrained(first.folder, "torch").model
    network.resnet.embedder.embedder.convolution.weight.data.mul_(1.37)
    network.save_pretrained(tmp_path / "model")
    with pytest.raises(WbcError, match="was not rounded"):
        store.keep(NAME, first.base, tmp_path / "model", first.adaptation)
    assert store.names() == ()
    assert not [path for path in store.folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_model_without_calibration_is_not_kept(store: Laboratories, first: AdaptedModel, tmp_path: Path):
    shutil.copytree(first.folder, tmp_path / "model")
    (tmp_path / "model" / "wbc.json").unlink()
    with pytest.raises(WbcError, match="has no calibration"):
        store.keep(NAME, first.base, tmp_path / "model", first.adaptation)


@pytest.mark.parametrize("file", ["difference.safetensors", "wbc.json", "wbc.safetensors"])
def test_broken_and_missing_files_of_a_laboratory_are_named(store: Laboratories, first: AdaptedModel, file: str):
    kept(store, first)
    (path,) = store.folder.glob(f"*/revisions/1/{file}")
    path.write_bytes(b"broken")
    with pytest.raises(WbcError, match="cannot be read") as raised:
        store.load(NAME, first.base)
    assert str(path) in str(raised.value)
    path.unlink()
    with pytest.raises(WbcError, match="revisions/1"):
        store.load(NAME, first.base)
    store.remove(NAME)
    assert store.names() == ()


def test_the_weights_of_another_laboratory_are_noticed(store: Laboratories, first: AdaptedModel, second: AdaptedModel):
    kept(store, first)
    kept(store, second, "other")
    files = {path.read_bytes(): path for path in store.folder.glob("*/revisions/1/difference.safetensors")}
    for content, path in zip(reversed(files), files.values(), strict=True):
        path.write_bytes(content)
    with pytest.raises(WbcError, match=rf"gives a model of version {second.version}, not {first.version}"):
        store.load(NAME, first.base)


def test_a_broken_record_is_named_and_the_others_are_listed(
    store: Laboratories, first: AdaptedModel, caplog: pytest.LogCaptureFixture
):
    for name in ("one", "two", "three"):
        kept(store, first, name)
    (store.folder / "no laboratory").mkdir()
    (store.folder / "a file").touch()
    (folder,) = store.folder.glob("two-*")
    (folder / "laboratory.json").write_text("{")
    shutil.copytree(next(store.folder.glob("one-*")), store.folder / "one-copy")
    assert store.names() == ("one", "three")
    broken, copy = sorted((record.getMessage() for record in caplog.records), key=lambda text: "one-copy" in text)
    assert "laboratory.json: cannot be read" in broken
    assert "one-copy: holds the record of one, whose folder is another" in copy
    with pytest.raises(WbcError, match=r"laboratory.json: cannot be read"):
        store.show("two")
    store.remove("two")
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions bind neither root nor Windows")
def test_a_store_that_is_read_only_can_be_read(store: Laboratories, first: AdaptedModel):
    kept(store, first)
    store.folder.chmod(0o500)
    try:
        assert store.load(NAME, first.base).identity.version == first.version
    finally:
        store.folder.chmod(0o700)


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path, first: AdaptedModel):
    (tmp_path / "file").touch()
    store = Laboratories(tmp_path / "file")
    with pytest.raises(WbcError, match=r"file: laboratories cannot be written there \(File exists\)"):
        kept(store, first)


# ---- reviewed cells


def test_cells_are_kept_where_that_was_asked_for(store: Laboratories, first: AdaptedModel, second: AdaptedModel):
    kept(store, first)
    with pytest.raises(WbcError, match=f"{NAME}: keeps no pictures of cells"):
        store.add_cells(NAME, reviewed(5))
    kept(store, first, keep_cells=True)
    store.add_cells(NAME, reviewed(10))
    store.add_cells(NAME, reviewed(5))
    assert store.cell_counts(NAME) == dict.fromkeys(CLASS_NAMES, 2)
    assert [cell.label for cell in store.cells(NAME)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    kept(store, second)  # which says nothing of cells
    assert len(store.cells(NAME)) == 10
    kept(store, second, keep_cells=False)
    assert store.cells(NAME) == () and not list(store.folder.rglob("*.png"))


def test_a_laboratory_is_found_however_it_is_spelt(store: Laboratories, first: AdaptedModel):
    assert NAME not in store
    kept(store, first)
    assert NAME in store and "raabin  2026 / mgg" in store and "Raabin 2026" not in store
    with pytest.raises(WbcError, match="1 to 60 characters"):
        assert " " not in store


def test_cells_are_listed_without_reading_them(store: Laboratories, first: AdaptedModel):
    kept(store, first, keep_cells=True)
    assert store.list_cells(NAME) == ()
    store.add_cells(NAME, reviewed(7))
    assert [(cell.label, cell.group) for cell in store.list_cells(NAME)] == [
        (cell.label, cell.group) for cell in store.cells(NAME)
    ]


def test_cells_are_forgotten(store: Laboratories, first: AdaptedModel):
    kept(store, first, keep_cells=True)
    store.add_cells(NAME, reviewed(5))
    store.forget_cells(NAME)
    assert not list(store.folder.rglob("*.png"))
    with pytest.raises(WbcError, match="keeps no pictures"):
        store.add_cells(NAME, reviewed(5))
    assert store.load(NAME, first.base).identity.version == first.version


def test_a_laboratory_is_removed_with_everything(store: Laboratories, first: AdaptedModel):
    kept(store, first, keep_cells=True)
    store.add_cells(NAME, reviewed(5))
    kept(store, first, "other")
    store.remove(NAME.title())
    assert store.names() == ("other",)
    for refused in (store.remove, store.show, store.cells, store.cell_counts, store.forget_cells, store.size):
        with pytest.raises(WbcError, match=f"{NAME}: no laboratory of this name in .*There are: other"):
            refused(NAME)


def test_pictures_go_first(store: Laboratories, first: AdaptedModel, monkeypatch: pytest.MonkeyPatch):
    kept(store, first, keep_cells=True)
    store.add_cells(NAME, reviewed(5))
    removed = shutil.rmtree

    def remove_once(path: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        removed(path)

    monkeypatch.setattr(shutil, "rmtree", remove_once)
    with pytest.raises(KeyboardInterrupt):
        store.remove(NAME)
    assert not list(store.folder.rglob("*.png"))
    monkeypatch.undo()
    store.remove(NAME)


# ---- what was counted


def test_counts_are_recorded_and_the_last_thousand_kept(
    store: Laboratories, first: AdaptedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(laboratories, "MAX_HISTORY", 3)
    kept(store, first)
    assert store.show(NAME).drift() is None
    for number, unlike in enumerate((False, False, True, True)):
        store.record_count(NAME, np.int64(number), np.float32(0.5), np.bool_(unlike))
    history = store.show(NAME).history
    assert [record.cells for record in history] == [1, 2, 3]
    assert store.show(NAME).drift() == history[1].time
    store.record_count(NAME, 9, 0.1, False)
    assert store.show(NAME).drift() is None


# ---- whatever breaks off


def test_what_killed_processes_left_is_removed_and_nothing_else(
    store: Laboratories, first: AdaptedModel, tmp_path: Path
):
    store.tidy()
    assert not store.folder.exists()
    kept(store, first, keep_cells=True)
    store.add_cells(NAME, reviewed(2))
    (folder,) = store.folder.glob("*-*")
    foreign, other = store.folder / "notes" / ".mine.tmp", store.folder / "ward-0123456789ab"
    other.mkdir()
    (other / "thesis.txt").write_text("not a laboratory")
    foreign.parent.mkdir()
    foreign.write_text("not a laboratory")
    before = sorted(store.folder.rglob("*"))
    # A half-made model, one that was replaced, half a picture and half a record; a laboratory before its first record.
    for half_made in (".2.0123.tmp", "2"):
        (folder / "revisions" / half_made).mkdir()
        (folder / "revisions" / half_made / "difference.safetensors").write_bytes(b"half")
    for half_written in (folder / "cells" / "basophil" / ".a.png.0123.tmp", folder / ".laboratory.json.0123.tmp"):
        half_written.write_bytes(b"half")
    (store.folder / "ward-3-0123456789ab" / "revisions" / "1").mkdir(parents=True)

    store.tidy()

    assert sorted(store.folder.rglob("*")) == before
    assert store.load(NAME, first.base).identity.version == first.version
    assert len(store.cells(NAME)) == 2


def test_a_broken_laboratory_is_left_for_its_owner(store: Laboratories, first: AdaptedModel):
    kept(store, first)
    (record,) = store.folder.glob("*/laboratory.json")
    record.write_text("{")
    before = sorted(store.folder.rglob("*"))
    store.tidy()
    assert sorted(store.folder.rglob("*")) == before


def test_a_process_killed_while_it_adapts_leaves_all_as_it_was(store: Laboratories, first: AdaptedModel):
    kept(store, first, keep_cells=True)
    store.add_cells(NAME, reviewed(10))
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*") if path.name != ".lock"}
    script = """
    from wbc_hf.adaptation import adapt

    def kill_in_the_middle(step, share):
        if share > 0.3:
            os.kill(os.getpid(), signal.SIGKILL)

    adapted = Path(sys.argv[1]).parent / "adapted"
    adapt(sys.argv[2], store.cells("Raabin 2026 / MGG"), adapted, progress=kill_in_the_middle)
    """
    assert run_script(script, store.folder, first.base.folder, code=-signal.SIGKILL) == ""
    store.tidy()
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*") if path.name != ".lock"} == before
    assert not (store.folder.parent / "adapted").exists()
    assert store.load(NAME, first.base).identity.version == first.version


class Killed(BaseException):
    """Nothing in the store catches it."""


STEPS = ((os, "replace"), (os, "fsync"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"))


@pytest.mark.long
@pytest.mark.slow
def test_wherever_a_replacement_is_killed_the_laboratory_is_whole(
    store: Laboratories, first: AdaptedModel, second: AdaptedModel
):
    """After the step at which it is killed nothing more is done, not even what `finally` asks for."""
    kept(store, first)
    allowed, found = 0, set()
    while True:
        left = allowed

        def counted(step):
            def run(*words, **options):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return step(*words, **options)

            return run

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in STEPS:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                kept(store, second)
            except Killed:
                killed = True
            else:
                killed = False
        version = store.load(NAME, first.base).identity.version
        assert version in (first.version, second.version)
        assert store.load(NAME, first.base).calibration.review_threshold == pytest.approx(
            0.81 if version == first.version else 0.82
        )
        found.add((killed, version))
        kept(store, first)
        assert len(list(store.folder.glob("*/revisions/*"))) == 1
        if not killed:
            break
        allowed += 1
    assert allowed > 8
    assert found == {(True, first.version), (True, second.version), (False, second.version)}


PREAMBLE = """
import json, os, random, signal, sys, time
from pathlib import Path
from wbc_hf.adaptation import Adaptation, Laboratories
from wbc_hf.files import read_json
from wbc_hf.inference import Predictor

def read(folder):
    return read_json(folder / "adaptation.json", Adaptation, "")

def fork(work):
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)

store, base = Laboratories(Path(sys.argv[1])), Predictor.from_pretrained(sys.argv[2], "torch")
"""


def run_script(script: str, *words: object, code: int = 0) -> str:
    """Run in a process of its own, since one that has threads, as that of the tests has, should not fork."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), *map(str, words)]
    done = subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_killed_processes_leave_a_whole_laboratory(
    store: Laboratories, first: AdaptedModel, second: AdaptedModel, seed: int
):
    kept(store, first)
    output = run_script(
        """
        folders, randomness = [Path(word) for word in sys.argv[4:]], random.Random(int(sys.argv[3]))

        def replace_forever():
            while True:
                for folder in folders:
                    store.keep("Raabin 2026 / MGG", base, folder, read(folder))

        for _ in range(12):
            child = fork(replace_forever)
            time.sleep(randomness.uniform(0.05, 0.4))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print(store.load("Raabin 2026 / MGG", base).identity.version)
        """,
        store.folder,
        first.base.folder,
        seed,
        first.folder,
        second.folder,
    )
    assert len(output.split()) == 12
    assert set(output.split()) <= {first.version, second.version}
    kept(store, second)
    assert len(list(store.folder.glob("*/revisions/*"))) == 1


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_write_and_read_one_laboratory(store: Laboratories, first: AdaptedModel, second: AdaptedModel):
    kept(store, first)
    run_script(
        """
        def count():
            for _ in range(20):
                store.record_count("Raabin 2026 / MGG", 1, 0.5, False)

        children = [fork(count) for _ in range(2)]
        for _ in range(10):
            store.load("raabin 2026 / mgg", base)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        """,
        store.folder,
        first.base.folder,
    )
    assert len(store.show(NAME).history) == 40


def test_threads_write_one_laboratory_while_others_read_it(
    store: Laboratories, first: AdaptedModel, second: AdaptedModel
):
    kept(store, first)
    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(store.record_count, NAME, 1, 0.5, False) for _ in range(10)]
        replaced = [pool.submit(kept, store, model) for model in (second, first, second)]
        loaded = [pool.submit(store.load, NAME, first.base) for _ in range(10)]
        for done in (*counts, *replaced):
            done.result()
        assert {one.result().identity.version for one in loaded} <= {first.version, second.version}
    assert len(store.show(NAME).history) == 10
    assert store.show(NAME).revision == 4


def test_a_store_that_another_process_does_not_leave_is_named(
    store: Laboratories, first: AdaptedModel, monkeypatch: pytest.MonkeyPatch
):
    kept(store, first)
    monkeypatch.setattr(laboratories, "_LOCK_SECONDS", 0.1)
    with ThreadPoolExecutor(1) as pool, FileLock(store.folder / ".lock"):
        with pytest.raises(WbcError, match="another process has been writing"):
            pool.submit(store.record_count, NAME, 1, 0.5, False).result()
        # Reading needs no lock.
        assert pool.submit(store.show, NAME).result().history == ()
