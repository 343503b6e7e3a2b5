"""Answers for very many images: kept part by part, taken up again after a kill, shared out over processes.

Processes agree through the folder of parts alone. Each answers its own shards, then those of others that are not
there yet, the last first: a process that is slow or gone holds nobody up, and nobody waits. Who finds everything
answered, without a gap, joins the parts, and only one can: the folder is renamed first.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from wbc_hf.data.checking import NO_IMAGE
from wbc_hf.distributed import on_first_process
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.hub import fetch_model
from wbc_hf.inference.predictor import Prediction, Predictor
from wbc_hf.inference.shards import PARQUET_SUFFIX, PART_SIZE, Images, Item, Shard, find_images
from wbc_hf.modeling import Calibration

UNREADABLE = "unreadable"
SUFFIXES = (".csv", ".parquet")
MANIFEST_FILE = "run.json"
# Of the parts, not of what they are joined into.
_FORMAT = 2
_PART_NAME = re.compile(r"(?P<shard>\d+)-(?P<part>\d+)-(?P<rows>\d+)-(?P<last>last|more)\.arrow")
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Answered:
    """What came of a run.

    Attributes:
        images: How many were answered, unreadable ones included.
        unreadable: How many of them could not be read.
    """

    images: int
    unreadable: int


def predict_many(sources: Sequence[str], model: str, output: Path) -> Answered | None:
    """Answer every image of the sources once, into a file; goes on where a run before was stopped.

    Started by `torchrun` or `accelerate launch`, the processes share the images out among themselves. They need one
    folder in common: that of the output.

    Args:
        sources: See `find_images`.
        model: Model folder, or the id of a model on the Hub.
        output: A file that is not there yet, .csv or .parquet, with the columns `file`, `label`, `probability`,
            `status`, one for each class and `reason`. A picture that is unreadable has this status, and a reason.

    Returns:
        What came of it; None where another process told that already.

    Raises:
        WbcError: Sources, model or output that cannot be used, or other ones than this output was begun with.
    """
    check_output(output, sources)
    # accelerate takes several processes without a GPU for one each unless it is told.
    state = PartialState(cpu=not torch.cuda.is_available())
    images = find_images(sources)
    with state.main_process_first():
        fetch_model(model)
    predictor = Predictor.from_pretrained(model)
    run = Run(output, images, predictor)
    on_first_process(run.open)
    run.check()
    # One that is quick could else have joined everything before another one looked.
    state.wait_for_everyone()
    predict_shards(run, predictor, state.process_index, state.num_processes)
    return run.join()


def check_output(output: Path, sources: Sequence[str]) -> None:
    """What can be said of an output before anything is loaded.

    Raises:
        WbcError: Another suffix, no folder to write it to, or one where it would be taken for a source itself.
    """
    if output.suffix not in SUFFIXES:
        raise WbcError(f"--output {output}: a file that ends in {' or '.join(SUFFIXES)} is written.")
    if not output.parent.is_dir():
        raise WbcError(f"--output {output}: lies in a folder that is not there. Make it, or name another.")
    if output.suffix != PARQUET_SUFFIX:
        return
    for source in sources:
        folder = Path(source).expanduser()
        if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            raise WbcError(
                f"--output {output}: lies in {source}, whose Parquet files are all taken for images. Name a file "
                f"outside of {source}, or one that ends in .csv."
            )


# ---- the folder of parts


@dataclass(frozen=True)
class Standing:
    """What the folder of parts holds.

    Attributes:
        parts: How many parts of each shard, counted from its first to the first that is missing.
        complete: The shards of which these are all.
        images: How many are answered in them.
    """

    parts: Counter[int]
    complete: frozenset[int]
    images: int

    @classmethod
    def of(cls, names: Iterable[str]) -> "Standing":
        """By the names of files. What comes after a gap does not count before the gap is filled."""
        found: dict[int, dict[int, re.Match[str]]] = {}
        for name in names:
            if match := _PART_NAME.fullmatch(name):
                found.setdefault(int(match["shard"]), {})[int(match["part"])] = match
        parts, complete, images = Counter(), set(), 0
        for shard, numbered in found.items():
            for number in count():
                if number not in numbered:
                    break
                parts[shard] += 1
                images += int(numbered[number]["rows"])
                if numbered[number]["last"] == "last":
                    complete.add(shard)
        return cls(parts, frozenset(complete), images)


class Run:
    """The answers of one model to certain images, on their way into one file.

    Attributes:
        images: What has to be answered.
        folder: Where the parts lie until they are joined.
        labels: The classes, in the order of the columns.
    """

    def __init__(self, output: Path, images: Images, predictor: Predictor):
        self.images = images
        self.folder = output.with_name(f"{output.name}.parts")
        self.labels = predictor.labels
        self._output = output
        self._joining = output.with_name(f"{output.name}.joining")
        self._manifest = {
            "images": images.fingerprint,
            "model": predictor.identity.version,
            "trust": _digest_calibration(predictor.trust),
            "backend": predictor.backend.name,
            "export": predictor.export.made if predictor.export else "none",
            "software": predictor.identity.software,
            "parts": f"format {_FORMAT}, {PART_SIZE} images each",
        }
        self._looked_at = -_SECONDS_BETWEEN_LOOKS
        self._standing = Standing(Counter(), frozenset(), 0)

    def open(self) -> None:
        """Begin, or go on with what was begun. For one process, before any other does anything.

        Raises:
            WbcError: The output is there already, or cannot be written.
        """
        if self._output.exists():
            # A kill may have come between the last two steps of joining.
            shutil.rmtree(self._joining, ignore_errors=True)
            raise WbcError(f"--output {self._output}: is there already. Remove it, or name another file.")
        try:
            if self._joining.exists():
                self._joining.rename(self.folder)
            self.folder.mkdir(exist_ok=True)
            if not (self.folder / MANIFEST_FILE).exists():
                self._write(MANIFEST_FILE, json.dumps(self._manifest, indent=2).encode())
        except OSError as error:
            raise self._cannot_write(error) from error

    def check(self) -> None:
        """Raises WbcError where the parts are of another run than this one, or not to be seen from here."""
        try:
            begun = json.loads((self.folder / MANIFEST_FILE).read_bytes())
        except FileNotFoundError:
            raise WbcError(
                f"{self.folder}: is not there for this process. All need the folder of the output in common, also on "
                "several machines."
            ) from None
        changed = [name for name, value in self._manifest.items() if begun.get(name) != value]
        if not changed:
            return
        differ = {name: f"({begun.get(name)}, this one is {value})" for name, value in self._manifest.items()}
        told = {
            "images": "other images: paths, files that came, went or changed since, or another commit of a Hub set",
            "model": f"another model {differ['model']}",
            "trust": f"another wbc.json, which says when to trust the model {differ['trust']}",
            "backend": f"another backend, whose figures differ a little {differ['backend']}",
            "export": f"another export of the model, by when it was made {differ['export']}",
            "software": f"another version of this package ({begun.get('software')})",
            "parts": f"parts of another form ({begun.get('parts')})",
        }
        raise WbcError(
            f"{self.folder}: holds answers of a run that was stopped, with {'; with '.join(map(told.get, changed))}. "
            "Give the command that it was begun with to go on, name another --output, or remove that folder to begin "
            "anew."
        )

    def look(self) -> Standing:
        """What is there, of all processes, as of a second ago at most. FileNotFoundError once it was joined."""
        if time.monotonic() - self._looked_at >= _SECONDS_BETWEEN_LOOKS:
            self._standing = Standing.of(os.listdir(self.folder))
            self._looked_at = time.monotonic()
        return self._standing

    def is_complete(self) -> bool:
        return len(self.look().complete) == len(self.images.shards)

    def keep(self, cut: "_Cut", rows: Sequence[dict]) -> None:
        """Write a part, whole or not at all.

        Raises:
            WbcError: It cannot be written.
            FileNotFoundError: All was joined meanwhile.
        """
        stream = pa.BufferOutputStream()
        with pa.ipc.new_file(stream, self._schema) as file:
            file.write_table(pa.Table.from_pylist(rows, self._schema))
        last = "last" if cut.last else "more"
        name = f"{cut.shard:08d}-{cut.part:08d}-{len(rows)}-{last}.arrow"
        try:
            self._write(name, stream.getvalue())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._cannot_write(error) from error

    def _write(self, name: str, content: bytes | pa.Buffer) -> None:
        temporary = self.folder / f"{uuid4().hex}.tmp"
        with temporary.open("wb") as file:
            file.write(content)
            _flush(file)
        os.replace(temporary, self.folder / name)

    def join(self) -> Answered | None:
        """All parts, in order, into the output, and the folder away; None where another process does that.

        Raises:
            WbcError: It cannot be written, or a part is missing. The parts stay.
        """
        try:
            if len(Standing.of(os.listdir(self.folder)).complete) != len(self.images.shards):
                raise WbcError(
                    f"{self.folder}: parts are missing that were there before. Nothing was written to {self._output}; "
                    "the same command answers them again."
                )
            self.folder.rename(self._joining)
        except FileNotFoundError:
            return None
        counts: Counter[str] = Counter()
        whole = self._joining / f"whole{self._output.suffix}"
        try:
            with whole.open("wb") as file:
                _WRITERS[self._output.suffix](file, self._schema, self._parts(counts))
                _flush(file)
            os.replace(whole, self._output)
        except OSError as error:
            raise self._cannot_write(error) from error
        shutil.rmtree(self._joining)
        return Answered(images=counts.total(), unreadable=counts[UNREADABLE])

    def _parts(self, counts: Counter[str]) -> Iterator[pa.Table]:
        """The parts in order; their statuses are counted as they come by."""
        for name in sorted(name for name in os.listdir(self._joining) if _PART_NAME.fullmatch(name)):
            with pa.OSFile(str(self._joining / name)) as file:
                part = pa.ipc.open_file(file).read_all()
            counts.update(part["status"].to_pylist())
            yield part

    def _cannot_write(self, error: OSError) -> WbcError:
        return WbcError(
            f"--output {self._output}: cannot be written ({error.strerror or error}). What was answered is kept: the "
            "same command goes on once there is room."
        )

    @property
    def _schema(self) -> pa.Schema:
        texts = [(name, pa.string()) for name in ("file", "label")]
        classes = [(label, pa.float32()) for label in self.labels]
        columns = [*texts, ("probability", pa.float32()), ("status", pa.string()), *classes, ("reason", pa.string())]
        return pa.schema(columns)


def _digest_calibration(trust: Calibration | None) -> str:
    """Of what says when to trust the model: the same for the same `wbc.json` and export."""
    if trust is None:
        return "none"
    digest = hashlib.sha256(json.dumps(trust.numbers, sort_keys=True).encode())
    for array in vars(trust.familiarity).values():
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def _flush(file: BinaryIO) -> None:
    """To the disk: a name must not outlive a power cut without what it names."""
    file.flush()
    os.fsync(file.fileno())


def _write_csv(file: BinaryIO, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """As `predict --format csv` prints: six digits, and nothing where there is nothing to say."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    for part in parts:
        for row in zip(*(column.to_pylist() for column in part.columns), strict=True):
            writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row])
    text.detach()


