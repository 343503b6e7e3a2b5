"""Whether a model reads the type off the background: its accuracy where the cell is painted over.

    python benchmarks/background.py models/starter ../shared/data/raabin ../shared/data/chula_fields

In sets whose slides were chosen by type a model can be right for the wrong reason. Each cell of the test split is
painted over with what surrounds it. A model that looks at cells then answers by chance: a balanced accuracy of 0.2.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.data import cell_mask, load_leucocytes, read_image, remove_cell
from wbc_hf.evaluation import evaluate, format_estimate
from wbc_hf.inference import Predictor

SHOWN = 14  # pictures of each set in the contact sheet
SIDE = 256  # pixels of the longer side: cells are painted over pixel by pixel


def paint_over(image: Image.Image) -> Image.Image:
    """The picture with its cell painted over; where none is found, the middle two thirds."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    mask = cell_mask(image)
    if not mask.any():
        height, width = mask.shape
        mask[height // 6 : -(height // 6), width // 6 : -(width // 6)] = 255
    return Image.fromarray(remove_cell(np.asarray(image), mask))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("sets", nargs="+", type=Path, help="As for train.py --dataset.")
    parser.add_argument("--output", type=Path, help="PNG file with some of the pictures.")
    arguments = parser.parse_args()
    predictor = Predictor.from_pretrained(arguments.model)
    sheet = []
    print("| | cells | balanced accuracy | cell painted over |\n|---|---:|---:|---:|")
    for folder in arguments.sets:
        rows = load_leucocytes(folder)["test"]
        images = [read_image(image) for image in rows["image"]]
        covered = [paint_over(image) for image in images]
        estimates = []
        for pictures in (images, covered):
            metrics = evaluate(rows["label"], predictor.classify(pictures)[0], groups=rows["group"]).metrics
            estimates.append(format_estimate(metrics["balanced_accuracy"], metrics["intervals"]["balanced_accuracy"]))
        print(f"| {folder.name} | {len(rows)} | {' | '.join(estimates)} |", flush=True)
        sheet.append(np.concatenate([np.asarray(image.resize((96, 96))) for image in covered[:SHOWN]], axis=1))
    if arguments.output is not None:
        Image.fromarray(np.concatenate(sheet)).save(arguments.output)


if __name__ == "__main__":
    main()
