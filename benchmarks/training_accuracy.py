"""Test accuracy of fast training against plain training, on the same cells.

python benchmarks/training_accuracy.py ../shared/data/pbc

First all layers are trained from scratch on one half of the training cells; then, from what that gave, stage 4 and
head alone on the other half. An ordinary Trainer does both in float32, ours with all that makes it fast: bf16
where the machine has it, decoded images or the frozen layers' output from a cache, freed memory kept. Both get the
same cells, weights, batches, schedule and loss, and neither augments, so that only the arithmetic differs. All are
evaluated in float32 by the ordinary Trainer, each in a process of its own; accuracy has its 95 % confidence interval
over distinct cells.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from ordinary_trainer import plain_trainer, processed
from scipy.special import softmax
from side_by_side import describe_machine, in_a_process
from transformers import ResNetForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.evaluation import evaluate, format_estimate
from wbc_hf.modeling import build_from_pretrained, build_from_scratch, freeze
from wbc_hf.training import build_caches, build_trainer, parse

LEARNING_RATE = 1e-3
BATCH = 32
WAYS = {"plain": "an ordinary Trainer", "ours": "ours", "cached": "ours, frozen layers cached"}
STAGES = {"none": "all layers", "stage3": "stage 4 and head"}


def train_fast(
    network: ResNetForImageClassification,
    processor: BaseImageProcessor,
    leucocytes: Leucocytes,
    arguments: argparse.Namespace,
) -> None:
    """Train like `train.py`, with the ordinary Trainer's settings."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--output_dir={folder}", f"--num_train_epochs={arguments.epochs}", f"--freeze={arguments.depth}"]
        words += [f"--learning_rate={LEARNING_RATE}", f"--per_device_train_batch_size={BATCH}", "--augmentation=0"]
        words += ["--label_smoothing_factor=0", "--weight_decay=0", "--lr_scheduler_type=linear", "--warmup_steps=0"]
        words += [f"--cached_views={int(arguments.way == 'cached')}", "--eval_strategy=no", "--save_strategy=no"]
        words += ["--no_load_best_model_at_end", "--report_to=none", "--disable_tqdm=true"]
        data, model, training = parse(words)
        caches = build_caches(leucocytes, network, processor, data, model, training)
        build_trainer(leucocytes, network, processor, data, training, caches).train()


def run_one_way(arguments: argparse.Namespace) -> dict:
    """Train and save in this process; return the seconds."""
    network, processor = build_from_pretrained(arguments.start)
    leucocytes = half(load_leucocytes(arguments.images, near_duplicates=False), arguments.depth, arguments.most)
    freeze(network, arguments.depth)
    started = time.perf_counter()
    if arguments.way == "plain":
        schedule = {"num_train_epochs": arguments.epochs, "learning_rate": LEARNING_RATE}
        plain_trainer(network, processor, leucocytes["train"], per_device_train_batch_size=BATCH, **schedule).train()
    else:
        train_fast(network, processor, leucocytes, arguments)
    seconds = time.perf_counter() - started
    network.save_pretrained(arguments.end)
    processor.save_pretrained(arguments.end)
    return {"seconds": seconds}


def test_accuracy(folder: Path, leucocytes: Leucocytes) -> str:
    """Accuracy on the test split with its 95 % confidence interval."""
    network, processor = build_from_pretrained(folder)
    test = leucocytes["test"].with_transform(processed(processor))
    output = plain_trainer(network, processor, leucocytes["train"]).predict(test)
    probabilities = softmax(output.predictions, axis=1)
    metrics = evaluate(output.label_ids, probabilities, groups=leucocytes["test"]["group"]).metrics
    return format_estimate(metrics["accuracy"], metrics["intervals"]["accuracy"])


def half(leucocytes: Leucocytes, depth: str, most: int) -> Leucocytes:
    """Keep every second training image, other ones for each depth. The test split stays."""
    part = Leucocytes(leucocytes)
    part.provenance = leucocytes.provenance
    chosen = np.random.default_rng(0).permutation(len(leucocytes["train"]))[list(STAGES).index(depth) :: 2][:most]
    part["train"] = leucocytes["train"].select(np.sort(chosen))
    return part


def compare(arguments: argparse.Namespace, words: list[str], folder: Path) -> None:
    """Run each way in turn and print the table."""
    leucocytes = load_leucocytes(arguments.images, near_duplicates=False)
    network, processor = build_from_scratch(arguments.width, image_size=arguments.image_size)
    start = folder / "untrained"
    network.save_pretrained(start)
    processor.save_pretrained(start)
    print(f"{describe_machine('torch', 'transformers')}\n{'':<48}{'test accuracy':<26}{'seconds':>8}", flush=True)
    for depth, what in STAGES.items():
        for way in WAYS:
            if way == "cached" and depth == "none":
                continue
            end = folder / f"{depth}-{way}"
            task = [f"--way={way}", f"--depth={depth}", f"--start={start}", f"--end={end}"]
            seconds = in_a_process(__file__, [arguments.images, *words, *task])["seconds"]
            print(f"{f'{what}, {WAYS[way]}':<48}{test_accuracy(end, leucocytes):<26}{seconds:>8.0f}", flush=True)
        start = folder / f"{depth}-ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="the --dataset of train.py")
    parser.add_argument("--most", type=int, default=1500, help="maximum of training images in each half")
    parser.add_argument("--image_size", type=int, default=112, help="side of the images, in pixels")
    parser.add_argument("--width", type=float, default=0.25, help="1.0 is ResNet-50")
    parser.add_argument("--epochs", type=float, default=10, help="of each training")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--depth", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--end", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(run_one_way(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, [f"--most={arguments.most}", f"--epochs={arguments.epochs}"], Path(folder))


if __name__ == "__main__":
    main()
