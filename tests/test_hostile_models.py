"""Hundreds of hostile model folders: each ends in one line that names the file, soon and in little memory."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.hostile_models import HostileModel, hostile_models, use_model, write_model, write_onnx, write_place
from wbc_hf.errors import WbcError
from wbc_hf.inference.backends import compile_openvino

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="writes pipes and links"),
    pytest.mark.timeout(60),
]

SECONDS = 10.0  # of processor time, which other work hardly changes; measured: below 0.5 each
MEGABYTES = 500
LONGEST = 1200

KINDS = hostile_models()


def peak_megabytes() -> float:
    """Peak of memory of this process so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(re.search(r"VmHWM:\s*(\d+)", status.read_text()).group(1)) / 1024


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    folder.mkdir()
    write_model(folder)
    return folder


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_the_whole_folder_is_used(whole: Path, backend: str):
    use_model(whole, backend)


def test_the_whole_folder_is_used_with_an_export_in_onnx(whole: Path, tmp_path: Path):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    write_onnx(folder)
    use_model(folder, "openvino")


@pytest.mark.parametrize("place", ["../../outside.data", "/etc/passwd", "link.data"])
def test_openvino_itself_opens_no_file_outside_of_the_folder(whole: Path, place: str, tmp_path: Path):
    """Where `find_graph` was deceived: protobuf has other ways to write the key that it looks for."""
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    next(kind for kind in KINDS if kind.name == "onnx/model.onnx has its weights in place 5").change(folder)
    write_place(folder / "onnx" / "model.onnx", place)
    with pytest.raises(RuntimeError, match="outside the base directory"):
        compile_openvino(folder / "onnx" / "model.onnx", half=False)


def test_there_are_as_many_kinds_as_were_found_and_more():
    assert len(KINDS) >= 158
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_hostile_folder_ends_in_words(whole: Path, kind: HostileModel, tmp_path: Path):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    kind.change(folder)
    before, started = peak_megabytes(), time.process_time()

    with pytest.raises(WbcError) as caught:
        use_model(folder, "openvino" if kind.file.startswith(("openvino", "onnx")) else "torch")

    assert time.process_time() - started < SECONDS
    assert peak_megabytes() - before < MEGABYTES
    message = str(caught.value)
    assert str(folder) in message
    assert Path(kind.file).name in message
    assert message.isprintable() and len(message) < LONGEST
