"""Time of twenty search trials on cached layers, against one plain full fine-tuning of as many epochs.

python benchmarks/search_speed.py --images ../shared/data/pbc           # the plain way timed over some steps
python benchmarks/search_speed.py --images ../shared/data/pbc --full    # over all of them: a quarter of an hour
python benchmarks/search_speed.py                                       # painted cells

Ours is the real command, `train.py --search 20 --freeze stage3 --cached_views 1`, from the moment when its images are
read and split until the best trial is known: computing the cache, all trials with their evaluations, pruning. It is
stopped there, before its run. The plain way is transformers' Trainer with its defaults on the same training images,
the whole network in float32, without any evaluation; its first steps are not timed. Each has a process of its own. The
network is an untrained ResNet-50, so the trials' scores mean nothing.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ordinary_trainer import plain_trainer
from side_by_side import ROOT, describe_machine, in_a_process
from training_speed import WARM_UP, Clock

from wbc_hf.cli import find_files
from wbc_hf.data import load_leucocytes
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.training import build_network, parse


def choose_images(source: Path, folder: Path, count: int) -> Path:
    """Make a folder of links to `count` images, equally many of each class."""
    for name in CLASS_NAMES:
        (folder / name).mkdir(parents=True)
        for file in list(find_files([source / name]))[: count // len(CLASS_NAMES)]:
            (folder / name / file.name).symlink_to(file.resolve())
    return folder


def time_search(dataset: str, folder: str, arguments: argparse.Namespace) -> float:
    """Seconds from the announcement of the search to its best trial; its output is passed on."""
    words = [f"--dataset={dataset}", f"--output_dir={folder}/run", "--from_scratch", f"--width={arguments.width}"]
    words += [f"--image_size={arguments.image_size}", f"--per_device_train_batch_size={arguments.batch}"]
    words += ["--freeze=stage3", "--cached_views=1", f"--search={arguments.trials}"]
    words += [f"--search_epochs={arguments.epochs}"]
    command = [sys.executable, "train.py", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        started = math.nan
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("Searching:"):
                started = time.perf_counter()
            elif line.startswith("The best of"):
                seconds = time.perf_counter() - started
                process.kill()
                return seconds
    raise SystemExit("The search did not finish; its output is above.")


def time_plain(arguments: argparse.Namespace) -> dict:
    """Train the plain way in this process.

    Returns:
        `images`, `steps` of the whole training, how many were `timed`, and the mean `seconds` of one.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--output_dir={folder}", "--from_scratch", f"--width={arguments.width}"]
        _, model, training = parse([*words, f"--image_size={arguments.image_size}"])
        leucocytes = load_leucocytes(arguments.dataset)
        images = len(leucocytes["train"])
        steps = arguments.epochs * math.ceil(images / arguments.batch)
        if arguments.full or arguments.steps > steps - WARM_UP:
            arguments.steps = steps - WARM_UP
        settings = {"max_steps": arguments.steps + WARM_UP, "per_device_train_batch_size": arguments.batch}
        trainer = plain_trainer(*build_network(model, training), leucocytes["train"], output_dir=folder, **settings)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    timed = clock.steps[WARM_UP - 1 :]
    return {"images": images, "steps": steps, "timed": len(timed), "seconds": sum(timed) / len(timed)}


def compare(arguments: argparse.Namespace, words: list[str]) -> None:
    """Print the time of both ways, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images:
            dataset = str(choose_images(arguments.images, Path(folder) / "cells", arguments.count))
        else:
            dataset = f"synthetic:{arguments.count // len(CLASS_NAMES)}"
        searched = time_search(dataset, folder, arguments)
        plain = in_a_process(__file__, [*words, "--dataset", dataset])
    trained = plain["steps"] * plain["seconds"]
    how = "" if plain["timed"] + WARM_UP >= plain["steps"] else f", scaled from {plain['timed']} steps"
    print(
        f"\n{describe_machine('torch', 'transformers', 'optuna')}\n"
        f"{plain['images']} training images of {arguments.count}, {arguments.image_size} px, width {arguments.width}, "
        f"batch {arguments.batch}, {arguments.epochs} epochs\n\n"
        f"{arguments.trials} trials on cached layers        {searched:8.0f} s\n"
        f"one plain full fine-tuning     {trained:8.0f} s   ({plain['steps']} steps{how})\n"
        f"all trials in {searched / trained:.2f} of its time"
    )


def main() -> None:
    """Run both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder with one of each class; painted cells without it")
    parser.add_argument("--count", type=int, default=1500, help="images, over all splits")
    parser.add_argument("--image_size", type=int, default=224, help="side of the images, in pixels")
    parser.add_argument("--width", type=float, default=1.0, help="1.0 is ResNet-50")
    parser.add_argument("--batch", type=int, default=32, help="images per step; trials try smaller ones too")
    parser.add_argument("--trials", type=int, default=20, help="of the search")
    parser.add_argument("--epochs", type=int, default=3, help="of each trial, and of the plain way")
    parser.add_argument("--steps", type=int, default=8, help="of the plain way that are timed, after two that are not")
    parser.add_argument("--full", action="store_true", help="time the plain way over all its steps")
    parser.add_argument("--dataset", help=argparse.SUPPRESS)  # the plain way alone, in this process
    arguments = parser.parse_args()
    if arguments.dataset:
        print(json.dumps(time_plain(arguments)))
        return
    names = ("image_size", "width", "batch", "epochs", "steps")
    compare(arguments, [f"--{name}={getattr(arguments, name)}" for name in names] + ["--full"] * arguments.full)


if __name__ == "__main__":
    main()
