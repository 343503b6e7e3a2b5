"""Five hundred broken, odd and hostile files through everything that reads pictures: each is answered or named."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.broken_inputs import ANSWERED, NAMED, Verdict, write_broken_inputs
from tests.conftest import TinyRun
from wbc_hf.data import find_pictures, load_leucocytes, paint_cells, read_image
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="writes pipes and links"),
    pytest.mark.timeout(120),
]

COUNT = 500
SECONDS_PER_FILE = 30.0  # measured: 0.3 s for 49 million pixels, 0.1 s for the next; the rest is for busy machines
PEAK_MEGABYTES = 1500
GOOD_PER_CLASS = 40

# The program after the first word runs with what follows as its arguments; its peak of memory goes to a file. The peak
# is asked of the kernel's record of this program alone: `getrusage` would count the parent's memory before `exec`.
MEASURED = """
import sys
report, program = sys.argv[1:3]
sys.argv = sys.argv[2:]
try:
    exec(program)
finally:
    with open("/proc/self/status") as status, open(report, "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
READ_EACH = """
import json, os, time
from pathlib import Path
from wbc_hf.data.reading import read_image
from wbc_hf.errors import UnreadableImageError
results = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    started = time.process_time()
    try:
        outcome = read_image(path).mode
    except UnreadableImageError as error:
        outcome = error.reason
    results[path.name] = outcome, time.process_time() - started
print(json.dumps(results))
"""
COMMAND = """
from wbc_hf.cli import main
main()
"""

Broken = dict[Path, Verdict]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    return write_broken_inputs(tmp_path_factory.mktemp("inputs") / "broken", COUNT)


@pytest.fixture(scope="module")
def predictor(tiny_run: TinyRun) -> Predictor:
    return Predictor.from_pretrained(tiny_run.folder)


def measured(program: str, *words: str | Path, report: Path) -> tuple[subprocess.CompletedProcess, float]:
    """Run Python code with these arguments; its result, and its peak of memory in megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, report, program, *words],
        capture_output=True,
        timeout=100,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    return done, int(report.read_text()) / 1024


def number(name: str) -> str:
    """The four digits by which a broken input is known, whatever a program does to the rest of its name."""
    return re.search(r"\d{4}", name).group()


@pytest.mark.long
def test_the_files_are_of_every_kind_and_the_same_every_time(broken: Broken, tmp_path: Path):
    assert len(broken) == COUNT
    assert len({number(path.name) for path in broken}) == COUNT
    verdicts = list(broken.values())
    assert verdicts.count(ANSWERED) > 80
    assert verdicts.count(NAMED) > 150
    again = write_broken_inputs(tmp_path / "again", COUNT)
    assert [path.name for path in again] == [path.name for path in broken]
    assert list(again.values()) == verdicts
    files = [
        (one, other)
        for one, other in zip(broken, again, strict=True)
        # A colour profile holds the time of its making.
        if one.is_file() and one.stat().st_size < 10**6 and "profile" not in one.name
    ]
    assert [one.name for one, other in files if one.read_bytes() != other.read_bytes()] == []


def test_reading_each(broken: Broken, tmp_path: Path):
    folder = next(iter(broken)).parent
    done, megabytes = measured(READ_EACH, folder, report=tmp_path / "peak")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"Warning" not in done.stderr
    assert megabytes < PEAK_MEGABYTES
    results = json.loads(done.stdout)
    assert len(results) == COUNT
    slow = {name: seconds for name, (_, seconds) in results.items() if seconds > SECONDS_PER_FILE}
    assert slow == {}
    wrong = {
        path.name: results[path.name][0]
        for path, verdict in broken.items()
        if verdict is not None and (results[path.name][0] == "RGB") != verdict
    }
    assert wrong == {}
    unclear = [name for name, (outcome, _) in results.items() if not outcome.isprintable() or len(outcome) > 300]
    assert unclear == []


def test_reading_bytes_and_open_images_ends_alike(broken: Broken):
    for path, verdict in broken.items():
        if verdict is None or not path.is_file() or path.stat().st_size > 10**6:
            continue
        try:
            outcome = read_image(path.read_bytes()).mode == "RGB"
        except UnreadableImageError:
            outcome = False
        assert outcome == verdict, path.name


@pytest.mark.long
def test_the_predictor_answers_each_in_its_place(broken: Broken, predictor: Predictor):
    started = time.process_time()
    answers = list(predictor.predict_each(broken))
    assert time.process_time() - started < 60
    assert len(answers) == COUNT
    for (path, verdict), answer in zip(broken.items(), answers, strict=True):
        if isinstance(answer, UnreadableImageError):
            assert verdict is not ANSWERED, answer
            assert answer.name == str(path)
        else:
            assert verdict is not NAMED, path.name
            assert 0 <= answer.probability <= 1


@pytest.mark.parametrize("form", ["json", pytest.param("csv", marks=pytest.mark.long)])
def test_the_command_names_or_answers_each(broken: Broken, tiny_run: TinyRun, tmp_path: Path, form: str):
    folder = next(iter(broken)).parent
    # Within a folder texts are passed over; whatever is given by name is tried.
    found = set(find_pictures(folder))
    others = [path for path in broken if path not in found and not path.is_dir()]
    assert 0 < len(others) < 10
    words = ["predict", folder, *others, "--model", tiny_run.folder, "--format", form]
    done, megabytes = measured(COMMAND, *words, report=tmp_path / "peak")
    problems = done.stderr.decode(errors="surrogateescape")
    assert "Traceback" not in problems
    assert "Warning" not in problems
    assert done.returncode == 1, problems[-2000:]
    assert megabytes < PEAK_MEGABYTES

    output = done.stdout.decode(errors="surrogateescape")
    rows = json.loads(output) if form == "json" else list(csv.DictReader(io.StringIO(output, newline="")))
    answered = {number(Path(row["file"]).name) for row in rows}
    # A picture that is answered may be the first of several in its file.
    named = set(re.findall(rf"{re.escape(str(folder))}/\D*(\d{{4}})(?!.*: only the first picture)", problems))
    assert not answered & named
    tried = {number(path.name) for path in broken if not path.is_dir()}
    assert answered | named == tried
    assert {number(path.name) for path, verdict in broken.items() if verdict is ANSWERED} <= answered
    assert {number(path.name) for path, verdict in broken.items() if verdict is NAMED and not path.is_dir()} <= named
    assert f"{len(named)} of {len(tried)} files are not readable images" in problems


@pytest.fixture(scope="module")
def good_cells() -> list[tuple[str, Image.Image]]:
    labels = np.repeat(np.arange(len(CLASS_NAMES)), GOOD_PER_CLASS)
    cells = paint_cells(labels, size=32, seed=3)
    return [(CLASS_NAMES[label], Image.fromarray(cell)) for label, cell in zip(labels, cells, strict=True)]


def write_set_with(root: Path, cells: list[tuple[str, Image.Image]], spoilt: list[Path]) -> set[str]:
    """A folder of class folders with links to broken files among them; their names in it."""
    for index, (name, cell) in enumerate(cells):
        (root / name).mkdir(parents=True, exist_ok=True)
        cell.save(root / name / f"cell {index:03d}.png")
    names = {f"{CLASS_NAMES[index % len(CLASS_NAMES)]}/{path.name}": path for index, path in enumerate(spoilt)}
    for name, path in names.items():
        (root / name).symlink_to(path)
    return set(names)


def spoilt_files(broken: Broken) -> list[Path]:
    """What a data set can hold: files, with names that its tables can."""
    return [
        path
        for path, verdict in broken.items()
        if verdict is NAMED and path.is_file() and path.stat().st_size < 10**8 and "\udcff" not in path.name
    ]


def test_a_set_with_a_few_of_them_is_loaded_and_names_them(
    broken: Broken, good_cells: list[tuple[str, Image.Image]], tmp_path: Path
):
    # Few for a set, and another few for the next one: all kinds come up.
    spoilt = spoilt_files(broken)
    for start in range(0, 60, 10):
        root = tmp_path / str(start)
        names = write_set_with(root, good_cells, spoilt[start : start + 10])
        loaded = load_leucocytes(root)
        assert {error.name for error in loaded.provenance.skipped} == names
        assert sum(len(rows) for rows in loaded.values()) == len(good_cells)


def test_a_set_with_too_many_of_them_is_refused(
    broken: Broken, good_cells: list[tuple[str, Image.Image]], tmp_path: Path
):
    names = write_set_with(tmp_path / "cells", good_cells, spoilt_files(broken))
    with pytest.raises(
        WbcError, match=f"{len(names)} of {len(names) + len(good_cells)} files are not readable images"
    ):
        load_leucocytes(tmp_path / "cells")
