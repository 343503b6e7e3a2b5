"""Milliseconds of one picture of a cell from its bytes to the prediction, taken apart.

    python benchmarks/one_cell.py --model models/starter
    python benchmarks/one_cell.py --model runs/cells --image cell.jpg --repeats 500

Prints the median and the 95th percentile of each part, run alone on the same picture, then of the whole, through
`Predictor.predict`. What the whole takes beyond the sum of its parts is Python around them.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import describe_machine

from wbc_hf.data import may_be_stained_cell, paint_cells, read_image
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.inference import Predictor
from wbc_hf.modeling import Preprocessing, softmax

SIDE = 360
WARM_UP = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEFAULT_MODEL_FOLDER), help="Model folder or Hub id.")
    parser.add_argument("--image", type=Path, help=f"Picture of a cell; by default a painted JPEG of {SIDE} px.")
    parser.add_argument("--repeats", type=int, default=300, help="Measurements of each part.")
    arguments = parser.parse_args()
    content = painted() if arguments.image is None else arguments.image.read_bytes()
    predictor = Predictor.from_pretrained(arguments.model)
    print(f"{describe_machine('torch', 'openvino', 'pillow')}\n{predictor.name}, {predictor.backend.name}\n")
    print(f"{'part':<28}{'median ms':>12}{'95 % below':>12}")
    medians = [report(name, part, arguments.repeats) for name, part in parts(predictor, content).items()]
    print(f"{'sum of the parts':<28}{sum(medians):>12.3f}")
    report("Predictor.predict", lambda: predictor.predict([content]), arguments.repeats)


def painted() -> bytes:
    """A painted cell as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(paint_cells([4], size=SIDE, seed=0)[0]).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def parts(predictor: Predictor, content: bytes) -> dict[str, Callable[[], object]]:
    """The steps of a prediction by name, each on the result of the one before."""
    preprocessing = Preprocessing(predictor.processor)
    image = read_image(content)
    crop = preprocessing.crop(image)
    batch = np.stack([crop])
    logits, features = predictor.backend.run(batch)
    steps: dict[str, Callable[[], object]] = {
        "open": lambda: Image.open(io.BytesIO(content)),
        "read (open, decode, checks)": lambda: read_image(content),
        "a nucleus?": lambda: may_be_stained_cell(image),
        "crop": lambda: preprocessing.crop(image),
        "copy": lambda: np.stack([crop]),
        "model": lambda: predictor.backend.run(batch),
        "softmax": lambda: softmax(logits),
    }
    calibration = predictor.calibration
    if calibration is not None and features is not None:
        steps["familiarity, laboratory"] = lambda: calibration.measure(features)
    return steps


def report(name: str, work: Callable[[], object], repeats: int) -> float:
    """Print the median and the 95th percentile of a step in ms. Returns the median; 0 for what another one holds."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(repeats):
        since = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - since))
    median = float(np.median(times))
    print(f"{name:<28}{median:>12.3f}{np.percentile(times, 95):>12.3f}", flush=True)
    return 0.0 if name == "open" else median


if __name__ == "__main__":
    main()
