import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from wbc_hf.files import TEMPORARY_FILES, open_atomically, own_temporary_folder, write_atomically, write_json


@pytest.mark.parametrize("content", ["später", "später".encode()])
def test_readers_find_the_old_file_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes):
    path = tmp_path / "value.txt"
    path.write_text("before")
    seen = []

    def replace(source: Path, target: Path) -> None:
        seen.append((source.read_text(encoding="utf-8"), target.read_text(encoding="utf-8")))
        source.rename(target)

    monkeypatch.setattr("os.replace", replace)
    write_atomically(path, content)
    assert seen == [("später", "before")]
    assert path.read_text(encoding="utf-8") == "später"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_exception_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "value.txt"
    path.write_text("before")

    def write_half() -> None:
        with open_atomically(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_lies_beside_the_file(tmp_path: Path):
    with open_atomically(tmp_path / "value.txt"):
        assert [path.match(TEMPORARY_FILES) for path in tmp_path.iterdir()] == [True]
    assert os.listdir(tmp_path) == ["value.txt"]
    assert (tmp_path / "value.txt").read_bytes() == b""


@pytest.mark.parametrize("sync", [True, False])
def test_content_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool):
    steps = []
    monkeypatch.setattr("os.fsync", lambda _: steps.append("fsync"))
    monkeypatch.setattr("os.replace", lambda *_: steps.append("replace"))
    with open_atomically(tmp_path / "value.txt", sync=sync) as file:
        file.write(b"content")
    assert steps == (["fsync"] if sync else []) + ["replace"]


def test_json_is_indented_utf8(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"neu": "ä"})
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


def test_temporary_files_lie_in_one_folder_that_goes_with_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_temporary_folder("page-") as folder:
        assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(folder)
        (folder / "upload.png").write_bytes(b"1")
    assert not list(tmp_path.iterdir())
    assert tempfile.gettempdir() == str(tmp_path)


HOLD = """
import sys, time
from wbc_hf.files import own_temporary_folder
with own_temporary_folder("page-") as folder:
    (folder / "upload.png").write_bytes(b"1")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words, variables = [sys.executable, "-c", HOLD], os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, text=True) as process:
        upload = Path(process.stdout.readline().strip()) / "upload.png"
        with own_temporary_folder("page-"):
            assert upload.exists()  # it runs
        process.kill()
    assert upload.exists()
    with own_temporary_folder("page-"):
        assert not upload.parent.exists()
    assert not list(tmp_path.iterdir())
