"""What several test files share: a folder of painted cells, the command of a tiny run, and one such run."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Before torch: a network of these sizes gains nothing from threads, and loses much on a machine with other work.
os.environ["OMP_NUM_THREADS"] = "1"
# Ray's workers give way to all else by default: a test waits long for them while another worker's tests go on.
os.environ.setdefault("RAY_worker_niceness", "0")
# Gradio names uploads after their content and removes them when a page ends: also those of another run's page.
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="wbc_hf-tests-")
# What was found by looking at images of one test is no business of another run. Workers of one run share it: what one
# has converted for OpenVINO, the other finds.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["WBC_HF_CACHE"] = tempfile.mkdtemp(prefix="wbc_hf-tests-")
# The laboratories of whoever runs the tests are no business of theirs.
os.environ["WBC_HF_LABORATORIES"] = tempfile.mkdtemp(prefix="wbc_hf-tests-")

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import train
from tests.adapted_models import write_tiny_model
from tests.loopback_hub import LoopbackHub, connect
from tests.painted_slides import PaintedSlide
from tests.postgresql_server import PostgresServer, serve_postgresql, why_none
from tests.slide_files import paint, write_tiff
from wbc_hf.data import paint_cells
from wbc_hf.labels import CLASS_NAMES

CELLS_PER_CLASS = 12
Command = Callable[..., list[str]]


# Files whose tests train, convert, serve or start programs: they take nine tenths of the time. `make quick` leaves
# them out, as it leaves out single tests that are marked slow.
SLOW_FILES = [
    "test_adapt_tab.py",
    "test_adaptation.py",
    "test_app.py",
    "test_archive.py",
    "test_audit.py",
    "test_backbone.py",
    "test_backends.py",
    "test_broken_inputs.py",
    "test_bulk.py",
    "test_caches.py",
    "test_cell_views.py",
    "test_cli.py",
    "test_cold_start.py",
    "test_conversions.py",
    "test_default_model.py",
    "test_deploy_space.py",
    "test_documentation.py",
    "test_end_to_end.py",
    "test_evaluation.py",
    "test_exporting.py",
    "test_exports.py",
    "test_face.py",
    "test_finder.py",
    "test_finder_training.py",
    "test_hostile_models.py",
    "test_hub_sets.py",
    "test_image_sources.py",
    "test_jobs.py",
    "test_laboratories.py",
    "test_laboratory_panel.py",
    "test_memory.py",
    "test_misuse.py",
    "test_model_folder.py",
    "test_monolayer.py",
    "test_near_duplicates.py",
    "test_network.py",
    "test_packaging.py",
    "test_page.py",
    "test_page_process.py",
    "test_predictor.py",
    "test_report.py",
    "test_resnet.py",
    "test_run.py",
    "test_running.py",
    "test_search.py",
    "test_search_storage.py",
    "test_fine_tuning.py",
    "test_session.py",
    "test_slide_counting.py",
    "test_slides.py",
    "test_slides_tab.py",
    "test_sources.py",
    "test_specimen_tab.py",
    "test_store.py",
    "test_togacar_2020.py",
    "test_tools.py",
    "test_trainer.py",
    "test_weight_difference.py",
]


def _is_slow(file: Path) -> bool:
    return file.name in SLOW_FILES or file.parent.name == "survey"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow files unread where slow tests are left out: each worker would import them for nothing."""
    chosen = config.option.markexpr
    unwanted = " or " not in chosen and "not slow" in chosen.split(" and ")
    return True if unwanted and _is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and what depends on the seed: `WBC_HF_TEST_SEED=7 pytest -m seeded` tries another one.

    Slow files come first: of two workers none is left alone with a long file at the end (`make test`).
    """
    items.sort(key=lambda item: not _is_slow(item.path))
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else ()
        if "seed" in getattr(item, "fixturenames", ()) and "seed" not in parameters:
            item.add_marker("seeded")
        # Whichever test comes first waits for the training that all of these share.
        if _is_slow(item.path) or "tiny_run" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


def pytest_runtest_setup() -> None:
    """Draw the weights of untrained networks alike, whichever tests ran before."""
    torch.manual_seed(_seed())


def _seed() -> int:
    return int(os.environ.get("WBC_HF_TEST_SEED", "0"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub on this machine, to which huggingface_hub talks in this process."""
    with LoopbackHub() as hub:
        connect(hub, monkeypatch, tmp_path)
        yield hub


