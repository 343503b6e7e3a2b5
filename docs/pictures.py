"""Make the README's images: painted cells, and the page with the example smear on it.

python docs/pictures.py --model models/starter
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_hf.data import paint_cells
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.web import build_page, launch_page

IMAGES = Path(__file__).parent / "images"
COLUMNS, CELL = 9, 128
VIEWPORT = {"width": 1280, "height": 1280}


def paint_sheet() -> Image.Image:
    """A row of painted cells for each class."""
    labels = np.tile(np.arange(len(CLASS_NAMES)), COLUMNS)
    cells = paint_cells(labels, size=CELL, seed=7).reshape(COLUMNS, len(CLASS_NAMES), CELL, CELL, 3)
    return Image.fromarray(cells.transpose(1, 2, 0, 3, 4).reshape(len(CLASS_NAMES) * CELL, COLUMNS * CELL, 3))


def take_screenshot(model: str, path: Path) -> None:
    """The page in a browser, with the example smear that it offers and one cell that a person has accepted."""
    from playwright.sync_api import sync_playwright

    page = build_page(Predictor.from_pretrained(model))
    url = launch_page(page, "127.0.0.1", None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=VIEWPORT)
        tab.goto(url)
        tab.get_by_role("button", name="An example smear").click()
        tab.locator(".wbc-pager", has_text="Field 1 of 4").wait_for()
        tab.locator(".wbc-progress").wait_for(state="detached")
        tab.get_by_role("textbox", name="Specimen").fill("S 17")
        tab.get_by_role("textbox", name="Leucocytes").fill("6.4")
        tab.get_by_role("textbox", name="Reviewed by").fill("A. Meyer")
        tab.locator(".wbc-differential th", has_text="10⁹/l").wait_for()
        waiting = tab.get_attribute(".wbc-card", "data-number")
        tab.locator("[data-key=a]").click()
        tab.locator(f".wbc-card[data-number='{waiting}']").wait_for(state="detached")
        tab.locator("h1").click()
        tab.screenshot(path=str(path))
        browser.close()
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/starter", help="Folder or Hub id of the model on the page.")
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    paint_sheet().save(IMAGES / "painted_cells.jpg", quality=88)
    take_screenshot(arguments.model, IMAGES / "page.png")


if __name__ == "__main__":
    main()
