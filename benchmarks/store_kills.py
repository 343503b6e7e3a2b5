"""Kill a process that reviews kept specimens, many times at random moments, and look what is there afterwards.

    python benchmarks/store_kills.py --kills 50

A process of its own opens specimens, reviews cells, takes pictures out and puts them back, adds pictures, and writes
on its output what was acknowledged. It gets SIGKILL after a random time. Then the store is opened anew: every
acknowledged word must be there, none twice, the history without gaps, and every picture readable. Ends with status 1
otherwise.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from store_speed import fill

from wbc_hf.smear import Action, Cell, Specimen
from wbc_hf.store import SpecimenStore

ROOT = Path(__file__).parents[1]
SPECIMENS, CELLS = 3, 10


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds between the first word and the kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--review", nargs=2, metavar=("FOLDER", "FIRST"), help=argparse.SUPPRESS)
    return parser.parse_args()


def review_for_ever(folder: Path, word: int) -> None:
    """Act on the specimens of a store, and say what was acknowledged."""
    store = SpecimenStore(folder)
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
                specimen.add_picture(who, (640, 480), specimen.pictures[0].preview, [again], is_field=True)
            case _:
                reviewable = [it.number for it in specimen.cells if not it.removed and it.duplicate_of is None]
                if reviewable:
                    specimen.review(reviewable[word % len(reviewable)], "monocyte" if word % 2 else None, who)
                else:
                    specimen.describe(who, comment=who)
        print(word, flush=True)
        word += 1


def acknowledged_words(specimen: Specimen) -> list[int]:
    """Numbers of the words that the history of a specimen holds."""
    said = [event.after if event.action is Action.READ else event.who for event in specimen.history]
    return [int(text.removeprefix("word ")) for text in said if text.startswith("word ")]


def check(folder: Path, acknowledged: set[int]) -> list[str]:
    """What is wrong with a store after a kill."""
    store = SpecimenStore(folder)
    faults, words = store.check(), []
    for item in store.find().items:
        specimen = store.open(item.key)
        words += acknowledged_words(specimen)
        if [event.number for event in specimen.history] != list(range(1, len(specimen.history) + 1)):
            faults.append(f"{item.key}: its history has gaps")
        if not all(it.preview for it in specimen.pictures) or not all(it.image for it in specimen.cells):
            faults.append(f"{item.key}: has no pixels of a picture")
    if lost := acknowledged - set(words):
        faults.append(f"words {sorted(lost)} were acknowledged and are lost")
    if len(words) != len(set(words)):
        faults.append("a word is there twice")
    store.close()
    return faults


def main() -> int:
    given = parse_arguments()
    if given.review:
        review_for_ever(Path(given.review[0]), int(given.review[1]))
    moments, acknowledged, word = random.Random(given.seed), set(), 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        fill(SpecimenStore(folder), SPECIMENS, CELLS)
        for kill in range(1, given.kills + 1):
            words = [sys.executable, __file__, "--review", str(folder), str(word)]
            variables = os.environ | {"PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=variables)
            assert process.stdout is not None
            acknowledged.add(int(process.stdout.readline()))
            time.sleep(moments.uniform(0, given.longest))
            process.send_signal(signal.SIGKILL)
            acknowledged |= {int(line) for line in process.stdout.read().split()}
            process.wait()
            if faults := check(folder, acknowledged):
                print(f"kill {kill}: {'; '.join(faults)}")
                return 1
            word = max(acknowledged) + 2  # what was not acknowledged may be there
    print(f"{given.kills} kills: {len(acknowledged)} acknowledged words are there, none twice, histories without gaps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
