"""Answers for very many images: one each, whoever stops, whoever shares the work, and into either kind of file."""

import copy
import csv
import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import TinyRun
from tests.tiny_sets import picture
from wbc_hf.data import ImageSource
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Prediction, Predictor, bulk, shards
from wbc_hf.inference.bulk import BulkSummary, Run, check_output, predict_many, predict_shards
from wbc_hf.inference.shards import find_images
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Export, load_classifier

COLUMNS = ["file", "label", "probability", "status", *CLASS_NAMES, "reason"]
# Of the fixture `cells`: so many images, of which so many cannot be read.
IMAGES, UNREADABLE = 17, 3


class StoppedError(Exception):
    """What a kill is played by."""


class Counting(Predictor):
    """Counts what it is asked, and stops where it is told to."""

    asked = 0
    stop_after: int | None = None

    def predict_each(self, sources: Iterable[ImageSource]) -> Iterator[Prediction | UnreadableImageError]:
        for number, answer in enumerate(super().predict_each(self._count(sources))):
            if number == self.stop_after:
                raise StoppedError
            yield answer

    def _count(self, sources: Iterable[ImageSource]) -> Iterator[ImageSource]:
        for source in sources:
            self.asked += 1
            yield source


Begin = Callable[..., tuple[Run, Counting]]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch):
    for module in (shards, bulk):
        monkeypatch.setattr(module, "CHUNK_SIZE", 3)
    monkeypatch.setattr(bulk, "_SECONDS_BETWEEN_LISTINGS", 0)
    # Answers come one by one, so that a stop finds some kept and some not.
    monkeypatch.setattr("wbc_hf.inference.predictor.BATCH_SIZE", 2)


@pytest.fixture
def cells(tmp_path: Path) -> list[str]:
    """Seven pictures, one of them broken; a row group of eight in a Parquet file, two of them unreadable; two more."""
    first, rows, last = tmp_path / "a", tmp_path / "b.parquet", tmp_path / "c"
    for folder, count in ((first, 7), (last, 2)):
        folder.mkdir()
        for index in range(count):
            (folder / f"{index}.png").write_bytes(picture(index, 32))
    (first / "4.png").write_bytes(b"junk")
    contents = [picture(100 + index, 32) for index in range(6)]
    pq.write_table(pa.table({"image": [*contents[:5], None, contents[5], b""]}), rows)
    return [str(path) for path in (first, rows, last)]


@pytest.fixture(scope="module")
def counting(tiny_run: TinyRun) -> Counting:
    return Counting.from_pretrained(tiny_run.folder, backend="torch")


def answers_of(predictor: Predictor, cells: list[str]) -> list[dict]:
    """What the predictor says of each image by itself."""
    items = [item for shard in find_images(cells).shards for item in shard.read(0)]
    return [
        {"file": item.name, "label": answer.label, "status": answer.status, "probability": answer.probability}
        if isinstance(answer, Prediction)
        else {"file": item.name, "label": None, "status": "unreadable", "probability": None}
        for item in items
        for answer in predictor.predict_each([item.source or b""])
    ]


@pytest.fixture
def expected(cells: list[str], counting: Counting) -> list[dict]:
    return answers_of(copy.copy(counting), cells)


@pytest.fixture
def begin(cells: list[str], counting: Counting, tmp_path: Path) -> Begin:
    """`begin(stop_after=5)`: a run that was opened, and a predictor that stops after so many answers."""

    def begin(stop_after: int | None = None, output: str = "out.parquet") -> tuple[Run, Counting]:
        predictor = copy.copy(counting)
        predictor.stop_after = stop_after
        run = Run(tmp_path / output, find_images(cells), predictor)
        run.open()
        run.check()
        return run, predictor

    return begin


def assert_are(rows: list[dict], expected: list[dict]) -> None:
    assert [row["file"] for row in rows] == [row["file"] for row in expected]
    assert [(row["label"], row["status"]) for row in rows] == [(row["label"], row["status"]) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)