def _write_parquet(file: BinaryIO, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(part)


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet}


# ---- answering


@dataclass(frozen=True)
class _Cut:
    """The end of a part, and perhaps of its shard; comes after the part's images."""

    shard: int
    part: int
    last: bool


def predict_shards(run: Run, predictor: Predictor, process: int, processes: int) -> None:
    """Answer what is not answered yet, until nothing is left; one of so many processes that do.

    Raises:
        WbcError: The sources stop half-way. What was answered before is kept.
    """
    answers = _answers(predictor, _unanswered(run, process, processes))
    rows: list[dict] = []
    try:
        total, before = run.images.count, run.look().images
        # `disable=None`: no bar where the output goes into a file.
        shown = None if process == 0 else True
        with tqdm(
            desc="Answering", total=total, initial=before, unit="image", delay=2, leave=False, disable=shown
        ) as bar:
            for one in answers:
                if isinstance(one, _Cut):
                    run.keep(one, rows)
                    rows = []
                else:
                    rows.append(one)
                bar.update(max(0, run.look().images + len(rows) - bar.n))
                if run.is_complete():
                    return
    except FileNotFoundError:
        if run.folder.exists():
            raise
        # Another process answered what this one was still at, and has joined the parts.


def _unanswered(run: Run, process: int, processes: int) -> Iterator[Item | _Cut]:
    """Images of this process, in order, then what is left of others', each part with its cut.

    Others work forwards: from the end it takes longest until two are at the same images.
    """
    shards = run.images.shards
    own = range(process, len(shards), processes)
    others = (number for number in reversed(range(len(shards))) if number not in own)
    for number in chain(own, others):
        standing = run.look()
        if number not in standing.complete:
            yield from _cut(shards[number], number, standing.parts[number])


