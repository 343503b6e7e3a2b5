"""Seconds and memory of a cold start: `import wbc_hf`, `wbc-hf predict`, `wbc-hf count`, and the page's first answer.

    python benchmarks/startup.py
    python benchmarks/startup.py --model runs/cells --image cell.jpg --imports

Each is a process of its own, `--repeats` times, and the medians are printed: seconds until it is done (for the page,
until it has answered), seconds of processor time, and peak memory. The first start of a model converts it for OpenVINO
and is left out. `--imports` lists the libraries that take the longest to import, by `-X importtime`.
Needs Linux.
"""

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from side_by_side import ROOT, describe_machine

EXAMPLES = ROOT / "wbc_hf" / "web" / "example_pictures"
EXAMPLE, FIELD = EXAMPLES / "cell-basophil.jpg", EXAMPLES / "field-1.jpg"
SHOWN = 12
PATIENCE = 300  # seconds that the page may take


class Start(NamedTuple):
    """Seconds, seconds of processor time, and MiB at the peak."""

    seconds: float
    processor: float
    memory: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Model folder or Hub id; by default the one that ships.")
    parser.add_argument("--image", type=Path, default=EXAMPLE, help="Picture of a cell.")
    parser.add_argument("--repeats", type=int, default=5, help="Starts of each kind.")
    parser.add_argument("--imports", action="store_true", help="List what takes the longest to import.")
    arguments = parser.parse_args()
    model = [] if arguments.model is None else ["--model", arguments.model]
    predict = ["-m", "wbc_hf.cli", "predict", str(arguments.image), *model]
    print(f"{'cold start':<28}{'seconds':>10}{'processor':>12}{'MiB':>8}")
    show("import wbc_hf", [start(["-c", "import wbc_hf"]) for _ in range(arguments.repeats)])
    start(predict)
    show("wbc-hf predict one.jpg", [start(predict) for _ in range(arguments.repeats)])
    count = ["-m", "wbc_hf.cli", "count", str(FIELD), *model]
    start(count)
    show("wbc-hf count field.jpg", [start(count) for _ in range(arguments.repeats)])
    show("app.py, to an answered page", [start_page(model) for _ in range(arguments.repeats)])
    if arguments.imports:
        list_imports(predict)
    # At the end: it imports PyTorch, and a process begins with the peak memory of the one that started it.
    print(f"\n{describe_machine('torch', 'transformers', 'openvino', 'gradio')}")


def show(name: str, starts: list[Start]) -> None:
    """Print the medians."""
    seconds, processor, memory = (statistics.median(values) for values in zip(*starts, strict=True))
    print(f"{name:<28}{seconds:>10.2f}{processor:>12.2f}{memory:>8.0f}", flush=True)


def start(words: list[str]) -> Start:
    """Run Python with these words to its end.

    Raises:
        CalledProcessError: It failed.
    """
    since = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Start(time.perf_counter() - since, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def start_page(model: list[str]) -> Start:
    """Start the page, wait until it answers, and end it.

    Raises:
        TimeoutError: It does not answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    since = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), *model], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        while not answers(f"http://127.0.0.1:{port}/"):
            if process.poll() is not None or time.perf_counter() - since > PATIENCE:
                raise TimeoutError(f"app.py did not answer on port {port}")
            time.sleep(0.02)
        seconds = time.perf_counter() - since
        memory = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)  # a shell gives what it starts behind its back no SIGINT
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Start(seconds, usage.ru_utime + usage.ru_stime, int(memory) / 1024)


def answers(url: str) -> bool:
    """Whether the page is there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def list_imports(words: list[str]) -> None:
    """Print the libraries whose modules take the longest to import, without what they import in turn."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True)
    own: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for microseconds, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)", done.stderr, re.MULTILINE):
        own[name] += int(microseconds)
        modules[name] += 1
    print(f"\n{'library':<28}{'seconds':>10}{'modules':>12}")
    for name, microseconds in own.most_common(SHOWN):
        print(f"{name:<28}{microseconds / 1e6:>10.2f}{modules[name]:>12}")


if __name__ == "__main__":
    main()
