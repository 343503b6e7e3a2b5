"""The page in a real browser, as a laboratory meets it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from wbc_hf.data import paint_cells
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_scratch
from wbc_hf.serving import Predictor
from wbc_hf.serving.page import NO_PICTURE, RESEARCH_USE, build_page, launch_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    page = build_page(Predictor(*build_from_scratch(0.0625, image_size=32), name="tiny"))
    yield launch_page(page, "127.0.0.1", None)
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: "sync_api.Browser", url: str) -> Iterator["sync_api.Page"]:
    """The page, opened. A test fails where it asked another machine for something or scrolls sideways."""
    page = browser.new_page(viewport=request.param)
    hosts = set()
    page.on("request", lambda asked: hosts.add(urlsplit(asked.url).hostname))
    page.goto(url)
    page.wait_for_selector(".wbc-examples button")
    yield page
    assert hosts - {None} == {"127.0.0.1"}  # None: data: and blob:, which ask nobody
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param["width"]
    page.close()


@pytest.fixture
def cells(tmp_path: Path) -> list[Path]:
    """Three painted cells, one of them in a format that no browser shows."""
    files = [tmp_path / name for name in ("cell 1.png", "cell #2.tif", "cell 3.jpg")]
    for file, pixels in zip(files, paint_cells([0, 2, 4], size=64, seed=5), strict=True):
        Image.fromarray(pixels).save(file)
    return files


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "notes.jpg"
    file.write_text("no picture")
    return file


def _upload(page: "sync_api.Page", files: Path | list[Path]) -> None:
    page.locator(".tabitem:visible input[type=file]").first.set_input_files(files)


def test_one_cell(page: "sync_api.Page", cells: list[Path]):
    assert RESEARCH_USE in page.inner_text("body")

    _upload(page, cells[1])

    page.wait_for_selector(".wbc-answer")
    assert page.inner_text(".wbc-class b").lower() in CLASS_NAMES
    assert page.inner_text(".wbc-file") == "cell #2.tif 64 × 64 pixels"
    assert page.locator(".wbc-bars li").count() == len(CLASS_NAMES)
    page.wait_for_function("document.querySelector('.wbc-picture img')?.naturalWidth === 64")

    page.get_by_label("Remove Image").click()
    page.get_by_text(NO_PICTURE).wait_for()


def test_a_text_that_calls_itself_a_picture(page: "sync_api.Page", notes: Path, cells: list[Path]):
    _upload(page, notes)

    page.wait_for_selector(".wbc-problem")
    assert "notes.jpg is not a picture in a known format" in page.inner_text(".wbc-problem")
    assert not re.search(r"Traceback|\bError\b", page.inner_text("body"))

    _upload(page, cells[0])
    page.wait_for_selector(".wbc-answer")
    assert page.locator(".wbc-problem").count() == 0


def test_examples(page: "sync_api.Page"):
    page.get_by_role("button", name="Monocyte").click()
    page.wait_for_selector(".wbc-answer")
    assert "Painted monocyte" in page.inner_text(".wbc-file")


def test_several_cells(page: "sync_api.Page", cells: list[Path], notes: Path, tmp_path: Path):
    page.get_by_role("tab", name="Several cells").click()

    _upload(page, [cells[0], notes, *cells[1:]])

    page.wait_for_selector(".wbc-many table")
    assert page.locator(".wbc-name").all_inner_texts() == ["cell 1.png", "notes.jpg", "cell #2.tif", "cell 3.jpg"]
    assert page.locator(".wbc-unreadable").count() == 1
    assert "is not a picture" in page.inner_text(".wbc-unreadable .wbc-reason")
    assert "3 pictures classified, 1 could not be read" in page.inner_text(".wbc-summary")

    with page.expect_download() as download:
        page.get_by_text("Download as CSV").click()
    assert download.value.suggested_filename == "leucocytes.csv"
    lines = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["file", "cell 1.png", "notes.jpg", "cell #2.tif", "cell 3.jpg"]


def test_a_table_sorts_by_any_column(page: "sync_api.Page", cells: list[Path], notes: Path):
    if page.viewport_size == PHONE:
        pytest.skip("the heads of the columns are hidden at this width")
    page.get_by_role("tab", name="Several cells").click()
    _upload(page, [notes, *cells])
    page.wait_for_selector(".wbc-many table")

    page.get_by_role("columnheader", name="File").click()
    assert page.locator(".wbc-name").all_inner_texts() == ["cell #2.tif", "cell 1.png", "cell 3.jpg", "notes.jpg"]
    page.get_by_role("columnheader", name="File").click()
    assert page.locator(".wbc-name").all_inner_texts() == ["cell 3.jpg", "cell 1.png", "cell #2.tif", "notes.jpg"]