def _cut(shard: Shard, number: int, part: int) -> Iterator[Item | _Cut]:
    """A shard from a part on, each part with its cut. A shard without images has one part, without any."""
    items = shard.read(part * PART_SIZE)
    upcoming = next(items, None)
    while True:
        for _ in range(PART_SIZE):
            if upcoming is None:
                break
            yield upcoming
            upcoming = next(items, None)
        yield _Cut(number, part, last=upcoming is None)
        if upcoming is None:
            return
        part += 1


def _answers(predictor: Predictor, items: Iterable[Item | _Cut]) -> Iterator[dict | _Cut]:
    """For each image its row of the answers, and the cuts where they were. Asks for all in one go, however many."""
    waiting: deque[Item | _Cut] = deque()

    def sources() -> Iterator[str | bytes]:
        for item in items:
            waiting.append(item)
            if _can_be_asked(item):
                yield item.source

    for answer in predictor.predict_each(sources()):
        while not _can_be_asked(waiting[0]):
            yield _settled(waiting.popleft())
        yield _row(waiting.popleft(), answer)
    yield from map(_settled, waiting)


def _can_be_asked(item: Item | _Cut) -> bool:
    return isinstance(item, Item) and item.source is not None


def _settled(item: Item | _Cut) -> dict | _Cut:
    """What needs no answer of the model."""
    return item if isinstance(item, _Cut) else _row(item, UnreadableImageError(item.name, NO_IMAGE))


def _row(item: Item, answer: Prediction | UnreadableImageError) -> dict:
    # File names are bytes; text that everything can read is made of them here.
    row = {"file": os.fsencode(item.name).decode(errors="backslashreplace")}
    if isinstance(answer, UnreadableImageError):
        return row | {"status": UNREADABLE, "reason": answer.reason}
    row |= {"label": answer.label, "probability": answer.probability, "status": answer.status}
    return row | {answer.label: answer.probability} | dict(answer.alternatives)
