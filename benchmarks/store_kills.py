"""Kill what reviews kept specimens, many times at random moments, and look what is there afterwards.

    python benchmarks/store_kills.py --kills 50
    python benchmarks/store_kills.py --kills 50 --page --database postgresql

A process of its own opens specimens, reviews cells, takes pictures out and puts them back, adds pictures, and writes
on its output what was acknowledged. It gets SIGKILL after a random time. With --page it is the page itself, `app.py
--store`, and two readers review over HTTP, as browsers do. Then the store is opened anew: every acknowledged word must
be there, none twice, the history without gaps, and every picture readable. Ends with status 1 otherwise. PostgreSQL
(Debian: postgresql) is started for it, in a temporary folder, and is not killed.
"""

import argparse
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from page_reader import PageReader
from store_speed import fill

from wbc_hf.errors import WbcError
from wbc_hf.smear import Action, Cell, Picture, Specimen
from wbc_hf.store import SpecimenStore

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the tests are no package that is installed

from tests.adapted_models import write_tiny_model  # noqa: E402
from tests.postgresql_server import serve_postgresql, why_none  # noqa: E402

SPECIMENS, CELLS = 3, 10
START = 300  # seconds in which the page has to answer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds between the first word and the kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="kill the page, while two readers review over HTTP")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--review", nargs=2, metavar=("STORE", "FIRST"), help=argparse.SUPPRESS)
    return parser.parse_args()


def review_for_ever(place: str, word: int) -> None:
    """Act on the specimens of a store, and say what was acknowledged."""
    store = SpecimenStore(place)
    specimens = [store.open(item.key) for item in store.find().items]
    while True:
        specimen: Specimen = specimens[word % len(specimens)]
        who = f"word {word}"
        match word % 7:
            case 5:
                if specimen.pictures[0].removed:
                    specimen.put_back(1, who)
                else:
                    specimen.remove(1, who)
            case 6:
                cell = specimen.cells[0]
                again = Cell(cell.box, cell.prediction, cell.image)
                specimen.add_picture(Picture(0, who, (640, 480), True, specimen.pictures[0].preview), [again])
            case _:
                reviewable = [it.number for it in specimen.cells if not it.removed and it.duplicate_of is None]
                if reviewable:
                    specimen.review(reviewable[word % len(reviewable)], "monocyte" if word % 2 else None, who)
                else:
                    specimen.describe(who, comment=who)
        print(word, flush=True)
        word += 1


def kill_process(place: Path | str, first: int, wait: float) -> set[int]:
    """Kill a process that uses the store, so many seconds after its first word; the words that were acknowledged."""
    words = [sys.executable, __file__, "--review", str(place), str(first)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    acknowledged = {int(process.stdout.readline())}
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    acknowledged |= {int(line) for line in process.stdout.read().split()}
    process.wait()
    return acknowledged


def kill_page(place: Path | str, model: Path, first: int, wait: float) -> set[int]:
    """Kill the page, so many seconds after a reader's first word; the words that were acknowledged.

    The first reader has all specimens one after the other, and the second the first of them: both that one at times.
    """
    store = SpecimenStore(place)
    keys, words, acknowledged, faults = sorted(store.all_keys()), itertools.count(first), set(), []
    store.close()
    begun = threading.Event()

    def review(url: str, keys: list[str]) -> None:
        try:
            reader = PageReader(url)
            for key in itertools.cycle(keys):
                assert reader.open(key), "a specimen does not open"
                for number in range(1, CELLS + 1):
                    word = next(words)
                    who = f"word {word}"
                    if number == CELLS:
                        done = reader.comment(who, who)
                    else:
                        done = reader.review(number, "monocyte" if word % 2 else None, who)
                    if done:
                        acknowledged.add(word)
                        begun.set()
        except httpx.HTTPError:
            pass  # the page was killed
        except Exception as error:
            faults.append(error)
            begun.set()

    with serving(place, model) as (url, process):
        readers = [threading.Thread(target=review, args=(url, it)) for it in (keys, keys[:1])]
        for reader in readers:
            reader.start()
        if not begun.wait(START):
            faults.append(TimeoutError("no reader got a word through"))
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for reader in readers:
            reader.join()
    if faults:
        raise faults[0]
    return acknowledged


@contextmanager
def serving(place: Path | str, model: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the page with a store, and wait until it says that it can keep specimens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, str(ROOT / "app.py"), "--model", str(model), "--port", str(port), "--store", str(place)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + START
    try:
        while True:
            try:
                httpx.get(f"{url}health", timeout=5).raise_for_status()
                break
            except httpx.HTTPError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("The page did not start.") from error
                time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.wait()


def acknowledged_words(specimen: Specimen) -> list[int]:
    """Numbers of the words that the history of a specimen holds.

    Not those of other fields than the comment: the page's reader sends these empty with its first comment.
    """
    acts = [event for event in specimen.history if event.field in (None, "", "comment")]
    said = [event.after if event.action is Action.READ else event.who for event in acts]
    return [int(text.removeprefix("word ")) for text in said if text.startswith("word ")]


def check(place: Path | str, acknowledged: set[int]) -> list[str]:
    """What is wrong with a store after a kill."""
    store = SpecimenStore(place)
    faults, words = store.check(), []
    for item in store.find().items:
        specimen = store.open(item.key)
        words += acknowledged_words(specimen)
        if [event.number for event in specimen.history] != list(range(1, len(specimen.history) + 1)):
            faults.append(f"{item.key}: its history has gaps")
        try:
            whole = all(it.preview for it in specimen.pictures) and all(it.image for it in specimen.cells)
        except WbcError:
            whole = False
        if not whole:
            faults.append(f"{item.key}: has no pixels of a picture")
    if lost := acknowledged - set(words):
        faults.append(f"words {sorted(lost)} were acknowledged and are lost")
    if len(words) != len(set(words)):
        faults.append("a word is there twice")
    store.close()
    return faults


@contextmanager
def new_place(database: str, folder: Path) -> Iterator[Path | str]:
    """A new store's folder or address."""
    if database == "sqlite":
        yield folder / "store"
        return
    if reason := why_none():
        sys.exit(reason)
    with serve_postgresql() as server:
        yield server.new_database()


def main() -> int:
    given = parse_arguments()
    if given.review:
        review_for_ever(given.review[0], int(given.review[1]))
    moments, acknowledged, word = random.Random(given.seed), set(), 1
    with tempfile.TemporaryDirectory() as temporary, new_place(given.database, Path(temporary)) as place:
        model = Path(temporary) / "model"
        write_tiny_model(model)
        store = SpecimenStore(place)
        fill(store, SPECIMENS, CELLS)
        store.close()
        for kill in range(1, given.kills + 1):
            wait = moments.uniform(0, given.longest)
            done = kill_page(place, model, word, wait) if given.page else kill_process(place, word, wait)
            acknowledged |= done
            if faults := check(place, acknowledged):
                print(f"kill {kill}: {'; '.join(faults)}")
                return 1
            word = max(acknowledged) + 10  # what was not acknowledged may be there
    print(f"{given.kills} kills: {len(acknowledged)} acknowledged words are there, none twice, histories without gaps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
