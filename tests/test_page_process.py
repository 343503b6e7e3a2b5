"""The page as a process of its own: whom it asks, what it writes into its log, and what it leaves behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from tests.adapted_models import make_adapted, write_tiny_model
from wbc_hf.adaptation import AdaptationCell, Laboratories
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES

# Python imports it at its start. It notes whose address is asked for, and knows no other machine.
RESOLVER = """
import os, socket
known = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    if host in (None, "localhost", "127.0.0.1"):
        return known(host, *rest, **more)
    with open(os.environ["LOOKUPS"], "a") as file:
        print(host, file=file)
    raise socket.gaierror(socket.EAI_NONAME, "no such name")
socket.getaddrinfo = getaddrinfo
socket.gethostbyname = socket.gethostbyname_ex = getaddrinfo
"""
CONVERT_AND_PREDICT = """
import sys
from PIL import Image
from wbc_hf import Predictor
import openvino, nncf
predictor = Predictor.from_pretrained(sys.argv[1], backend="openvino")
print(predictor.predict([Image.open(sys.argv[2])])[0].label)
"""
REPOSITORY = Path(app.__file__).parent


class Machine:
    """Folders and variables of a process that is to leave no trace outside of them.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path):
        self.home, self.temporary, self.lookups, self.log = (root / it for it in ("home", "tmp", "lookups", "log"))
        for folder in (self.home, self.temporary, root / "python"):
            folder.mkdir()
        (root / "python" / "sitecustomize.py").write_text(RESOLVER)
        self.model = root / "model"
        write_tiny_model(self.model)
        self.cell = root / "Smith S-4711.png"
        Image.fromarray(paint_cells([1], size=48, seed=3)[0]).save(self.cell)
        unset = (
            "HF_HUB_DISABLE_TELEMETRY",
            "GRADIO_ANALYTICS_ENABLED",
            "GRADIO_TEMP_DIR",
            "XDG_CACHE_HOME",
            "HF_HOME",
        )
        self.laboratories = Laboratories(root / "laboratories")
        self.variables = {name: value for name, value in os.environ.items() if name not in unset} | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "LOOKUPS": str(self.lookups),
            "WBC_HF_CACHE": str(root / "cache"),
            "WBC_HF_LABORATORIES": str(root / "laboratories"),
            "PYTHONPATH": os.pathsep.join((str(root / "python"), str(REPOSITORY))),
        }

    def start(self) -> tuple[subprocess.Popen, str]:
        """Start the page. Returns the process and the URL."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = [sys.executable, str(REPOSITORY / "app.py"), "--model", str(self.model), "--port", str(port)]
        with self.log.open("a") as log:
            process = subprocess.Popen(words, env=self.variables, cwd=self.home, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(url, timeout=5).raise_for_status()
                return process, url
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.2)

    def folders(self) -> list[Path]:
        """What pages have left in the folder of temporary files."""
        return sorted(self.temporary.glob("wbc_hf-page-*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def started(machine: Machine) -> Iterator[list[subprocess.Popen]]:
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.long
def test_nobody_is_asked_where_a_model_is_converted(machine: Machine):
    words = [sys.executable, "-c", CONVERT_AND_PREDICT, str(machine.model), str(machine.cell)]
    done = subprocess.run(words, env=machine.variables, cwd=machine.home, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert not machine.lookups.exists(), machine.lookups.read_text()
    assert not [file for file in machine.home.rglob("*") if "telemetry" in file.name or "client_id" in file.name]


def test_a_page_asks_nobody_logs_no_names_and_leaves_nothing(machine: Machine, started: list[subprocess.Popen]):
    process, url = machine.start()
    started.append(process)
    client = Client(url, verbose=False, analytics_enabled=False)
    broken, field = machine.cell.with_name("Smith broken.png"), machine.cell.with_name("Smith field.png")
    broken.write_text("no picture")
    Image.fromarray(paint_field([1, 2], width=480, height=360, seed=8).image).save(field)

    assert client.predict(handle_file(machine.cell), api_name="/classify")["file"] == machine.cell.name
    answers = client.predict([handle_file(broken), handle_file(machine.cell)], api_name="/classify_many")
    assert answers[0]["status"] == "unreadable"
    client.predict([handle_file(field)], "field", "Smith", 0, {}, "", "", api_name="/count")
    for call in ((handle_file(broken), "/classify"), ("Smith", "/classify")):
        with pytest.raises(AppError):
            client.predict(call[0], api_name=call[1])
    assert any(file.is_file() for folder in machine.folders() for file in folder.rglob("*"))

    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert "Smith" not in machine.log.read_text() and "4711" not in machine.log.read_text()
    assert not machine.folders()
    assert not machine.lookups.exists(), machine.lookups.read_text()
    assert not [file for file in machine.home.rglob("*") if "telemetry" in file.name or "client_id" in file.name]


@pytest.mark.long
def test_a_page_killed_while_it_adapts_keeps_the_laboratory_of_before(
    machine: Machine, started: list[subprocess.Popen], tmp_path: Path
):
    store, classes = machine.laboratories, [2, 4] * 10
    model = make_adapted(Predictor.from_pretrained(machine.model, "torch"), tmp_path / "adapted")
    store.keep("Ward 3", model.base, model.folder, model.adaptation, keep_cells=True)
    images = [Image.fromarray(pixels) for pixels in paint_cells(classes, size=48, seed=4)]
    store.add_cells("Ward 3", [AdaptationCell(images[index], classes[index], f"{index}") for index in range(10)])
    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    files = []
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")
        files.append(handle_file(tmp_path / f"{index}.png"))
    corrections = {str(number): CLASS_NAMES[label] for number, label in enumerate(classes, 1)}

    process, url = machine.start()
    started.append(process)
    client = Client(url, verbose=False, analytics_enabled=False)
    job = client.submit(files, "cell", "Ward 3", corrections, True, api_name="/adapt")
    deadline = time.monotonic() + 120
    while not any((step.desc or "").startswith("Adapting") for step in job.status().progress_data or ()):
        assert time.monotonic() < deadline and not job.done(), machine.log.read_text()
        time.sleep(0.02)
    process.kill()
    process.wait(60)
    left = machine.folders()
    assert left, machine.log.read_text()
    # As if it had been killed a moment later, while it wrote the new model and a cell.
    (folder,) = store.folder.glob("ward-3-*")
    (folder / "revisions" / ".2.0123.tmp").mkdir()
    (folder / "revisions" / ".2.0123.tmp" / "difference.safetensors").write_bytes(b"half")
    (folder / "cells" / "lymphocyte" / ".0123.png.4567.tmp").write_bytes(b"half a patient's cell")

    process, url = machine.start()
    started.append(process)
    now = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert now == before and len(list((folder / "revisions").iterdir())) == 1
    assert not set(left) & set(machine.folders())
    client = Client(url, verbose=False, analytics_enabled=False)
    (kept,) = client.predict(api_name="/laboratories")
    assert (kept["name"], kept["version"]) == ("Ward 3", model.version)
    counted = client.predict(files[:2], "cell", "", 0, {}, "", "Ward 3", api_name="/count")
    assert counted["model"]["version"] == model.version
    assert counted["model"]["name"] == "model, adapted to Ward 3"
