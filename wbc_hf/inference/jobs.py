"""Resumable jobs on Ray Data: very many rows of work, an actor for each GPU or core, here or on a cluster.

A job has a folder. Beside its results that holds `run.json`, what they are made from, and until the end `.work`: the
index of all rows, and Ray Data's checkpoints of those that are done. The index is made first, since Ray Data reads
it again when a job is resumed, and leaves out what a checkpoint holds before anything large is read.
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow import dataset

from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.files import make_folder
from wbc_hf.hardware import usable_cores
from wbc_hf.inference.prediction_rows import NUMBER
from wbc_hf.inference.predictor import batches
from wbc_hf.manifest import Manifest

T = TypeVar("T")

MANIFEST_FILE = "run.json"
WORK_FOLDER = ".work"
_GROUPS_PER_FILE = 50
# What an actor with a model takes at most of a node's memory, for which it is counted.
_ACTOR_BYTES = 1 << 30


def check_ray(address: str | None = None) -> str:
    """Import Ray; return the address to use. Raises WbcError where it is not installed."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        # Ray then listens on the loopback interface alone, as it does where clusters are not supported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    elif _has_cluster_token():
        # `ray start` (2.60) asks for a token and writes it there, and yet programs show none unless told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Before the import: no usage statistics, and little on the terminal but what ends the job.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with needs_extra("bulk"):
        import ray.data  # noqa: F401
    return address


