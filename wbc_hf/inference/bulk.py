"""Bulk prediction: classify very many images, resumable after a kill and distributed over processes.

Predictions are written in chunks. The folder of chunks is the only thing that processes share: each predicts its own
shards, then those of others that are missing, the last first, so that a slow or dead process delays nobody. A process
that finds every shard complete merges the chunks; renaming the folder first makes sure that only one does.
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
from typing import BinaryIO, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from wbc_hf.data import NO_IMAGE
from wbc_hf.distributed import on_first_process
from wbc_hf.errors import UnreadableImageError, WbcError
from wbc_hf.files import open_atomically, write_atomically
from wbc_hf.hub import fetch_model
from wbc_hf.inference.predictor import Prediction, Predictor
from wbc_hf.inference.shards import CHUNK_SIZE, PARQUET_SUFFIX, Images, Item, Shard, find_images
from wbc_hf.manifest import Manifest
from wbc_hf.modeling import Calibration
from wbc_hf.safe_text import csv_cell, escape_surrogates

UNREADABLE = "unreadable"
SUFFIXES = (".csv", ".parquet")
# Beside one for each class.
_COLUMNS = ("file", "label", "probability", "status", "reason")
MANIFEST_FILE = "run.json"
_CHANGES = {
    "images": "other images: paths, files that came, went or changed since, or another commit of a Hub set",
    "model": "another model ({before}, this one is {now})",
    "calibration": "another wbc.json, with other thresholds ({before}, this one is {now})",
    "backend": "another backend, whose figures differ a little ({before}, this one is {now})",
    "export": "another export of the model, by when it was made ({before}, this one is {now})",
    "software": "another version of this package ({before})",
    "chunks": "chunks of another form ({before})",
}
# Version of the chunks, not of the merged file.
_FORMAT = 2
_CHUNK_NAME = re.compile(r"(?P<shard>\d+)-(?P<chunk>\d+)-(?P<rows>\d+)-(?P<last>last|more)\.arrow")
_SECONDS_BETWEEN_LISTINGS = 1.0


@dataclass(frozen=True)
class BulkSummary:
    """Summary of a bulk prediction.

    Attributes:
        images: Number of images, unreadable ones included.
        unreadable: Number of those that could not be read.
    """

    images: int
    unreadable: int


def predict_many(sources: Sequence[str], model: str, output: Path) -> BulkSummary | None:
    """Classify every image of the sources exactly once, into one file; resume where an earlier run stopped.

    Processes started by `torchrun` or `accelerate launch` share the images. All of them must see the output's folder.

    Args:
        sources: See `find_images`.
        model: Model folder, or the id of a model on the Hub.
        output: A new file, .csv or .parquet, with the columns `file`, `label`, `probability`,
            `status`, one for each class and `reason`. An unreadable image has that status, and a reason.

    Returns:
        The summary; None where another process merged the chunks.

    Raises:
        WbcError: Sources, model or output cannot be used, or differ from those that this output was begun with.
    """
    check_output(output, sources)
    # Without a GPU, accelerate treats several processes as one unless it is told to use the CPU.
    state = PartialState(cpu=not torch.cuda.is_available())
    images = find_images(sources)
    with state.main_process_first():
        fetch_model(model)
    predictor = Predictor.from_pretrained(model)
    check_columns(predictor.labels)
    run = Run(output, images, predictor)
    on_first_process(run.open)
    run.check()
    # Otherwise a quick process could merge everything before another one has checked.
    state.wait_for_everyone()
    predict_shards(run, predictor, state.process_index, state.num_processes)
    return run.join()


def check_output(output: Path, sources: Sequence[str]) -> None:
    """Check an output path before anything is loaded.

    Raises:
        WbcError: The suffix is another, its folder is missing, or the file would become one of the sources.
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


def check_columns(labels: Sequence[str]) -> None:
    """Check that each class of a model can be a column of a table of predictions.

    Raises:
        WbcError: A class has the name of another column.
    """
    if taken := [label for label in labels if label in _COLUMNS]:
        raise WbcError(
            f"{taken[0]}: is a class of this model, and a column of the table already. Rename it in id2label of the "
            "model's config.json."
        )