def read_parquet(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def nothing_is_left_beside(output: Path) -> bool:
    return [path.name for path in output.parent.iterdir() if path.name.startswith(output.name)] == [output.name]


# One process


def test_every_image_has_one_row(cells: list[str], tiny_run: TinyRun, tmp_path: Path):
    output = tmp_path / "out.parquet"
    assert predict_many(cells, str(tiny_run.folder), output) == BulkSummary(IMAGES, UNREADABLE)
    rows = read_parquet(output)
    assert_are(rows, answers_of(Predictor.from_pretrained(tiny_run.folder), cells))
    assert list(rows[0]) == COLUMNS
    assert nothing_is_left_beside(output)
    reasons = [row["reason"] for row in rows if row["reason"]]
    assert [reason.split(" (")[0] for reason in reasons] == [
        "is not a picture in a known format", "the row holds no image", "is empty"
    ]  # fmt: skip
    for row in rows:
        if row["status"] == "unreadable":
            assert {row[name] for name in ("label", "probability", *CLASS_NAMES)} == {None}
        else:
            assert sum(row[name] for name in CLASS_NAMES) == pytest.approx(1, abs=1e-5)
            assert row[row["label"]] == row["probability"] == max(row[name] for name in CLASS_NAMES)


def test_a_csv_file_says_the_same(begin: Begin, tmp_path: Path):
    for output in ("out.csv", "out.parquet"):
        run, predictor = begin(output=output)
        predict_shards(run, predictor, 0, 1)
        run.join()
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, other in zip(rows, read_parquet(tmp_path / "out.parquet"), strict=True):
        assert row == {
            name: f"{value:.6f}" if isinstance(value, float) else value or "" for name, value in other.items()
        }


def test_names_that_are_no_text_are_spelt_out(begin: Begin, cells: list[str], tmp_path: Path):
    Path(os.fsdecode(os.fsencode(cells[2]) + b"/\xff.png")).write_bytes(picture(0, 32))
    Path(cells[2], "é\n.png").write_bytes(picture(0, 32))
    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    run.join()
    names = [Path(row["file"]).name for row in read_parquet(tmp_path / "out.parquet")]
    assert names[-4:] == ["0.png", "1.png", "é\n.png", "\\xff.png"]


# Stopped and taken up again


@pytest.mark.parametrize("stop_after", [0, 1, 4, 8, 13])
def test_a_run_goes_on_where_it_was_stopped(begin: Begin, expected: list[dict], stop_after: int):
    run, predictor = begin(stop_after)
    with pytest.raises(StoppedError):
        predict_shards(run, predictor, 0, 1)
    kept = run.progress().images
    # What is lost is less than a chunk, and the batches that were on their way.
    assert stop_after - 3 <= kept <= stop_after + 2

    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    assert predictor.asked == IMAGES - kept - (1 if kept < 13 else 0)  # one row holds no image
    assert run.join() == BulkSummary(IMAGES, UNREADABLE)
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)


def test_two_kills_and_other_numbers_of_processes(begin: Begin, expected: list[dict]):
    for process, processes, stop_after in ((1, 3, 5), (0, 2, 5)):
        run, predictor = begin(stop_after)
        with pytest.raises(StoppedError):
            predict_shards(run, predictor, process, processes)
        assert 0 < run.progress().images < IMAGES
    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    run.join()
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)


def test_a_kill_while_chunks_were_joined(begin: Begin, expected: list[dict]):
    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    run.folder.rename(run.folder.with_name("out.parquet.joining"))
    (run.folder.with_name("out.parquet.joining") / ".out.parquet.0.tmp").write_bytes(b"half of it")

    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    assert predictor.asked == 0
    run.join()
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)
    assert nothing_is_left_beside(run.folder.with_name("out.parquet"))


@pytest.mark.parametrize(("gone", "asked"), [((0,), 7), ((1,), 4), ((2,), 2), ((0, 2), 7)])
def test_a_part_that_went_missing_is_answered_again(
    begin: Begin, expected: list[dict], gone: tuple[int, ...], asked: int
):
    """Of the eight rows of the Parquet file, the sixth of which holds no image."""
    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    for chunk in gone:
        (file,) = run.folder.glob(f"00000003-{chunk:08d}-*")
        file.unlink()
    with pytest.raises(WbcError, match=r"out\.parquet\.chunks: chunks are missing .* the same command predicts them"):
        run.join()
    assert not run.is_complete()

    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    assert predictor.asked == asked
    assert run.join() == BulkSummary(IMAGES, UNREADABLE)
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)


