"""Time of the page's gallery in a browser: frames while it is scrolled, and until a relabelled cell is seen.

python benchmarks/page_gallery.py --model models/starter --cells 1000

Gives painted fields to the page until the gallery has so many cells. Then it scrolls the fullest column, and the page,
by so many pixels a frame, and prints the time from frame to frame by `requestAnimationFrame`. At last it presses a key
over one cell after another, and prints the time from the press to the frame that shows the cell in its new column, and
to the differential in which the server has counted it. Each way starts in the view that a person would see.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from page_fields import MILLISECONDS, page_in_browser
from PIL import Image
from playwright.sync_api import Page

from wbc_hf.data import paint_field
from wbc_hf.labels import CLASS_NAMES

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CELLS_PER_FIELD = 12
AT_ONCE = 25  # fields that are dropped together
STEP = 25  # pixels a frame: 1,500 a second at 60 frames, a fast wheel
TARGET_KEY, TARGET = "1", CLASS_NAMES[0].capitalize()

# Milliseconds between frames while an element, or the page, is scrolled to its end and back.
SCROLL_JS = """([selector, sideways, step]) => new Promise(done => {
    const lists = selector ? [...document.querySelectorAll(selector)] : [document.scrollingElement];
    const length = it => sideways ? it.scrollWidth : it.scrollHeight;
    const list = lists.sort((one, other) => length(other) - length(one))[0];
    if (selector) list.scrollIntoView({block: 'center'});
    const side = sideways ? 'scrollLeft' : 'scrollTop', frames = [];
    let before = null, direction = 1, place = list[side];
    const frame = now => {
        if (before !== null) frames.push(now - before);
        before = now;
        list[side] += direction * step;
        if (list[side] === place && direction < 0) { done(frames); return; }
        if (list[side] === place) direction = -1;
        place = list[side];
        requestAnimationFrame(frame);
    };
    setTimeout(() => requestAnimationFrame(frame), 500);
})"""

# Notes the time from a key to the frame that shows a change of the gallery, and to a change of the differential.
WATCH_JS = """([key, name]) => {
    window.relabel = {};
    const count = () => [...document.querySelectorAll('.wbc-differential tbody tr')]
        .find(row => row.textContent.trim().startsWith(name))?.cells[1].textContent;
    document.addEventListener('keydown', event => {
        if (event.key === key) window.relabel = {start: event.timeStamp, count: count()};
    }, true);
    new MutationObserver(() => {
        const it = window.relabel;
        if (it.start === undefined || it.drawn !== undefined) return;
        it.drawn = null;
        requestAnimationFrame(() => setTimeout(() => { it.drawn = performance.now() - it.start; }));
    }).observe(document.querySelector('.wbc-groups'), {subtree: true, childList: true});
    new MutationObserver(() => {
        const it = window.relabel;
        if (it.start === undefined || it.counted !== undefined || count() === it.count) return;
        it.counted = performance.now() - it.start;
    }).observe(document.querySelector('.wbc-specimen'), {subtree: true, childList: true, characterData: true});
}"""


def paint_fields(folder: Path, cells: int) -> list[Path]:
    """Paint fields of 640 x 480 pixels in which so many cells, and a tenth more, are to be found."""
    files = []
    for seed in range(-(-11 * cells // (10 * CELLS_PER_FIELD))):
        labels = np.random.default_rng(seed).integers(len(CLASS_NAMES), size=CELLS_PER_FIELD)
        files.append(folder / f"{seed:03d}.jpg")
        Image.fromarray(paint_field(labels, seed=seed).image).save(files[-1], quality=92)
    return files


def fill(page: Page, files: Sequence[Path], cells: int) -> int:
    """Give fields until the gallery has so many cells; the number that it has then."""
    given = 0
    while given < len(files):
        some = files[given : given + AT_ONCE]
        given += len(some)
        page.locator(".wbc-upload input[type=file]").first.set_input_files(some)
        page.locator(".wbc-pager", has_text=f"of {given}").wait_for(timeout=600 * MILLISECONDS)
        page.locator(".wbc-progress").wait_for(state="detached", timeout=600 * MILLISECONDS)
        if page.locator(".wbc-cell").count() >= cells:
            break
    page.locator(".wbc-gallery[aria-busy=false]").wait_for()
    return page.locator(".wbc-cell").count()


def time_relabels(page: Page, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until a relabelled cell is drawn, and until it is counted, of so many."""
    page.evaluate(WATCH_JS, [TARGET_KEY, TARGET])
    others = page.locator(f".wbc-cells:visible:not([aria-label='{TARGET}'])")
    sizes = others.evaluate_all("lists => lists.slice(0, 4).map(list => list.children.length)")
    fullest = others.nth(int(np.argmax(sizes)))
    drawn, counted = [], []
    for _ in range(count):
        page.mouse.move(0, 0)  # a mouse that rests names one cell alone
        fullest.locator(".wbc-cell:not(.wbc-reviewed)").first.hover()
        page.keyboard.press(TARGET_KEY)
        page.wait_for_function("window.relabel.drawn && window.relabel.counted", timeout=60 * MILLISECONDS)
        drawn.append(page.evaluate("window.relabel.drawn"))
        counted.append(page.evaluate("window.relabel.counted"))
        page.wait_for_timeout(200)
    return drawn, counted


def describe(what: str, milliseconds: Sequence[float]) -> str:
    """A line of the table."""
    median, last = np.quantile(milliseconds, (0.5, 0.95))
    return f"{what:<44}{len(milliseconds):>6}{median:>10.1f}{last:>10.1f}{max(milliseconds):>10.1f}"


def measure(page: Page, relabels: int) -> None:
    """Print the table of one page that is filled."""
    page.locator(".wbc-gallery").scroll_into_view_if_needed()
    narrow = page.viewport_size == PHONE
    for title, selector, sideways in (
        ("the fullest class, scrolled", ".wbc-cells", narrow),
        ("the same once more, its images there", ".wbc-cells", narrow),
        ("the page, scrolled", "", False),
    ):
        print(describe(title, page.evaluate(SCROLL_JS, [selector, sideways, STEP])), flush=True)
    drawn, counted = time_relabels(page, relabels)
    print(describe("a key, to the cell in its new class", drawn))
    print(describe("a key, to the differential with it", counted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Model folder or Hub id.")
    parser.add_argument("--cells", type=int, default=1000, help="Least number of cells in the gallery.")
    parser.add_argument("--relabels", type=int, default=20, help="Number of cells to relabel.")
    parser.add_argument("--phone", action="store_true", help="On a screen of 390 x 844 pixels.")
    parser.add_argument("--port", type=int, default=7868)
    arguments = parser.parse_args()
    viewport = PHONE if arguments.phone else DESKTOP
    with (
        tempfile.TemporaryDirectory() as folder,
        page_in_browser(arguments.model, arguments.port, viewport) as (page, _),
    ):
        found = fill(page, paint_fields(Path(folder), arguments.cells), arguments.cells)
        print(f"{found} cells; load {os.getloadavg()[0]:.1f}")
        print(f"{'milliseconds':<44}{'count':>6}{'median':>10}{'95 %':>10}{'most':>10}")
        measure(page, arguments.relabels)


if __name__ == "__main__":
    main()