# ---- the folder of chunks


@dataclass(frozen=True)
class Progress:
    """Progress of all processes: what the folder of chunks holds.

    Attributes:
        chunks: Number of chunks of each shard, counted up to the first that is missing.
        complete: Shards of which no chunk is missing.
        images: Number of predictions in these chunks.
    """

    chunks: Counter[int]
    complete: frozenset[int]
    images: int

    @classmethod
    def of(cls, names: Iterable[str]) -> "Progress":
        """From the names of files. Chunks after a gap do not count until it is filled."""
        found: dict[int, dict[int, re.Match[str]]] = {}
        for name in names:
            if match := _CHUNK_NAME.fullmatch(name):
                found.setdefault(int(match["shard"]), {})[int(match["chunk"])] = match
        chunks: Counter[int] = Counter()
        complete: set[int] = set()
        images = 0
        for shard, numbered in found.items():
            for number in count():
                if number not in numbered:
                    break
                chunks[shard] += 1
                images += int(numbered[number]["rows"])
                if numbered[number]["last"] == "last":
                    complete.add(shard)
        return cls(chunks, frozenset(complete), images)


class Run:
    """One bulk prediction: the images, the model, and the folder of chunks that become one file.

    Attributes:
        images: The images to classify.
        folder: Where the chunks lie until they are merged.
        labels: The classes, in the order of the columns.
    """

    def __init__(self, output: Path, images: Images, predictor: Predictor):
        self.images = images
        self.folder = output.with_name(f"{output.name}.chunks")
        self.labels = predictor.labels
        self._output = output
        self._joining = output.with_name(f"{output.name}.joining")
        entries = {
            "images": images.fingerprint,
            "model": predictor.identity.version,
            "calibration": _digest_calibration(predictor.calibration),
            "backend": predictor.backend.name,
            "export": predictor.export.made if predictor.export else "none",
            "software": predictor.identity.software,
            "chunks": f"format {_FORMAT}, {CHUNK_SIZE} images each",
        }
        self._manifest = Manifest(self.folder / MANIFEST_FILE, entries, _CHANGES)
        self._progress_time = -_SECONDS_BETWEEN_LISTINGS
        self._progress = Progress(Counter(), frozenset(), 0)

    def open(self) -> None:
        """Begin or resume. Called on one process, before the others start.

        Raises:
            WbcError: The output exists, or cannot be written.
        """
        if self._output.exists():
            # A kill may have come between the last two steps of `join`.
            shutil.rmtree(self._joining, ignore_errors=True)
            raise WbcError(f"--output {self._output}: exists. Remove it, or name another file.")
        try:
            if self._joining.exists():
                self._joining.rename(self.folder)
            self.folder.mkdir(exist_ok=True)
            self._manifest.write()
        except OSError as error:
            raise self._cannot_write(error) from error

    def check(self) -> None:
        """Raises WbcError where the chunks are of another run than this one, or not to be seen from here."""
        try:
            changes = self._manifest.changes()
        except FileNotFoundError:
            raise WbcError(
                f"{self.folder}: is not there for this process. All need the folder of the output in common, also on "
                "several machines."
            ) from None
        if changes:
            raise WbcError(
                f"{self.folder}: holds predictions of a run that was stopped, with {'; with '.join(changes)}. Give "
                "the original command to resume, name another --output, or remove that folder to start again."
            )

    def progress(self) -> Progress:
        """Progress of all processes, at most a second old. Raises FileNotFoundError once the chunks were merged."""
        if time.monotonic() - self._progress_time >= _SECONDS_BETWEEN_LISTINGS:
            self._progress = Progress.of(os.listdir(self.folder))
            self._progress_time = time.monotonic()
        return self._progress

    def is_complete(self) -> bool:
        return len(self.progress().complete) == len(self.images.shards)

    def write_chunk(self, cut: "_ChunkEnd", rows: Sequence[dict]) -> None:
        """Write a chunk atomically.

        Raises:
            WbcError: It cannot be written.
            FileNotFoundError: Another process has merged the chunks.
        """
        stream = pa.BufferOutputStream()
        with pa.ipc.new_file(stream, self._schema) as file:
            file.write_table(pa.Table.from_pylist(rows, self._schema))
        last = "last" if cut.last else "more"
        name = f"{cut.shard:08d}-{cut.chunk:08d}-{len(rows)}-{last}.arrow"
        try:
            write_atomically(self.folder / name, stream.getvalue().to_pybytes())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._cannot_write(error) from error

    def join(self) -> BulkSummary | None:
        """Merge all chunks, in order, into the output and remove the folder; None where another process does that.

        Raises:
            WbcError: It cannot be written, or a chunk is missing or broken. The others stay.
        """
        try:
            if len(Progress.of(os.listdir(self.folder)).complete) != len(self.images.shards):
                raise WbcError(
                    f"{self.folder}: chunks are missing that existed before. Nothing was written to {self._output}; "
                    "the same command predicts them again."
                )
            self.folder.rename(self._joining)
        except FileNotFoundError:
            return None
        counts: Counter[str] = Counter()
        try:
            with open_atomically(self._output, folder=self._joining) as file:
                _WRITERS[self._output.suffix](file, self._schema, self._iter_chunks(counts))
        except OSError as error:
            raise self._cannot_write(error) from error
        shutil.rmtree(self._joining)
        return BulkSummary(images=counts.total(), unreadable=counts[UNREADABLE])

    def _iter_chunks(self, counts: Counter[str]) -> Iterator[pa.Table]:
        """The chunks in order; counts statuses on the way."""
        for name in sorted(name for name in os.listdir(self._joining) if _CHUNK_NAME.fullmatch(name)):
            try:
                with pa.OSFile(str(self._joining / name)) as file:
                    chunk = pa.ipc.open_file(file).read_all()
            except (pa.ArrowInvalid, OSError) as error:
                (self._joining / name).unlink(missing_ok=True)
                self._joining.rename(self.folder)
                raise WbcError(
                    f"{self.folder / name}: is broken ({' '.join(str(error).split())}), and was removed. The others "
                    "are kept: the same command predicts it again."
                ) from error
            counts.update(chunk["status"].to_pylist())
            yield chunk

    def _cannot_write(self, error: OSError) -> WbcError:
        return WbcError(
            f"--output {self._output}: cannot be written ({error.strerror or error}). Predictions so far are kept: "
            "the same command resumes once there is room."
        )

    @property
    def _schema(self) -> pa.Schema:
        texts = [(name, pa.string()) for name in ("file", "label")]
        classes = [(label, pa.float32()) for label in self.labels]
        columns = [*texts, ("probability", pa.float32()), ("status", pa.string()), *classes, ("reason", pa.string())]
        return pa.schema(columns)


