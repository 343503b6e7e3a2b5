"""The page under load: many clients at once, every response compared with the model's own predictions.

    python benchmarks/page_load.py --model models/starter

Starts the page as a process of its own, reachable from this machine alone, and sends it painted cells, painted fields
and files that are no images. Prints lost and wrong responses, the seconds from sending a file to its response, and the
memory of the page before and after. Ends with status 1 where a response was lost or wrong, where one visitor was shown
another's file, or where memory grew by more than a tenth. Needs Linux, where /proc holds the memory of a process.
"""

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from wbc_hf.data import paint_cells, paint_field, read_image
from wbc_hf.inference import Prediction, Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.smear import Cell, CellCounter, Specimen, count_cells

ROOT = Path(__file__).parents[1]
CELLS, CELL_SIDE = 20, 128  # pixels
FIELDS, CELLS_PER_FIELD = 4, 6
SHARES = {"classify": 0.45, "count": 0.25, "classify_many": 0.2, "broken": 0.1}
MANY = 3  # cells in one request, beside a broken file
TOLERANCE = 1e-4  # of a probability
GROWTH = 0.1  # of the memory at most
REST = 70  # seconds after the last client has gone: the page removes old files once a minute
TIMEOUT = 600  # seconds for one response


@dataclass(frozen=True)
class Material:
    """Files to send, with the model's predictions in this process.

    Attributes:
        cells: PNG files of one cell each.
        predictions: Of each of them.
        fields: PNG files of one field each.
        counted: The cells that were found in each of them.
        broken: Files that are no images, or only half of one.
    """

    cells: list[bytes]
    predictions: list[Prediction]
    fields: list[bytes]
    counted: list[tuple[Cell, ...]]
    broken: list[bytes]


@dataclass(frozen=True)
class Request:
    """One request: the endpoint, and the indices of its images (of "broken": of the broken file)."""

    kind: str
    pictures: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a request: seconds until its response, and why it was lost or wrong, each "" if it was not."""

    kind: str
    seconds: float
    lost: str = ""
    wrong: str = ""


# ---- requests


def make_material(predictor: Predictor) -> Material:
    cells = list(paint_cells(np.arange(CELLS) % len(CLASS_NAMES), CELL_SIDE, seed=31))
    labels = np.arange(CELLS_PER_FIELD)
    fields = [paint_field((labels + seed) % len(CLASS_NAMES), seed=seed).image for seed in range(FIELDS)]
    files = [_png(cell) for cell in cells]
    return Material(
        cells=files,
        predictions=predictor.predict(cells),
        fields=[_png(field) for field in fields],
        counted=[_examine(predictor, field) for field in fields],
        broken=[b"no picture", b"", files[0][: len(files[0]) // 2]],
    )


def _examine(predictor: Predictor, field: np.ndarray) -> tuple[Cell, ...]:
    specimen = Specimen()
    CellCounter(predictor, specimen).add_image(read_image(field), "field", whole_field=True)
    return specimen.cells


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def plan(requests: int) -> list[Request]:
    """Draw requests in a random order that is the same in every run."""
    generator = np.random.default_rng(0)
    pictures = {"classify": (CELLS, 1), "count": (FIELDS, 1), "classify_many": (CELLS, MANY), "broken": (3, 1)}
    kinds = generator.choice(list(SHARES), requests, p=list(SHARES.values()))
    return [Request(str(kind), tuple(generator.integers(0, *pictures[kind]).tolist())) for kind in kinds]


# ---- one client


def send_all(url: str, material: Material, requests: Sequence[Request], folder: Path, who: str) -> list[Outcome]:
    """Send requests one after the other in one session, with file names that no other client uses."""
    client = connect(url)
    outcomes = [send(client, material, request, folder, f"{who} {n}") for n, request in enumerate(requests)]
    client.close()
    return outcomes


def connect(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False, download_files=False)


def send(client: Client, material: Material, request: Request, folder: Path, stem: str) -> Outcome:
    """Send one request and check the response."""
    contents = {"count": material.fields, "broken": material.broken}.get(request.kind, material.cells)
    files = [(f"{stem} {n}.png", contents[index]) for n, index in enumerate(request.pictures)]
    if request.kind == "classify_many":
        files.append((f"{stem} broken.png", material.broken[0]))
    for name, content in files:
        (folder / name).write_bytes(content)
    handles = [handle_file(folder / name) for name, _ in files]
    if request.kind == "count":
        question = (handles, "field", "", None, None, "")
    else:
        question = (handles,) if request.kind == "classify_many" else (handles[0],)
    endpoint = "/classify" if request.kind == "broken" else f"/{request.kind}"
    started = time.perf_counter()
    try:
        answer = client.submit(*question, api_name=endpoint).result(timeout=TIMEOUT)
    except AppError as error:
        seconds, message = time.perf_counter() - started, error.message
        clear = request.kind == "broken" and message.startswith(files[0][0])
        return Outcome(request.kind, seconds, wrong="" if clear else message)
    # Any other failure, in the client or on its way, is a lost response and must not end the others.
    except Exception as error:
        return Outcome(request.kind, time.perf_counter() - started, lost=f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - started
    wrong = find_fault(answer, material, request, [name for name, _ in files])
    return Outcome(request.kind, seconds, wrong=wrong)


def find_fault(answer: dict | list, material: Material, request: Request, names: Sequence[str]) -> str:
    """Describe how a response differs from the model's prediction in this process; "" if it does not."""
    if request.kind == "broken":
        return f"a broken file got a response: {answer}"
    if request.kind == "count":
        return _fault_in_count(answer, material.counted[request.pictures[0]], names[0])
    records = answer if isinstance(answer, list) else [answer]
    if [record["file"] for record in records] != list(names):
        return f"files {[record['file'] for record in records]}, not {list(names)}"
    if request.kind == "classify_many" and records.pop()["status"] != "unreadable":
        return "a broken file got a prediction among others"
    for index, record in zip(request.pictures, records, strict=True):
        if not _agree(record["label"], record["probabilities"], record["status"], material.predictions[index]):
            return f"{record}, not {material.predictions[index]}"
    return ""