def _has_cluster_token() -> bool:
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").exists()


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray on this machine until the block ends. A session that runs is used.

    Args:
        address: Such as "auto" or "10.0.0.1:6379"; by default the variable RAY_ADDRESS, else this machine alone.

    Raises:
        WbcError: Ray is not installed, or there is no cluster at the address.
    """
    address = check_ray(address)
    import ray

    if ray.is_initialized():
        yield
        return
    here: dict[str, Any] = {}
    if address == "local":
        # One core more than there are: resuming needs an actor that filters, which costs next to nothing.
        here = {"include_dashboard": False, "num_cpus": usable_cores() + 1}
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised too
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **here)
    except Exception as error:  # Ray's own are of no kind
        problem = " ".join(str(error).split())
        if address == "local":
            raise WbcError(f"Ray did not start on this machine ({problem}). The same command tries again.") from error
        raise WbcError(
            f"--address {address}: no Ray cluster answers there ({problem}). Start one with `ray start --head`, or "
            "leave out --address and RAY_ADDRESS to use this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_as_actor(work: Callable[[], T]) -> T:
    """Run a function once, where and with what the actors of a job run, such as on a node with a GPU.

    Raises:
        WbcError: From the function.
    """
    import ray

    try:
        # Ray takes functions alone, and no partial.
        return ray.get(ray.remote(lambda: work()).options(**_actors()[1]).remote())
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, WbcError):
            raise WbcError(str(error.cause)) from None
        raise


class Job:
    """A job in a folder: `prepared`, and within it and a `ray_session` `claim` and `run`; then `finish`.

    Attributes:
        folder: Holds the results.
        count: Number of rows, once prepared.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()  # wherever an actor runs
        self.count = 0
        self._work = self.folder / WORK_FOLDER
        self._fresh = self.folder / f"{WORK_FOLDER}.new"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, once claimed."""
        return not self._work.exists()

    @contextmanager
    def prepared(self, rows: Iterable[dict[str, Any]], schema: pa.Schema, at_once: int) -> Iterator[None]:
        """Write the index of all rows, which `claim` compares with an earlier one; a block without it leaves no trace.

        Args:
            rows: With the columns of `schema`; a column `number`, from 0, is added.
            schema: Of the rows.
            at_once: Rows that an actor gets together: results of fewer are lost when it is killed.

        Raises:
            WbcError: The folder cannot be made, or holds something else than a job.
        """
        self._check_folder()
        try:
            make_folder(self._fresh, "Give another --output.")
            self._write_index(rows, pa.schema([(NUMBER, pa.int64()), *schema]), at_once)
            if not self.count:
                raise WbcError(f"--output {self.folder}: the sources are empty, so that nothing is written.")
            yield
        finally:
            shutil.rmtree(self._fresh, ignore_errors=True)
            if not (self.folder / MANIFEST_FILE).exists():
                with suppress(OSError):
                    self.folder.rmdir()

    def claim(self, entries: Mapping[str, object], messages: Mapping[str, str]) -> None:
        """Begin or resume the job. Entries, on which the results depend, and messages are as for `Manifest`.

        Raises:
            WbcError: The folder holds results of other entries.
        """
        manifest = Manifest(self.folder / MANIFEST_FILE, entries, messages)
        if manifest.exists() and (changes := manifest.changes()):
            raise WbcError(
                f"--output {self.folder}: holds results with {'; with '.join(changes)}. Give the original command to "
                "resume, name another --output, or remove that folder to start again."
            )
        if manifest.exists() and self.is_finished:
            return
        self._work.mkdir(exist_ok=True)
        manifest.write()
        shutil.rmtree(self._work / "index", ignore_errors=True)
        self._fresh.rename(self._work / "index")

    def run(self, actor: type, results: str, **arguments: object) -> None:
        """Have actors work on every row that has no result yet; nothing where the job is finished.

        Args:
            actor: Class; called with a table of rows it returns a table of results, with a column `number` too.
            results: Sub-folder for the results, Parquet.
            **arguments: Of the class.

        Raises:
            WbcError: From an actor, or results are missing.
        """
        if not self.is_finished:
            problem = self._work / "problem.txt"
            problem.unlink(missing_ok=True)
            try:
                self._run(actor, self.folder / results, arguments, problem)
            except Exception as error:
                # Of an error in an actor Ray Data keeps a traceback as text alone.
                if problem.exists():
                    raise WbcError(problem.read_text(encoding="utf-8")) from error
                raise
        numbers = dataset.dataset(self.folder / results, format="parquet").to_table(columns=[NUMBER])[NUMBER]
        if not np.array_equal(np.sort(numbers.to_numpy()), np.arange(self.count)):
            raise WbcError(
                f"{self.folder / results}: does not hold a row for each of {self.count}. Remove {self.folder}, and "
                "start again."
            )

    def finish(self) -> None:
        """Remove what only resuming needs: in one step, since rows without their checkpoints would be done again."""
        if not self.is_finished:
            shutil.rmtree(self._fresh, ignore_errors=True)
            self._work.rename(self._fresh)
            shutil.rmtree(self._fresh)

    def _run(self, actor: type, results: Path, arguments: dict[str, object], problem: Path) -> None:
        import ray.data
        from ray.data.checkpoint import CheckpointConfig

        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = sys.stderr.isatty()
        checkpoints = CheckpointConfig(NUMBER, str(self._work / "checkpoints"), delete_checkpoint_on_success=False)
        checkpoints.checkpoint_actor_pool_max_size = 1  # each takes a core from the others
        context.checkpoint_config = checkpoints
        index, blocks = _index_source(self._work / "index")
        count, share, threads = _actors()
        few = max(2, count // 8)  # reading the index and writing rows take no core, but processes
        with ray.data.DataContext.current(context):
            rows = ray.data.read_datasource(index, override_num_blocks=blocks, num_cpus=0, concurrency=few)
            rows.map_batches(
                _OnItsCores,
                fn_constructor_args=(actor, arguments, problem, threads),
                batch_size=None,
                batch_format="pyarrow",
                zero_copy_batch=True,
                # One that adapted its size would begin with few, and load models as it goes.
                compute=ray.data.ActorPoolStrategy(size=count),
                **share,
            ).write_parquet(str(results), ray_remote_args={"num_cpus": 0}, concurrency=few)

    def _check_folder(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise WbcError(f"--output {self.folder}: is a file; results are written to a folder. Name another.")
        found = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        if found and not found & {MANIFEST_FILE, self._work.name, self._fresh.name}:
            raise WbcError(f"--output {self.folder}: holds other files. Name a new folder, or an empty one.")

    def _write_index(self, rows: Iterable[dict[str, Any]], schema: pa.Schema, at_once: int) -> None:
        self.count = 0
        for number, groups in enumerate(batches(batches(rows, at_once), _GROUPS_PER_FILE)):
            with pq.ParquetWriter(self._fresh / f"{number:06d}.parquet", schema) as writer:
                for group in groups:
                    numbered = [{NUMBER: self.count + place, **row} for place, row in enumerate(group)]
                    writer.write_table(pa.Table.from_pylist(numbered, schema))
                    self.count += len(group)


class _OnItsCores:
    """An actor on the cores that it was given: libraries use all of a machine unless they are told."""

    def __init__(self, actor: type, arguments: dict[str, object], problem: Path, threads: int):
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
        self._actor, self._arguments, self._problem = actor, arguments, problem
        self._made: Callable[[pa.Table], pa.Table] | None = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        try:
            # Not before: an error in its constructor would have Ray start another one, again and again.
            if self._made is None:
                self._made = self._actor(**self._arguments)
            return self._made(rows)
        except WbcError as error:
            self._problem.write_text(str(error), encoding="utf-8", errors="backslashreplace")
            raise


def _index_source(folder: Path) -> tuple[Any, int]:
    """A source of Ray Data with a block for each row group, and their number; its own for Parquet joins small ones."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    # Within, so that Ray sends it along: a worker that only reads need not import this package, and torch with it.
    def read_group(file: str, number: int) -> list[pa.Table]:
        return [pq.ParquetFile(file).read_row_group(number)]

    tasks = []
    for file in sorted(folder.iterdir()):
        metadata = pq.read_metadata(file)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            size = BlockMetadata(group.num_rows, group.total_byte_size, None, None)
            tasks.append(ReadTask(partial(read_group, str(file), number), size))

    class Index(Datasource):
        def estimate_inmemory_data_size(self) -> int:
            return sum(task.metadata.size_bytes or 0 for task in tasks)

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            return tasks

    return Index(), len(tasks)


def _actors() -> tuple[int, dict[str, int], int]:
    """How many, what each takes of a node, and its threads: one for each GPU, else for each core, as memory goes."""
    import ray

    found = ray.cluster_resources()
    cores = max(1, int(found["CPU"]) - 1)  # resuming needs one
    if gpus := int(found.get("GPU", 0)):
        return gpus, {"num_gpus": 1}, max(1, cores // gpus)
    return max(1, min(cores, int(found["memory"] // _ACTOR_BYTES))), {"num_cpus": 1}, 1