def _digest_calibration(calibration: Calibration | None) -> str:
    """Digest of a calibration: the same for the same `wbc.json` and export."""
    if calibration is None:
        return "none"
    digest = hashlib.sha256(json.dumps(calibration.numbers, sort_keys=True).encode())
    for array in vars(calibration.out_of_distribution_score).values():
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def _write_csv(file: BinaryIO, schema: pa.Schema, chunks: Iterable[pa.Table]) -> None:
    """The format of `predict --format csv`: six digits, empty fields for missing values."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, schema.names))
    for chunk in chunks:
        for row in zip(*(column.to_pylist() for column in chunk.columns), strict=True):
            writer.writerow(f"{value:.6f}" if isinstance(value, float) else csv_cell(value) for value in row)
    text.detach()


def _write_parquet(file: BinaryIO, schema: pa.Schema, chunks: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(file, schema) as writer:
        for chunk in chunks:
            writer.write_table(chunk)


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet}


# ---- predicting


@dataclass(frozen=True)
class _ChunkEnd:
    """Marks the end of a chunk, and of its shard where `last`; follows the chunk's images."""

    shard: int
    chunk: int
    last: bool


def predict_shards(run: Run, predictor: Predictor, process: int, processes: int) -> None:
    """Predict what is missing until nothing is, as one of several processes.

    Raises:
        WbcError: The sources cannot be read to their end. Earlier chunks are kept.
    """
    predicted = _prediction_rows(predictor, _remaining_items(run, process, processes))
    rows: list[dict] = []
    try:
        total, before = run.images.count, run.progress().images
        # `disable=None`: no bar where the output goes into a file.
        shown = None if process == 0 else True
        with tqdm(
            desc="Predicting", total=total, initial=before, unit="image", delay=2, leave=False, disable=shown
        ) as bar:
            for one in predicted:
                if isinstance(one, _ChunkEnd):
                    run.write_chunk(one, rows)
                    rows = []
                else:
                    rows.append(one)
                bar.update(max(0, run.progress().images + len(rows) - bar.n))
                if run.is_complete():
                    return
    except FileNotFoundError:
        if run.folder.exists():
            raise
        # Another process predicted what this one was still working on, and has merged the chunks.