def _fault_in_count(answer: dict, cells: Sequence[Cell], name: str) -> str:
    if [picture["name"] for picture in answer["pictures"]] != [name] or answer["unreadable"]:
        return f"pictures {answer['pictures']} and unreadable {answer['unreadable']}, not {name}"
    counts = {share["class"]: share["count"] for share in answer["differential"]["shares"]}
    if counts != count_cells(cells):
        return f"counts {counts}, not {count_cells(cells)}"
    if [cell["box"] for cell in answer["cells"]] != [list(cell.box) for cell in cells]:
        return f"{len(answer['cells'])} cells in other places than {len(cells)}"
    for got, cell in zip(answer["cells"], cells, strict=True):
        predicted = got["prediction"]
        if not _agree(predicted["class"], predicted["probabilities"], predicted["status"], cell.prediction):
            return f"{predicted}, not {cell.prediction}"
    return ""


def _agree(label: str, probabilities: dict[str, float], status: str, expected: Prediction) -> bool:
    wanted = dict([(expected.label, expected.probability), *expected.alternatives])
    return (
        (label, status) == (expected.label, expected.status)
        and probabilities.keys() == wanted.keys()
        and all(abs(probabilities[name] - wanted[name]) <= TOLERANCE for name in wanted)
    )


# ---- two visitors of the page itself


class Visitor:
    """Uploads fields to the specimen tab as a browser does, which `gradio_client` cannot.

    Attributes:
        uploaded: Names of the files that were accepted.
        refused: Names of those that ended in an error.
        seen: Everything that the page sent.
    """

    def __init__(self, url: str):
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT)
        self._session = {"session_hash": uuid4().hex}
        config = self._http.get("config").json()
        events = [
            (field, one) for one in config["dependencies"] for field, event in one["targets"] if event == "upload"
        ]
        self._files, self._function = events[0]
        self._values = {field["id"]: field["props"].get("value") for field in config["components"]}
        self.uploaded: list[str] = []
        self.refused: list[str] = []
        self.seen = ""

    def upload(self, name: str, content: bytes) -> None:
        """Add a field to this visitor's specimen."""
        (path,) = self._http.post("gradio_api/upload", files={"files": (name, content)}).raise_for_status().json()
        file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        values = self._values | {self._files: [file]}
        question = {"data": [values[field] for field in self._function["inputs"]], "fn_index": self._function["id"]}
        self._http.post("gradio_api/queue/join", json=question | self._session).raise_for_status()
        answer = self._http.get("gradio_api/queue/data", params=self._session).raise_for_status().text
        (self.uploaded if '"success":true' in answer else self.refused).append(name)
        self.seen += answer