def test_a_torn_part_is_answered_again_and_the_others_stay(begin: Begin, expected: list[dict]):
    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    (torn,) = run.folder.glob("00000003-00000002-*")
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(WbcError, match=f"{torn.name}: is broken .*: the same command predicts it again") as caught:
        run.join()
    assert "\n" not in str(caught.value)

    run, predictor = begin()
    predict_shards(run, predictor, 0, 1)
    assert predictor.asked == 2
    assert run.join() == BulkSummary(IMAGES, UNREADABLE)
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)
    assert nothing_is_left_beside(run.folder.with_name("out.parquet"))


def test_a_finished_output_is_not_written_again(begin: Begin, tmp_path: Path):
    (tmp_path / "out.parquet").write_bytes(b"somebody's")
    with pytest.raises(WbcError, match=r"out\.parquet: exists\. Remove it, or name another file\."):
        begin()
    assert (tmp_path / "out.parquet").read_bytes() == b"somebody's"


def test_a_full_disk_is_named_and_nothing_is_lost(begin: Begin, expected: list[dict], monkeypatch: pytest.MonkeyPatch):
    run, predictor = begin()
    written = []

    def flush(_: object) -> None:
        written.append(1)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(bulk.os, "fsync", flush)
        with pytest.raises(WbcError, match=r"out\.parquet: cannot be written \(No space left on device\)"):
            predict_shards(run, predictor, 0, 1)
    assert run.progress().images == 6
    predict_shards(run, predictor, 0, 1)
    run.join()
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)


# Another run than the one that was begun


def test_other_images_are_refused(begin: Begin, cells: list[str]):
    begin()
    (Path(cells[0]) / "9.png").write_bytes(picture(9, 32))
    with pytest.raises(
        WbcError, match=r"out\.parquet\.chunks: holds predictions of a run that was stopped, with other i"
    ):
        begin()


def test_another_model_is_refused(begin: Begin, tiny_run: TinyRun, tmp_path: Path):
    run, predictor = begin()
    model = load_classifier(tiny_run.folder)
    next(model.parameters()).data += 1
    other = Predictor(model, predictor.processor, "other")
    message = f"with another model \\({predictor.identity.version}, this one is {other.identity.version}\\)"
    with pytest.raises(WbcError, match=message):
        Run(tmp_path / "out.parquet", run.images, other).check()


def test_another_version_is_refused_and_all_that_differs_is_told(
    begin: Begin, cells: list[str], monkeypatch: pytest.MonkeyPatch
):
    begin()
    Path(cells[0], "0.png").unlink()
    monkeypatch.setattr("wbc_hf.inference.predictor.__version__", "9.9")
    with pytest.raises(WbcError, match=r"with other images.*; with another version of this package \(wbc_hf "):
        begin()


def test_another_way_to_the_same_answers_is_refused(begin: Begin, tiny_run: TinyRun, tmp_path: Path):
    run, predictor = begin()
    doubting = copy.copy(predictor)
    doubting.calibration = replace(predictor.calibration, review_threshold=0.123)
    on_openvino = Predictor.from_pretrained(tiny_run.folder, backend="openvino")
    exported = copy.copy(predictor)
    exported.export = Export("openvino", "int8", "0", None, {}, made="2026-01-02T03:04:05+00:00")
    for other, message in (
        (doubting, r"with another wbc\.json, with other thresholds \(\w{12}, this one is \w{12}\)\. Give"),
        (on_openvino, r"with another backend, .* \(torch fp32 on \w+, this one is OpenVINO \w+\)\. Give"),
        (exported, r"with another export of the model, .* \(none, this one is 2026-01-02T03:04:05\+00:00\)\. Give"),
    ):
        with pytest.raises(WbcError, match=f"out\\.parquet\\.chunks: .* was stopped, {message}"):
            Run(tmp_path / "out.parquet", run.images, other).check()


def test_chunks_of_an_earlier_version_are_refused(begin: Begin):
    run, _ = begin()
    (run.folder / bulk.MANIFEST_FILE).write_text('{"chunks": "format 1, 3 images each"}')
    with pytest.raises(WbcError, match=r"with chunks of another form \(format 1, 3 images each\)"):
        run.check()


# Several processes


def test_a_process_that_does_not_see_the_chunks_says_so(begin: Begin):
    run, _ = begin()
    run.folder.rename(run.folder.with_name("elsewhere"))
    with pytest.raises(WbcError, match=r"out\.parquet\.chunks: is not there for this process\. All need the folder"):
        run.check()


