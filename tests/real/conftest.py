"""A browser, pages to open in it, and painted fields to give them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.inference import Predictor, ReferenceCells
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.web import build_page, launch_page

if TYPE_CHECKING:
    from playwright import sync_api

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with a model that is sure of nothing."""
    network, processor = build_tiny_model()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    page = build_page(Predictor(network, processor, str(folder), folder=folder))
    yield launch_page(page, "127.0.0.1", None)
    page.close()


@pytest.fixture(scope="package")
def shipped_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page as it ships, with the default model, and with reference cells."""
    predictor = Predictor.from_pretrained()
    folder = tmp_path_factory.mktemp("references")
    for label, cell in enumerate(paint_cells(range(len(CLASS_NAMES)), size=96, seed=3)):
        (folder / CLASS_NAMES[label]).mkdir()
        Image.fromarray(cell).save(folder / CLASS_NAMES[label] / f"known {CLASS_NAMES[label]}.png")
    page = build_page(predictor, references=ReferenceCells.from_folder(folder, predictor))
    yield launch_page(page, "127.0.0.1", None)
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: "sync_api.Browser") -> Iterator["sync_api.BrowserContext"]:
    """What the pages of one visitor share: in a new one, each page loads and compiles all of Gradio again."""
    context = browser.new_context()
    yield context
    context.close()


@contextmanager
def opened(
    context: "sync_api.BrowserContext", url: str, *, viewport: dict = DESKTOP, scheme: str = "light"
) -> Iterator["sync_api.Page"]:
    """A page that is loaded. It is closed at the end, and what it kept in the browser is removed."""
    page = context.new_page()
    page.set_viewport_size(viewport)
    page.emulate_media(color_scheme=scheme)
    page.set_default_timeout(60_000)  # machines that test have other work too
    page.goto(url)
    page.wait_for_selector(".wbc-examples button")
    try:
        yield page
    finally:
        page.evaluate("localStorage.clear()")
        page.close()


@pytest.fixture
def fields(tmp_path: Path) -> list[Path]:
    """Two painted fields with four leucocytes each."""
    files = [tmp_path / name for name in ("field 1.png", "field #2.jpg")]
    for seed, file in enumerate(files, start=1):
        Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=seed).image).save(file)
    return files


# The gallery draws the last state of a reading a moment after the rest of the page.
SETTLED_JS = """() => {
    const gallery = document.querySelector(".wbc-gallery"), before = window.cellsBefore;
    window.cellsBefore = `${gallery.ariaBusy} ${gallery.innerText}`;
    return gallery.ariaBusy === "false" && before === window.cellsBefore;
}"""


def wait_until_read(page: "sync_api.Page", then: str) -> None:
    """Wait until all pictures are read, the line over the field says this, and no cell of the gallery moves."""
    page.locator(".wbc-pager", has_text=then).wait_for()
    page.locator(".wbc-progress").wait_for(state="detached")
    page.wait_for_function(SETTLED_JS, polling=200)