def find_leak(url: str, fields: Sequence[bytes]) -> str:
    """Describe what one of two visitors was shown of the other, or not shown of their own; "" if nothing."""
    visitors = {who: Visitor(url) for who in ("Ana", "Ben")}
    with ThreadPoolExecutor(len(visitors)) as threads:
        for number, field in enumerate(fields):
            for job in [threads.submit(one.upload, f"{who} {number}.png", field) for who, one in visitors.items()]:
                job.result()
    ana, ben = visitors.values()
    for own, other in ((ana, ben), (ben, ana)):
        if own.refused:
            return f"{own.refused} ended in an error"
        if leaked := [name for name in other.uploaded if name in own.seen]:
            return f"one was shown {leaked} of the other"
        if missing := [name for name in own.uploaded if name not in own.seen]:
            return f"one was not shown {missing}, uploaded before"
    return ""


# ---- the page


@contextmanager
def serving(model: str, temporary: Path) -> Iterator[tuple[str, int]]:
    """Serve the page in a process; yield its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(ROOT / "app.py"), "--model", model, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(temporary), "GRADIO_ANALYTICS_ENABLED": "False"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not process.stdout.readline():
                sys.exit("The page did not start.")
            yield f"http://127.0.0.1:{port}/", process.pid
        finally:
            process.terminate()


def resident_mib(process: int) -> float:
    """The resident set of a process, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


# ---- results


def print_times(outcomes: Sequence[Outcome], seconds: float) -> None:
    print(f"\n{'endpoint':<16}{'responses':>10}{'p50 s':>9}{'p95 s':>9}")
    for kind in (*SHARES, "all"):
        times = [one.seconds for one in outcomes if not one.lost and kind in (one.kind, "all")]
        if times:
            print(f"{kind:<16}{len(times):>10}{np.quantile(times, 0.5):>9.2f}{np.quantile(times, 0.95):>9.2f}")
    print(f"{len(outcomes) / seconds:.1f} requests/s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Model folder or Hub id.")
    parser.add_argument("--clients", type=int, default=32, help="Number of simultaneous clients.")
    parser.add_argument("--requests", type=int, default=500, help="Total number of requests.")
    arguments = parser.parse_args(argv)
    material = make_material(Predictor.from_pretrained(arguments.model))
    requests = plan(arguments.requests)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.clients) as threads:
        temporary, sent = Path(folder) / "page", Path(folder) / "sent"
        sent.mkdir()
        with serving(arguments.model, temporary) as (url, process):
            warm_up = [request for kind in SHARES for request in requests if request.kind == kind][::10]
            send_all(url, material, warm_up, sent, "warm-up")
            leak = find_leak(url, material.fields)
            before = resident_mib(process)
            started = time.perf_counter()
            jobs = [
                threads.submit(send_all, url, material, requests[n :: arguments.clients], sent, f"client {n}")
                for n in range(arguments.clients)
            ]
            outcomes = [outcome for job in jobs for outcome in job.result()]
            seconds = time.perf_counter() - started
            time.sleep(REST)
            after = resident_mib(process)
            kept = sum(path.is_file() for path in temporary.rglob("*"))
    lost, wrong = [one for one in outcomes if one.lost], [one for one in outcomes if one.wrong]
    print(f"{arguments.clients} clients, {len(outcomes)} requests in {seconds:.0f} s: ", end="")
    print(f"{len(lost)} lost, {len(wrong)} wrong")
    print(f"two visitors side by side: {leak or 'each was shown their own files alone'}")
    for one in (lost + wrong)[:5]:
        print(f"  {one.kind}: {one.lost or one.wrong}")
    print_times(outcomes, seconds)
    grown = after / before - 1
    print(f"resident memory of the page {before:.0f} MiB before, {after:.0f} MiB after ({grown:+.1%})")
    print(f"{kept} files in its temporary folder")
    sys.exit(bool(lost or wrong or leak) or grown > GROWTH)


if __name__ == "__main__":
    main()