@pytest.mark.parametrize("process", [0, 1, 2])
def test_one_process_alone_does_what_others_leave(begin: Begin, expected: list[dict], process: int):
    run, predictor = begin()
    predict_shards(run, predictor, process, 3)
    assert run.is_complete()
    run.join()
    assert_are(read_parquet(run.folder.with_name("out.parquet")), expected)


def test_processes_answer_their_own_stretches(begin: Begin):
    run, _ = begin()
    items = bulk._remaining_items(run, process=1, processes=2)
    cuts = [(item.shard, item.chunk, item.last) for item in items if isinstance(item, bulk._ChunkEnd)]
    assert cuts == [
        (1, 0, True), (3, 0, False), (3, 1, False), (3, 2, True), (4, 0, True), (2, 0, True), (0, 0, True)
    ]  # fmt: skip


def test_processes_at_the_same_time(begin: Begin, expected: list[dict]):
    processes = [begin() for _ in range(3)]

    def work(number: int) -> BulkSummary | None:
        run, predictor = processes[number]
        predict_shards(run, predictor, number, 3)
        return run.join()

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(work, range(3)))
    assert Counter(outcomes) == {None: 2, BulkSummary(IMAGES, UNREADABLE): 1}
    output = processes[0][0].folder.with_name("out.parquet")
    assert_are(read_parquet(output), expected)
    assert nothing_is_left_beside(output)


def test_a_slow_process_is_not_waited_for(begin: Begin, expected: list[dict]):
    slow, predictor = begin()
    answers = bulk._prediction_rows(predictor, bulk._remaining_items(slow, 0, 2))
    rows = list(islice(answers, 2))

    quick, other = begin()
    predict_shards(quick, other, 1, 2)
    assert quick.join() == BulkSummary(IMAGES, UNREADABLE)

    with pytest.raises(FileNotFoundError):
        slow.write_chunk(bulk._ChunkEnd(0, 0, last=False), rows)
    predict_shards(slow, predictor, 0, 2)
    assert slow.join() is None
    assert_are(read_parquet(slow.folder.with_name("out.parquet")), expected)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_command_is_taken_up_by_two_processes(tiny_run: TinyRun, tmp_path: Path):
    """The real command, whose chunks have a thousand images; each Parquet file is a shard of its own."""
    for number in range(40):
        images = [picture(number * 50 + index, 32) for index in range(50)]
        pq.write_table(pa.table({"image": images}), tmp_path / f"{number:02d}.parquet")
    output = tmp_path / "out.csv"
    words = ["-m", "wbc_hf.cli", "predict", tmp_path, "--model", tiny_run.folder, "--output", output]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    chunks = tmp_path / "out.csv.chunks"
    while process.poll() is None and len(list(chunks.glob("*.arrow"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 3 <= len(list(chunks.glob("*.arrow"))) < 40

    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"2000 images classified: {output}\n"
    with output.open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert names == [f"{tmp_path}/{number:02d}.parquet/{row}" for number in range(40) for row in range(50)]
    assert nothing_is_left_beside(output)


# Outputs


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("answers.txt", "--output answers.txt: a file that ends in .csv or .parquet is written."),
        ("answers", "--output answers: a file that ends in .csv or .parquet is written."),
        ("nowhere/answers.csv", "--output nowhere/answers.csv: lies in a folder that is not there."),
    ],
)
def test_outputs_that_cannot_be(output: str, message: str):
    with pytest.raises(WbcError) as caught:
        check_output(Path(output), [])
    assert message in str(caught.value)


def test_an_output_that_would_be_taken_for_a_source(tmp_path: Path):
    deep = tmp_path / "deep"
    deep.mkdir()
    for output in (tmp_path / "out.parquet", deep / "out.parquet"):
        with pytest.raises(WbcError) as caught:
            check_output(output, ["owner/name", str(tmp_path)])
        assert str(caught.value) == (
            f"--output {output}: lies in {tmp_path}, whose Parquet files are all taken for images. Name a file "
            f"outside of {tmp_path}, or one that ends in .csv."
        )
    check_output(tmp_path / "out.csv", [str(tmp_path)])
    check_output(tmp_path / "out.parquet", [str(deep)])
