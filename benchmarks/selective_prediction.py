"""Selective prediction and out-of-distribution detection of a model trained on PBC.

Prints the share of `confident` predictions, and how often those are right, on its own test split, on cells that are
not one of the five classes, on images that are no cells, and on cells of other laboratories.

    python benchmarks/selective_prediction.py runs/pbc --data ../shared/data
"""

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wbc_hf.data import paint_cells
from wbc_hf.data.reading import SUFFIXES
from wbc_hf.evaluation import exact_limits, format_estimate
from wbc_hf.inference import Predictor
from wbc_hf.labels import class_index

OTHERS = ("erythroblast", "immature_granulocyte", "platelet")
LABORATORIES = ("bccd/crops", "tecom")
COUNT, SIDE = 250, 256


def documents(generator: np.random.Generator) -> Iterable[Image.Image]:
    for _ in range(COUNT):
        page = Image.new("RGB", (SIDE, SIDE), tuple(generator.integers(225, 256, 3).tolist()))
        for line in range(10, SIDE - 10, int(generator.integers(11, 20))):
            text = "".join(chr(letter) for letter in generator.integers(97, 123, 38))
            ImageDraw.Draw(page).text((8, line), text, fill=tuple(generator.integers(0, 90, 3).tolist()))
        yield page


def noise(generator: np.random.Generator) -> Iterable[Image.Image]:
    for _ in range(COUNT):
        side = int(generator.choice([16, 64, SIDE]))
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        yield Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def plain_colours(generator: np.random.Generator) -> Iterable[Image.Image]:
    for _ in range(COUNT):
        yield Image.new("RGB", (SIDE, SIDE), tuple(generator.integers(0, 256, 3).tolist()))


def scenes(generator: np.random.Generator) -> Iterable[Image.Image]:
    """Draw soft light, gradients and overlapping shapes in any colour, like everyday photographs from afar."""
    for _ in range(COUNT):
        light = np.zeros((SIDE, SIDE, 3))
        for cells in (3, 6, 12, 48):
            coarse = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            light += np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=float) / cells**0.5
        scene = Image.fromarray((255 * (light - light.min()) / np.ptp(light)).astype(np.uint8))
        for _ in range(int(generator.integers(2, 9))):
            corners = np.sort(generator.integers(0, SIDE, (2, 2)), axis=0).reshape(-1).tolist()
            shape = generator.choice(["ellipse", "rectangle"])
            getattr(ImageDraw.Draw(scene), shape)(corners, fill=tuple(generator.integers(0, 256, 3).tolist()))
        yield scene.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 2))))


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def count_statuses(predictor: Predictor, name: str, sources: Iterable) -> None:
    statuses = [one.status for one in predictor.predict_each(sources)]
    counts = {status: statuses.count(status) / len(statuses) for status in sorted(set(statuses))}
    listed = ", ".join(f"{status} {share:.1%}" for status, share in counts.items())
    held_back = len(statuses) - statuses.count("confident")
    share = format_estimate(held_back / len(statuses), exact_limits(held_back, len(statuses)), ".1%")
    print(f"{name:<24}{len(statuses):>6}   not confident {share}   ({listed})")


def score(predictor: Predictor, name: str, files: Sequence[Path]) -> None:
    predictions = list(predictor.predict_each(files))
    right = np.array(
        [class_index(file.parent.name) == class_index(one.label) for file, one in zip(files, predictions, strict=True)]
    )
    confident = np.array([one.status == "confident" for one in predictions])
    parts = (("confident", confident), ("of those right", right[confident]), ("of all right", right))
    shares = (
        f"{what} {format_estimate(hits.mean(), exact_limits(hits.sum(), len(hits)), '.1%')}"
        for what, hits in parts
        if len(hits)
    )
    print(f"{name:<24}{len(files):>6}   {', '.join(shares)}")


def own_test_split(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    review, after = metrics["review"], metrics["calibration"]["after"]
    with (folder / "predictions.csv").open(newline="") as file:
        statuses = [row["status"] for row in csv.DictReader(file)]
    accepted, right = (
        format_estimate(review[name], review["intervals"][name], ".1%")
        for name in ("coverage", "accuracy_of_accepted")
    )
    print(
        f"{'own test split':<24}{len(statuses):>6}   confident {accepted}, {right} of those right; "
        f"ECE {format_estimate(after['ece'], after['intervals']['ece'])}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Folder of a run on PBC.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="Folder of the data sets.")
    arguments = parser.parse_args(argv)
    predictor = Predictor.from_pretrained(arguments.model)
    own_test_split(arguments.model)
    for name in OTHERS:
        count_statuses(predictor, name, images_in(arguments.data / "pbc_other" / name))
    count_statuses(predictor, "all three", images_in(arguments.data / "pbc_other"))
    generator = np.random.default_rng(0)
    for kind in (noise, documents, plain_colours, scenes):
        count_statuses(predictor, kind.__name__.replace("_", " "), kind(generator))
    count_statuses(predictor, "painted cells", iter(paint_cells(np.tile(np.arange(5), COUNT // 5), size=SIDE // 2)))
    for name in LABORATORIES:
        score(predictor, name, images_in(arguments.data / name))


if __name__ == "__main__":
    main()
