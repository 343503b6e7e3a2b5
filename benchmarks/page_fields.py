"""Time of the page in a browser: from dropped fields to the first one on the screen, and to the last one counted.

python benchmarks/page_fields.py --model models/starter --fields ../shared/data/bccd/fields/images --count 100
python benchmarks/page_fields.py --count 1000 --repeats 1 --every 100 --fields ../shared/data/bccd/fields/images \
    ../shared/data/chula_fields/images ../shared/data/raabin_fields/images

Fields of several folders are mixed, so that each hundred of them is like the next one. With `--every` it also prints
the seconds of each so many fields, and the memory of the page then; that needs Linux.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from page_load import resident_mib
from playwright.sync_api import Error, Page, ViewportSize, sync_playwright

from wbc_hf.cli import find_files

VIEWPORT = {"width": 1280, "height": 1280}
MILLISECONDS = 1000


def start_page(model: str, port: int) -> subprocess.Popen:
    """Start the page in a process of its own, as people do."""
    command = [sys.executable, "app.py", "--model", model, "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def page_in_browser(model: str, port: int, viewport: ViewportSize) -> Iterator[tuple[Page, subprocess.Popen]]:
    """A page of a browser that has opened ours, and the process that serves it; both end with the block."""
    server = start_page(model, port)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=viewport)
            open_page(page, f"http://127.0.0.1:{port}")
            yield page, server
            browser.close()
    finally:
        server.terminate()
        server.wait()


def open_page(page: Page, url: str) -> None:
    """Open the page as soon as it answers."""
    deadline = time.monotonic() + 120
    while True:
        try:
            page.goto(url)
            break
        except Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    page.locator(".wbc-upload input[type=file]").first.wait_for(state="attached")


def time_fields(page: Page, files: list[Path], every: int = 0, process: int = 0) -> tuple[float, float, str]:
    """Seconds until the first field is shown with its boxes and until all are read; and what the pager says."""
    start = time.perf_counter()
    page.locator(".wbc-upload input[type=file]").first.set_input_files(files)
    page.locator(".wbc-field .wbc-box").first.wait_for(timeout=600 * MILLISECONDS)
    first = time.perf_counter() - start
    if every:
        print_stretches(page, every, process)
    page.locator(".wbc-pager", has_text=f"of {len(files)}").wait_for(timeout=3600 * MILLISECONDS)
    page.locator(".wbc-progress").wait_for(state="detached", timeout=600 * MILLISECONDS)
    return first, time.perf_counter() - start, page.locator(".wbc-pager").inner_text().replace("\n", " ")


def print_stretches(page: Page, every: int, process: int) -> None:
    """Print seconds and memory of each so many fields, until all are read."""
    print(f"{'field':>7}{'seconds':>9}{'server, MiB':>13}{'browser tab, MiB':>18}")
    before, goal, text = time.perf_counter(), every, "..."
    while text:
        text = page.evaluate("document.querySelector('.wbc-progress')?.innerText ?? ''")
        current = re.match(r"Picture (\d+) of \d+", text)
        if not text or (current and int(current[1]) > goal):
            now, heap = time.perf_counter(), page.evaluate("performance.memory.usedJSHeapSize") / 2**20
            print(f"{goal:>7}{now - before:>9.1f}{resident_mib(process):>13.0f}{heap:>18.0f}", flush=True)
            before, goal = now, goal + every
        page.wait_for_timeout(200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Model folder or Hub id.")
    parser.add_argument("--fields", type=Path, nargs="+", required=True, help="Folders of photographs.")
    parser.add_argument("--count", type=int, default=100, help="Number of photographs.")
    parser.add_argument("--repeats", type=int, default=2, help="Specimens, one after the other.")
    parser.add_argument("--every", type=int, default=0, help="Print time and memory of each so many photographs.")
    parser.add_argument("--port", type=int, default=7869)
    arguments = parser.parse_args()
    files = list(find_files(arguments.fields))
    if len(arguments.fields) > 1:
        random.Random(0).shuffle(files)
    files = files[: arguments.count]
    with page_in_browser(arguments.model, arguments.port, VIEWPORT) as (page, server):
        for number in range(arguments.repeats):
            if number:
                open_page(page, page.url)
            page.wait_for_timeout(2 * MILLISECONDS)
            first, last, pager = time_fields(page, files, arguments.every, server.pid)
            print(
                f"{len(files)} fields: first after {first:.2f} s, all after {last:.2f} s ({pager}); "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
