"""Images per second from JPEG files to probabilities, against transformers' own pipeline.

python benchmarks/serving_speed.py                                   # an untrained ResNet-50 at 224 px, painted cells
python benchmarks/serving_speed.py --model runs/cells --images cells/
python benchmarks/serving_speed.py --profile
python benchmarks/serving_speed.py --model runs/student --images cells/ --pipeline untrained      # a student of it

The plain way is `pipeline("image-classification")` with its defaults over the same files. Ours also searches for a
stained nucleus and computes an out-of-distribution score. Each way runs in a process of its own, in turn, `--repeats`
times, and the medians are printed: images/s, milliseconds of one image from file to prediction, and the peak memory of
the process, loading included. For bf16 a model is converted at its first start and cached, for fp32 it is converted
each time. On a GPU ours is torch. int8 is made here without the check that `wbc-hf export` does, calibrated on the
images themselves: for speed alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from side_by_side import describe_machine, in_a_process, peak_mib

from wbc_hf.cli import find_files

if TYPE_CHECKING:
    from wbc_hf.inference import Predictor

GRAPH = "int8.xml"
PAINTED = 100
SIDE = 256
ALONE = 40  # images that are classified one by one
WARM_UP = 64  # images
ON_PROCESSOR = {
    "plain": "pipeline, defaults",
    "fp32": "OpenVINO fp32",
    "bf16": "OpenVINO bf16",
    "int8": "OpenVINO int8",
}
ON_GPU = {"plain": "pipeline, defaults", "torch": "torch on the GPU"}


def main() -> None:
    """Compare all ways, or measure one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="Model folder; without it an untrained ResNet-50 at 224 px.")
    parser.add_argument(
        "--pipeline",
        type=Path,
        metavar="MODEL",
        help="What the pipeline runs, a model folder or `untrained`: that ResNet-50; by default the same model.",
    )
    parser.add_argument("--images", type=Path, help=f"Folder of images; painted cells of {SIDE} px without it.")
    parser.add_argument("--count", type=int, default=256, help="Images per measurement; repeated where fewer.")
    parser.add_argument("--repeats", type=int, default=3, help="Measurements of each way.")
    parser.add_argument("--profile", action="store_true", help="Print the time of each step, too.")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way is not None:
        files = list(islice(cycle(find_files([arguments.images])), arguments.count))
        work = {"prepare": prepare, "profile": profile}.get(arguments.way, measure)
        print(json.dumps(work(arguments.way, arguments.model, files, arguments.work)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, work: Path) -> None:
    """Print the table."""
    images = arguments.images or paint(work / "images")
    untrained = work / "untrained"
    model = arguments.model or untrained
    theirs = untrained if arguments.pipeline == Path("untrained") else arguments.pipeline or model
    for each in dict.fromkeys((theirs, model)):  # the graph that is measured is the last
        in_a_process(__file__, _words(arguments, images, each, work, "prepare"))
    ways = ON_GPU if torch.cuda.is_available() else ON_PROCESSOR
    found = {way: [] for way in ways}
    for _ in range(arguments.repeats):
        for way in ways:
            words = _words(arguments, images, theirs if way == "plain" else model, work, way)
            found[way].append(in_a_process(__file__, words))
    print(describe_machine("torch", "transformers", "openvino"))
    print(f"{arguments.count} images of {images}, model {model}, medians of {arguments.repeats}")
    if theirs != model:
        print(f"the pipeline runs {theirs}")
    head = ("images/s", "ratio", "one, ms", "95 %, ms", "peak, MiB", "loading, s")
    print(f"{'':<22}" + "".join(f"{title:>12}" for title in head))
    plain = None
    for way, title in ways.items():
        one = {key: statistics.median(run[key] for run in found[way]) for key in found[way][0]}
        plain = plain or one["rate"]
        cells = (one["rate"], one["rate"] / plain, one["median"], one["last"], one["peak"], one["loading"])
        print(f"{title:<22}" + "".join(f"{cell:>12.1f}" for cell in cells))
    if arguments.profile:
        print("\nmilliseconds per image on one core, the model on all")
        for name, milliseconds in in_a_process(__file__, _words(arguments, images, model, work, "profile")).items():
            print(f"{name:<34}{milliseconds:>10.2f}")


def _words(arguments: argparse.Namespace, images: Path, model: Path, work: Path, way: str) -> list:
    return ["--images", images, "--count", arguments.count, "--model", model, "--work", work, "--way", way]


def paint(folder: Path) -> Path:
    """Painted cells as JPEG files."""
    from wbc_hf.data import paint_cells

    folder.mkdir()
    for index, cell in enumerate(paint_cells(np.arange(PAINTED) % 5, size=SIDE, seed=0)):
        Image.fromarray(cell).save(folder / f"{index:03d}.jpg", quality=92)
    return folder


def prepare(_: str, model: Path, files: Sequence[Path], work: Path) -> dict:
    """Write what is missing: an untrained model with a calibration, and the int8 graph."""
    from wbc_hf.data import read_image
    from wbc_hf.inference import Predictor
    from wbc_hf.inference.exporting import write_graph
    from wbc_hf.modeling import (
        Calibration,
        InferenceGraph,
        Preprocessing,
        build_from_scratch,
        load_classifier,
        load_processor,
    )

    images = [read_image(file) for file in files[:64]]
    if not model.exists():
        torch.manual_seed(0)
        network, processor = build_from_scratch(1.0, image_size=224)
        logits, features = Predictor(network, processor, "untrained").logits_and_features(images)
        probabilities, labels = np.exp(logits) / np.exp(logits).sum(1, keepdims=True), np.arange(len(images)) % 5
        # Its values mean nothing; computing the score costs time.
        Calibration.fit(
            temperature=1.0,
            probabilities=probabilities,
            labels=labels,
            features=features,
            training_features=features,
            trained_on="nothing",
        ).save(_made(model))
        network.save_pretrained(model)
        processor.save_pretrained(model)
    if not torch.cuda.is_available():
        preparation = Preprocessing(load_processor(model))
        crops = np.stack([preparation.crop(image) for image in images])
        write_graph(InferenceGraph(load_classifier(model), preparation), preparation, work / GRAPH, "int8", crops)
    return {}


def measure(way: str, model: Path, files: Sequence[Path], work: Path) -> dict:
    """Load a model, classify in one way, and return the figures of this process."""
    started = time.perf_counter()
    classify_all, classify_one = plain(model) if way == "plain" else ours(way, model, work)
    classify_one(files[0])
    loading = time.perf_counter() - started
    classify_all(files[:WARM_UP])
    started = time.perf_counter()
    classify_all(files)
    rate = len(files) / (time.perf_counter() - started)
    for file in files[:3]:
        classify_one(file)
    seconds = [timed(lambda file=file: classify_one(file)) for file in islice(cycle(files), ALONE)]
    return {
        "rate": rate,
        "median": 1000 * statistics.median(seconds),
        "last": 1000 * float(np.percentile(seconds, 95)),
        "peak": peak_mib(),
        "loading": loading,
    }


def plain(model: Path) -> tuple[Callable[[Iterable[Path]], object], Callable[[Path], object]]:
    """The pipeline as in transformers' documentation."""
    from transformers import pipeline

    classify = pipeline("image-classification", model=str(model))
    return lambda files: classify([str(file) for file in files]), lambda file: classify(str(file))


def ours(way: str, model: Path, work: Path) -> tuple[Callable[[Iterable[Path]], object], Callable[[Path], object]]:
    """The predictor of `wbc-hf predict` and the page."""
    predictor = build(way, model, work)
    return lambda files: list(predictor.predict_each(files)), lambda file: predictor.predict([file])


def build(way: str, model: Path, work: Path) -> "Predictor":
    """A predictor on the graph of this precision, or on torch."""
    from wbc_hf.inference import Predictor
    from wbc_hf.inference.backends import OpenVinoBackend
    from wbc_hf.modeling import (
        Calibration,
        InferenceGraph,
        Preprocessing,
        load_classifier,
        load_processor,
        to_openvino,
    )

    if way in ("torch", "bf16"):
        return Predictor.from_pretrained(model, backend="torch" if way == "torch" else "openvino")
    preparation = Preprocessing(load_processor(model))
    if way == "int8":
        backend = OpenVinoBackend(work / GRAPH)
    else:
        graph = InferenceGraph(load_classifier(model), preparation)
        backend = OpenVinoBackend(to_openvino(graph, preparation.shape), exact=True)
    return Predictor(None, preparation.processor, str(model), Calibration.load(model), folder=model, backend=backend)


def profile(_: str, model: Path, files: Sequence[Path], work: Path) -> dict:
    """Milliseconds per image of each step."""
    from wbc_hf.data import may_be_stained_cell, read_image
    from wbc_hf.modeling import Preprocessing, load_processor

    preparation = Preprocessing(load_processor(model))
    files = files[:64]
    images = [read_image(file) for file in files]
    crops = np.stack([preparation.crop(image) for image in images])
    parts = {
        "reading": each(lambda file: file.read_bytes(), files),
        "reading and decoding": each(read_image, files),
        "preparing": each(preparation.crop, images),
        "searching for a stained cell": each(may_be_stained_cell, images),
    }
    for way in ("torch",) if torch.cuda.is_available() else ("fp32", "bf16", "int8"):
        backend = build(way, model, work).backend
        backend.run(crops)
        seconds = [timed(lambda backend=backend: backend.run(crops)) for _ in range(5)]
        parts[f"model, {way}"] = 1000 * statistics.median(seconds) / len(crops)
    return parts


def each(work: Callable, values: Sequence) -> float:
    """Median milliseconds per value."""
    for value in values[:5]:
        work(value)
    return 1000 * statistics.median(timed(lambda value=value: work(value)) for value in values)


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