def _remaining_items(run: Run, process: int, processes: int) -> Iterator[Item | _ChunkEnd]:
    """Missing images of this process, in order, then of the others, each chunk followed by its end.

    The others work forwards, so shards are taken over from the end.
    """
    shards = run.images.shards
    own = range(process, len(shards), processes)
    others = (number for number in reversed(range(len(shards))) if number not in own)
    for number in chain(own, others):
        progress = run.progress()
        if number not in progress.complete:
            yield from _with_chunk_ends(shards[number], number, progress.chunks[number])


def _with_chunk_ends(shard: Shard, number: int, chunk: int) -> Iterator[Item | _ChunkEnd]:
    """Images of a shard from a chunk on, each chunk followed by its end. An empty shard has one empty chunk."""
    items = shard.read(chunk * CHUNK_SIZE)
    upcoming = next(items, None)
    while True:
        for _ in range(CHUNK_SIZE):
            if upcoming is None:
                break
            yield upcoming
            upcoming = next(items, None)
        yield _ChunkEnd(number, chunk, last=upcoming is None)
        if upcoming is None:
            return
        chunk += 1


def _prediction_rows(predictor: Predictor, items: Iterable[Item | _ChunkEnd]) -> Iterator[dict | _ChunkEnd]:
    """Turn images into rows of the output, batched across chunks; chunk ends keep their places."""
    waiting: deque[Item | _ChunkEnd] = deque()

    def sources() -> Iterator[str | bytes]:
        for item in items:
            waiting.append(item)
            if isinstance(item, Item) and item.source is not None:
                yield item.source

    for prediction in predictor.predict_each(sources()):
        item = waiting.popleft()
        while not _has_image(item):
            yield _row_without_prediction(item)
            item = waiting.popleft()
        yield _row(item, prediction)
    yield from map(_row_without_prediction, waiting)


def _has_image(item: Item | _ChunkEnd) -> TypeGuard[Item]:
    return isinstance(item, Item) and item.source is not None


def _row_without_prediction(item: Item | _ChunkEnd) -> dict | _ChunkEnd:
    """A chunk end as it is, or the row of an image that holds no picture."""
    return item if isinstance(item, _ChunkEnd) else _row(item, UnreadableImageError(item.name, NO_IMAGE))


def _row(item: Item, prediction: Prediction | UnreadableImageError) -> dict:
    # File names are bytes: make them valid UTF-8.
    row: dict[str, object] = {"file": escape_surrogates(item.name)}
    if isinstance(prediction, UnreadableImageError):
        return row | {"status": UNREADABLE, "reason": prediction.reason}
    row |= {"label": prediction.label, "probability": prediction.probability, "status": prediction.status}
    return row | {prediction.label: prediction.probability} | dict(prediction.alternatives)
