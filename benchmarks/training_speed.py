"""Training images per second, against an ordinary Trainer on the same network, images and batches.

python benchmarks/training_speed.py                                 # full fine-tuning, ResNet-50 at 224 px
python benchmarks/training_speed.py --freeze stage3                 # stage 4 and head, with and without a cache
python benchmarks/training_speed.py --freeze all                    # the head alone
python benchmarks/training_speed.py --images ../shared/data/pbc --profile

The plain way is transformers' Trainer with its defaults: float32, images decoded and preprocessed in every epoch, the
same layers frozen by `requires_grad`. It does not augment; ours does, which counts against it. Each way runs in a
process of its own, in turn, `--repeats` times. A rate is that of the median step after the warm-up, reading and
decoding included; the one-off time of a cache is printed beside it. The network is untrained.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from ordinary_trainer import plain_trainer
from side_by_side import describe_machine, in_a_process, peak_mib
from transformers import Trainer, TrainerCallback

from wbc_hf.data import load_leucocytes
from wbc_hf.memory import keep_freed_memory
from wbc_hf.modeling import FREEZE_DEPTHS
from wbc_hf.training import build_caches, build_network, build_trainer, parse

WAYS = {"plain": "an ordinary Trainer", "ours": "ours", "cached": "ours, frozen layers cached"}
WARM_UP = 2  # steps


class Clock(TrainerCallback):
    """Seconds of each step, from the end of the one before: reading, decoding, computing and updating."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._last: float | None = None

    def on_step_end(self, *_: object, **__: object) -> None:
        moment = now()
        if self._last is not None:
            self.steps.append(moment - self._last)
        self._last = moment


class Shares:
    """Seconds spent in wrapped calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def of(self, name: str, call: Callable) -> Callable:
        def timed(*args: object, **kwargs: object) -> object:
            started = now()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += now() - started

        return timed

    def of_all(self, wall: float) -> dict[str, float]:
        """Each part's share of `wall` seconds, and the rest."""
        self.seconds["forward and backward"] -= self.seconds["augmentation"]  # which is done within
        self.seconds["Trainer itself"] = wall - sum(self.seconds.values())
        return {name: seconds / wall for name, seconds in self.seconds.items()}


def now() -> float:
    """Now, after the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run_one_way(arguments: argparse.Namespace) -> dict:
    """Train for some steps in this process.

    Returns:
        `images_per_second`, `peak_mib`, `cache_seconds`, and `shares` of the time with --profile.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--output_dir={folder}", f"--image_size={arguments.image_size}", f"--freeze={arguments.freeze}"]
        words += ["--from_scratch", f"--width={arguments.width}", f"--max_steps={arguments.steps + WARM_UP}"]
        words += [f"--per_device_train_batch_size={arguments.batch}", "--eval_strategy=no", "--save_strategy=no"]
        words += ["--no_load_best_model_at_end", "--report_to=none", "--disable_tqdm=true"]
        words += [f"--cached_views={int(arguments.way == 'cached')}"]
        data, model, training = parse(words)
        images = arguments.images or f"synthetic:{arguments.batch}"
        leucocytes = load_leucocytes(images, near_duplicates=False)
        for split in ("train", "validation"):
            leucocytes[split] = leucocytes[split].select(range(min(arguments.most, len(leucocytes[split]))))
        network, processor = build_network(model, training)
        cache_seconds, clock = 0.0, Clock()
        if arguments.way == "plain":
            steps = {"max_steps": training.max_steps, "per_device_train_batch_size": arguments.batch}
            trainer = plain_trainer(network, processor, leucocytes["train"], output_dir=folder, **steps)
        else:
            keep_freed_memory()
            started = now()
            caches = build_caches(leucocytes, network, processor, data, model, training)
            cache_seconds = now() - started
            trainer = build_trainer(leucocytes, network, processor, data, training, caches)
        trainer.add_callback(clock)
        shares = wrap(trainer) if arguments.profile else Shares()
        started = now()
        trainer.train()
        wall = now() - started
    return {
        "images_per_second": arguments.batch / statistics.median(clock.steps[WARM_UP - 1 :]),
        "peak_mib": peak_mib(),
        "cache_seconds": cache_seconds,
        "cached_images": len(leucocytes["train"]) + len(leucocytes["validation"]),
        "shares": shares.of_all(wall) if arguments.profile else {},
    }


def wrap(trainer: Trainer) -> Shares:
    """Time the parts of a step."""
    shares = Shares()
    trainer.get_batch_samples = shares.of("reading and decoding", trainer.get_batch_samples)
    if hasattr(trainer, "_network_input"):
        trainer._network_input = shares.of("augmentation", trainer._network_input)
    trainer.training_step = shares.of("forward and backward", trainer.training_step)
    trainer.create_optimizer()
    trainer.optimizer.step = shares.of("update", trainer.optimizer.step)
    return shares


def compare(arguments: argparse.Namespace, words: list[str]) -> None:
    """Run each way in turn and print the table."""
    ways = [way for way in WAYS if way != "cached" or arguments.freeze != "none"]
    found: dict[str, list[dict]] = defaultdict(list)
    for _ in range(arguments.repeats):
        for way in ways:
            found[way].append(in_a_process(__file__, [*words, "--way", way]))
    print(
        f"{describe_machine('torch', 'transformers')}\nfrozen: {arguments.freeze}, {arguments.image_size} px, ", end=""
    )
    print(
        f"width {arguments.width}, batch {arguments.batch}, {arguments.steps} steps, median of {arguments.repeats}\n"
    )
    print(f"{'':<28}{'images/s':>10}{'ratio':>8}{'peak MiB':>10}")
    rates = {way: statistics.median(each["images_per_second"] for each in found[way]) for way in ways}
    for way in ways:
        memory = max(each["peak_mib"] for each in found[way])
        print(f"{WAYS[way]:<28}{rates[way]:>10.1f}{rates[way] / rates['plain']:>7.1f}x{memory:>10.0f}")
    for way in ways[1:]:
        seconds = statistics.median(each["cache_seconds"] for each in found[way])
        count = found[way][0]["cached_images"]
        print(f"{WAYS[way]}: {seconds:.1f} s once for {count} images")
    for way in ways if arguments.profile else ():
        shares = "  ".join(f"{name} {share:.1%}" for name, share in found[way][-1]["shares"].items())
        print(f"{WAYS[way]}: {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freeze", choices=FREEZE_DEPTHS, default="none", help="frozen up to and including this one")
    parser.add_argument("--images", help="the --dataset of train.py; painted cells without it")
    parser.add_argument("--most", type=int, default=320, help="maximum of images of a split")
    parser.add_argument("--image_size", type=int, default=224, help="side of the images, in pixels")
    parser.add_argument("--width", type=float, default=1.0, help="1.0 is ResNet-50")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed, after two that are not")
    parser.add_argument("--repeats", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--profile", action="store_true", help="print the share of each part of a step")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(run_one_way(arguments)))
        return
    words = [
        f"--{name}={value}" for name, value in vars(arguments).items() if value and name not in ("way", "profile")
    ]
    compare(arguments, words + ["--profile"] * arguments.profile)


if __name__ == "__main__":
    main()