@pytest.fixture(scope="module")
def unserved() -> Iterator[None]:
    """Pages whose handlers alone are called. Gradio makes an app to serve each, thrice: most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradio.routes.App.create_app", lambda *_, **__: None)
        yield


@contextmanager
def figures_undrawn() -> Iterator[None]:
    """Empty pictures for the figures of a report: to draw them takes as long as to train a tiny network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda _, file, **__: Image.new("RGB", (1, 1)).save(file, "png")
        )
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    with figures_undrawn():
        yield


@pytest.fixture
def brief_adaptation() -> Iterator[None]:
    """Three batches a fold where a model is adapted to labelled cells: enough for what is done with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_hf.adaptation.fine_tuning._LEAST_STEPS", 3)
        patch.setattr("wbc_hf.adaptation.fine_tuning._STEPS_PER_LABEL", 0)
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run's own."""
    if reason := why_none():
        pytest.skip(reason)
    with serve_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def seed() -> int:
    """Seed of what tests train or fit: `WBC_HF_TEST_SEED`, 0 by default. What they assert has to hold for any."""
    return _seed()


def shared_folder(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """A folder that is filled once in a run: of its workers, the first to ask does it, and the others wait."""
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / f"shared-{name}"
    filled = folder.with_name(f"{folder.name}-filled")
    with FileLock(f"{folder}.lock"):
        if not filled.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that broke off
            folder.mkdir()
            fill(folder)
            filled.touch()
    return folder


@dataclass(frozen=True)
class SlideFile:
    """A painted slide in a file.

    Attributes:
        painted: What it shows.
        pixels: All of it, RGB.
        path: A generic pyramidal TIFF.
    """

    painted: PaintedSlide
    pixels: np.ndarray
    path: Path


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> SlideFile:
    """A slide of a millimetre, with twenty times the leucocytes of a healthy person."""
    painted = PaintedSlide(4096, 2560, seed=0, leucocytes=3, artefacts=1)

    def fill(folder: Path) -> None:
        pixels = paint(painted)
        np.save(folder / "pixels.npy", pixels)
        write_tiff(folder / "smear.tif", pixels)

    folder = shared_folder(tmp_path_factory, "slide", fill)
    return SlideFile(painted, np.load(folder / "pixels.npy"), folder / "smear.tif")


@dataclass(frozen=True)
class TinyRun:
    """A finished run.

    Attributes:
        command: The words it was started with.
        folder: What it wrote. Not to be changed: other tests read it.
        output: What it printed.
    """

    command: list[str]
    folder: Path
    output: str


@pytest.fixture(scope="session")
def folder_of_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty painted cells of 32 px in five class folders, of which 40 are to train on."""

    def fill(root: Path) -> None:
        labels = np.repeat(np.arange(len(CLASS_NAMES)), CELLS_PER_CLASS)
        for index, (label, cell) in enumerate(zip(labels, paint_cells(labels, size=32, seed=0), strict=True)):
            folder = root / CLASS_NAMES[label]
            folder.mkdir(exist_ok=True)
            Image.fromarray(cell).save(folder / f"{index:03d}.png")

    return shared_folder(tmp_path_factory, "cells", fill)


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A model to start from. It has one block a stage: of sixteen, a run converts and loads four times as long."""

    def fill(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            write_tiny_model(folder)

    return shared_folder(tmp_path_factory, "untrained", fill)


@pytest.fixture(scope="session")
def command(folder_of_cells: Path, untrained_folder: Path, seed: int) -> Command:
    """`command(output_dir, freeze="all")` → the words of a run of seconds: three epochs of five steps."""
    tiny = {
        "dataset": folder_of_cells,
        "model": untrained_folder,
        "image_size": 32,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "precision": "fp32",
        "seed": 42 + seed,
    }

    def words(output_dir: Path, **changes: object) -> list[str]:
        return [f"--{name}={value}" for name, value in (tiny | {"output_dir": output_dir} | changes).items()]

    return words


@pytest.fixture(scope="session")
def tiny_run(command: Command, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The tiny command, run once without interruption."""

    def fill(folder: Path) -> None:
        # `capsys` lives for one test only.
        with pytest.MonkeyPatch.context() as patch:
            printed: list[str] = []
            patch.setattr("builtins.print", lambda *values, **_: printed.append(" ".join(map(str, values))))
            patch.setattr("tqdm.auto.tqdm.write", lambda *values, **_: printed.append(" ".join(map(str, values[-1:]))))
            train.main(command(folder / "tiny"))
        (folder / "output.txt").write_text("\n".join(printed), encoding="utf-8")

    folder = shared_folder(tmp_path_factory, "run", fill)
    output = (folder / "output.txt").read_text(encoding="utf-8")
    return TinyRun(command(folder / "tiny"), folder / "tiny", output)
