"""The page in a real browser, as a laboratory meets it."""

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pypdf
import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image

from tests.adapted_models import build_tiny_model, write_tiny_model
from tests.real.conftest import DESKTOP, PHONE, opened, wait_until_read
from wbc_hf.adaptation import Laboratories
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.inference import Predictor
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import Calibration, LaboratoryDistance, OutOfDistributionScore
from wbc_hf.reports import RESEARCH_USE
from wbc_hf.smear import load_types
from wbc_hf.web import adapting, build_page, launch_page
from wbc_hf.web.cell_tab import NO_PICTURE

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")

pytestmark = pytest.mark.browser
# For what a layout changes least.
DESKTOP_FIRST = pytest.mark.parametrize(
    "page",
    [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone", marks=pytest.mark.long)],
    indirect=True,
)


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, context: "sync_api.BrowserContext", url: str) -> Iterator["sync_api.Page"]:
    """The page, opened. A test fails where it asked another machine for something or scrolls sideways."""
    hosts = set()

    def note(asked: "sync_api.Request") -> None:
        hosts.add(urlsplit(asked.url).hostname)

    context.on("request", note)
    with opened(context, url, viewport=request.param) as page:
        yield page
        assert hosts - {None} == {"127.0.0.1"}  # None: data: and blob:, which ask nobody
        assert page.evaluate("document.documentElement.scrollWidth") <= request.param["width"]
    context.remove_listener("request", note)


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
    page.get_by_role("tab", name="One cell").click()

    _upload(page, cells[1])

    page.wait_for_selector(".wbc-answer")
    assert page.inner_text(".wbc-class b").lower() in CLASS_NAMES
    assert page.inner_text(".wbc-file") == "cell #2.tif 64 × 64 pixels"
    assert page.locator(".wbc-bars li").count() == len(CLASS_NAMES)
    page.wait_for_function("document.querySelector('.wbc-picture img')?.naturalWidth === 64")

    page.wait_for_selector(".wbc-heat img")

    page.get_by_label("Remove Image").click()
    page.get_by_text(NO_PICTURE).wait_for()


def test_a_field_on_the_tab_of_one_cell_leads_to_the_specimen(page: "sync_api.Page", fields: list[Path]):
    page.get_by_role("tab", name="One cell").click()
    _upload(page, fields[0])
    page.get_by_text("This looks like a photograph of a whole field").wait_for()
    page.get_by_role("button", name="Open Specimen").click()
    page.get_by_text("Each photograph shows").wait_for()


@DESKTOP_FIRST
def test_a_text_that_calls_itself_a_picture(page: "sync_api.Page", notes: Path, cells: list[Path]):
    page.get_by_role("tab", name="One cell").click()
    _upload(page, notes)

    page.wait_for_selector(".wbc-problem")
    assert "notes.jpg is not a picture in a known format" in page.inner_text(".wbc-problem")
    assert not re.search(r"Traceback|\bError\b", page.inner_text("body"))

    _upload(page, cells[0])
    page.wait_for_selector(".wbc-answer")
    assert page.locator(".wbc-problem").count() == 0


@DESKTOP_FIRST
def test_a_picture_from_the_clipboard(page: "sync_api.Page", cells: list[Path]):
    page.get_by_role("tab", name="One cell").click()
    page.evaluate(PASTE_JS, ["pasted.png", list(cells[0].read_bytes())])
    page.wait_for_selector(".wbc-answer")
    assert page.inner_text(".wbc-file") == "pasted.png 64 × 64 pixels"


def test_examples(page: "sync_api.Page"):
    page.get_by_role("tab", name="One cell").click()
    page.get_by_role("button", name="Monocyte").click()
    page.wait_for_selector(".wbc-answer")
    assert "Example monocyte" in page.inner_text(".wbc-file")


# The second of two pictures comes while the first is sent, answered, explained, or after.
PAUSES = (0.05, 0.15, 0.5, 2)  # seconds


@DESKTOP_FIRST
def test_the_newest_of_two_quick_pictures_wins(page: "sync_api.Page", cells: list[Path]):
    page.get_by_role("tab", name="One cell").click()
    for pause, (first, second) in product(PAUSES, ((cells[0], cells[1]), (cells[2], cells[0]))):
        page.evaluate(PASTE_JS, [first.name, list(first.read_bytes())])
        page.wait_for_timeout(1000 * pause)
        page.evaluate(PASTE_JS, [second.name, list(second.read_bytes())])
        _wait_for_last(page, second.name)


@DESKTOP_FIRST
def test_the_newest_of_two_quick_examples_wins(page: "sync_api.Page", cells: list[Path]):
    page.get_by_role("tab", name="One cell").click()
    for pause in PAUSES:
        for first, second in (("Monocyte", "Basophil"), ("Eosinophil", "Neutrophil")):
            page.get_by_role("button", name=first).click()
            page.wait_for_timeout(1000 * pause)
            page.get_by_role("button", name=second).click()
            _wait_for_last(page, f"Example {second.lower()}")

        page.evaluate(PASTE_JS, [cells[0].name, list(cells[0].read_bytes())])
        page.wait_for_timeout(1000 * pause)
        page.get_by_role("button", name="Monocyte").click()
        _wait_for_last(page, "Example monocyte")

        page.wait_for_timeout(1000 * pause)
        page.get_by_label("Remove Image").click()
        page.get_by_text(NO_PICTURE).wait_for()


@DESKTOP_FIRST
def test_an_example_wins_over_a_picture_that_was_chosen_before_and_is_uploaded_later(
    page: "sync_api.Page", cells: list[Path]
):
    page.get_by_role("tab", name="One cell").click()
    held: list = []
    page.route("**/upload*", lambda route: held.append(route))
    page.evaluate(PASTE_JS, [cells[0].name, list(cells[0].read_bytes())])
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Monocyte").click()
    _wait_for_last(page, "Example monocyte")
    with page.expect_response("**/upload*"):
        held[0].continue_()
    page.unroute("**/upload*")
    page.wait_for_timeout(1000)
    _wait_for_last(page, "Example monocyte")

    page.evaluate(PASTE_JS, [cells[1].name, list(cells[1].read_bytes())])
    _wait_for_last(page, cells[1].name)


def _wait_for_last(page: "sync_api.Page", name: str) -> None:
    """Wait for the explained answer to a picture, and see that no other replaces it."""
    page.locator(".wbc-answer", has_text=name).locator(".wbc-heat img").wait_for()
    page.wait_for_timeout(500)
    assert page.inner_text(".wbc-file").startswith(name)
    assert page.locator(".wbc-heat img").count() == 1


# ---- a specimen


def _examine(page: "sync_api.Page", files: list[Path], then: str) -> None:
    """Give files, and wait until all are read, the line over the field begins so, and no cell of the gallery moves."""
    _upload(page, files)
    wait_until_read(page, then)


def _count_of(page: "sync_api.Page", name: str) -> int:
    return int(page.locator(".wbc-differential tr", has_text=name.capitalize()).locator("td").first.inner_text())


def _chosen(page: "sync_api.Page") -> int:
    return int(page.get_attribute(".wbc-card", "data-number"))


def _wait_for_count(page: "sync_api.Page", name: str, count: int) -> None:
    page.locator(".wbc-differential tr", has_text=name.capitalize()).locator("td").first.get_by_text(
        str(count), exact=True
    ).wait_for()


def test_fields_give_numbered_boxes_and_a_click_shows_the_cell(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")

    assert "Field 1 of 2" in page.inner_text(".wbc-pager")
    boxes = page.locator(".wbc-box")
    numbers = [int(boxes.nth(index).get_attribute("data-number")) for index in range(boxes.count())]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 3

    boxes.last.click()
    page.wait_for_selector(f".wbc-card[data-number='{numbers[-1]}']")
    assert boxes.last.get_attribute("aria-pressed") == "true"

    page.get_by_label("Next picture").click()
    page.get_by_text("Field 2 of 2").wait_for()
    assert int(boxes.first.get_attribute("data-number")) == numbers[-1] + 1


@DESKTOP_FIRST
def test_a_person_relabels_by_click_and_by_key_and_the_table_follows(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    waiting = page.locator(".wbc-cell.wbc-waiting").count()
    first = _chosen(page)
    assert _count_of(page, "basophil") == 0

    page.locator(".wbc-classes").get_by_role("button", name="Basophil").click()
    _wait_for_count(page, "basophil", 1)
    assert page.locator(".wbc-cell.wbc-waiting").count() == waiting - 1
    assert _chosen(page) != first

    page.locator("h1").click()
    page.keyboard.press("1")
    _wait_for_count(page, "basophil", 2)
    page.keyboard.press("0")
    page.get_by_text("1 none of the five").wait_for()

    page.keyboard.press("u")
    page.get_by_text("1 none of the five").wait_for(state="detached")

    # And back again, by keyboard alone.
    page.locator(f".wbc-box[data-number='{first}']").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f".wbc-card[data-number='{first}']")
    page.keyboard.press("u")
    _wait_for_count(page, "basophil", 1)


def _numbers(page: "sync_api.Page", column: str, state: str = "") -> list[int]:
    """Of the cells in a column of the gallery, in the order in which they are shown."""
    cells = page.locator(f".wbc-cells[aria-label='{column}'] .wbc-cell{state}")
    return cells.evaluate_all("cells => cells.map(cell => Number(cell.dataset.number))")


def _cell(page: "sync_api.Page", number: int) -> "sync_api.Locator":
    return page.locator(f".wbc-cell[data-number='{number}']")


def _wait_for_cells(page: "sync_api.Page", column: str, numbers: list[int]) -> None:
    """Wait until a column holds these reviewed cells and no others, and the server has answered."""
    sync_api.expect(page.locator(f".wbc-cells[aria-label='{column}'] .wbc-reviewed")).to_have_count(len(numbers))
    assert sorted(_numbers(page, column, ".wbc-reviewed")) == sorted(numbers)
    if column in (name.capitalize() for name in CLASS_NAMES):
        _wait_for_count(page, column, len(numbers))


@DESKTOP_FIRST
def test_cells_are_dragged_to_their_class_and_keys_review_the_one_under_the_mouse(
    page: "sync_api.Page", fields: list[Path]
):
    _examine(page, fields, "Field 1 of 2")
    page.locator(".wbc-cell").first.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('.wbc-cell img')].some(image => image.naturalWidth)")
    columns = {name: _numbers(page, name, ".wbc-waiting") for name in map(str.capitalize, CLASS_NAMES)}
    start = max(columns, key=lambda name: len(columns[name]))
    goal, other = [name for name in columns if name != start][:2]
    dragged, hovered, *_ = columns[start]

    _cell(page, dragged).drag_to(page.locator("section[data-column]", has=page.get_by_role("heading", name=goal)))
    _wait_for_cells(page, goal, [dragged])

    _cell(page, hovered).hover()
    page.keyboard.press(str(1 + [name.capitalize() for name in CLASS_NAMES].index(other)))
    _wait_for_cells(page, other, [hovered])
    page.locator("h1").hover()
    page.locator(".wbc-toolbar").get_by_role("button", name=f"Undo cell {hovered}").click()
    _wait_for_cells(page, other, [])
    _wait_for_cells(page, goal, [dragged])


@DESKTOP_FIRST
def test_no_cell_moves_away_under_a_hand_that_holds_one(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields[:1], "Field 1 of 1")
    first = page.locator(".wbc-cell.wbc-waiting").first
    first.hover()
    before = page.locator(".wbc-cell").count()
    page.mouse.down()
    _upload(page, fields[1:])
    page.locator(".wbc-pager", has_text="of 2").wait_for()
    page.locator(".wbc-progress").wait_for(state="detached")
    page.wait_for_timeout(500)
    assert page.locator(".wbc-cell").count() == before

    page.mouse.up()
    wait_until_read(page, "of 2")
    assert page.locator(".wbc-cell").count() > before


@DESKTOP_FIRST
def test_several_cells_are_accepted_or_moved_at_once_and_undone_at_once(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    columns = {name: _numbers(page, name, ".wbc-waiting") for name in map(str.capitalize, CLASS_NAMES)}
    start = max(columns, key=lambda name: len(columns[name]))
    numbers, goal = columns[start], next(name for name in columns if name != start)
    assert len(numbers) > 2
    selection = page.get_by_role("toolbar", name="Selected cells")

    _cell(page, numbers[0]).click(modifiers=["Control"])
    _cell(page, numbers[1]).click(modifiers=["Shift"])
    page.get_by_text("2 cells selected").wait_for()
    selection.get_by_role("button", name="Accept all of these").click()
    _wait_for_cells(page, start, numbers[:2])
    assert selection.is_hidden()

    # By keyboard alone: from a cell to the next one, both to another class.
    first, second = _numbers(page, start)[:2]
    _cell(page, first).focus()
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_text("2 cells selected").wait_for()
    page.keyboard.press(str(1 + [name.capitalize() for name in CLASS_NAMES].index(goal)))
    _wait_for_cells(page, goal, [first, second])
    page.locator(".wbc-toolbar").get_by_role("button", name="Undo 2 cells").click()
    _wait_for_cells(page, goal, [])
    _wait_for_cells(page, start, numbers[:2])

    page.locator("section[data-column]", has=page.get_by_role("heading", name=start)).get_by_role(
        "button", name="Accept"
    ).click()
    _wait_for_cells(page, start, numbers)
    page.keyboard.press("Escape")


@DESKTOP_FIRST
def test_the_gallery_begins_with_what_is_most_unsure_or_goes_by_number(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    cells = json.loads(Path(download.value.path()).read_bytes())["cells"]
    sure = {cell["number"]: max(cell["prediction"]["probabilities"].values()) for cell in cells}
    names = [name.capitalize() for name in CLASS_NAMES]
    columns = {name: _numbers(page, name) for name in names}
    for numbers in columns.values():
        assert numbers == sorted(numbers, key=lambda number: (round(sure[number], 3), number))

    by_number = page.get_by_role("button", name="By number")
    by_number.click()
    assert [_numbers(page, name) for name in names] == [sorted(columns[name]) for name in names]
    assert by_number.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Most unsure first").click()

    # What is reviewed goes behind what waits, and out of sight where only that is to be shown.
    full = max(names, key=lambda name: len(columns[name]))
    first, *others = columns[full]
    _cell(page, first).hover()
    page.keyboard.press("a")
    _wait_for_cells(page, full, [first])
    assert _numbers(page, full) == [*others, first]
    shown = page.get_by_role("group", name="Show")
    shown.get_by_role("button", name="Wait for review").click()
    assert _numbers(page, full) == others
    shown.get_by_role("button", name="Counted").click()
    assert _numbers(page, full) == [first]


@DESKTOP_FIRST
def test_a_resting_mouse_names_one_cell_and_further_keys_are_for_the_card(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields[:1], "Field 1 of 1")
    waiting = page.locator(".wbc-cell.wbc-waiting")
    count, under = waiting.count(), waiting.last
    first = int(under.get_attribute("data-number"))
    under.hover()
    page.keyboard.press("a")
    sync_api.expect(page.locator(f".wbc-card[data-number='{first}']")).to_have_count(0)
    assert [int(it.get_attribute("data-number")) for it in page.locator(".wbc-cell.wbc-reviewed").all()] == [first]
    page.keyboard.press("a")
    sync_api.expect(waiting).to_have_count(count - 2)

    # On a cell that is accepted already it leads to one that waits.
    _cell(page, first).click()
    page.locator(f".wbc-card[data-number='{first}']").wait_for()
    page.locator("h1").hover()
    for left in reversed(range(count - 2)):
        page.locator(".wbc-card").get_by_role("button", name="Next that waits").click()
        page.locator(".wbc-card").get_by_role("button", name="Accept").wait_for()
        page.keyboard.press("a")
        sync_api.expect(waiting).to_have_count(left)
        _cell(page, first).click()
        page.locator(f".wbc-card[data-number='{first}']").wait_for()
        page.locator("h1").hover()
    page.locator(".wbc-card", has_text="No cell waits for review.").get_by_role("link", name="To the reports").click()
    sync_api.expect(page.get_by_role("button", name="Report (PDF)")).to_be_in_viewport()


@DESKTOP_FIRST
def test_the_end_of_a_review_says_how_little_a_few_cells_are(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    said, accept = page.locator(".wbc-gallery > [role=status]"), page.locator("[data-do=accept-column]:visible")
    while accept.count():
        accept.first.click()
    count = page.locator(".wbc-cell.wbc-counted").count()
    sync_api.expect(said).to_have_text(
        f"No cell waits for review: the report is ready, but of {count} cells only: a differential needs 100."
    )
    page.locator(".wbc-differential tfoot td").first.get_by_text(str(count), exact=True).wait_for()


# Of each label in the gallery: whether it is wider than its cell, or sticks out of it at the bottom.
CLIPPED_JS = """cells => cells.filter(cell => {
    const label = cell.querySelector(':scope > span'), list = cell.parentElement;
    return label.scrollWidth > label.clientWidth || list.scrollWidth > list.clientWidth + 1 && list.clientHeight > 200
        || label.getBoundingClientRect().bottom > cell.getBoundingClientRect().bottom;
}).map(cell => cell.textContent)"""


def test_a_full_gallery_clips_no_label(page: "sync_api.Page", tmp_path: Path):
    files = []
    for seed in range(4):
        files.append(tmp_path / f"{seed}.png")
        Image.fromarray(paint_field([0, 1, 2, 3, 4] * 2, seed=seed).image).save(files[-1])
    _examine(page, files, "of 4")
    page.locator(".wbc-gallery").scroll_into_view_if_needed()
    columns = [_numbers(page, name.capitalize()) for name in CLASS_NAMES]
    assert max(map(len, columns)) > 8  # four rows and more
    # As of a thousand cells.
    page.locator(".wbc-cell > span > span").evaluate_all(
        "all => all.forEach(it => it.textContent = `1${it.textContent}`)"
    )
    assert page.locator(".wbc-cell").evaluate_all(CLIPPED_JS) == []

    image = page.locator(".wbc-cell img").first
    small = image.bounding_box()["width"]
    larger = page.get_by_role("button", name="Larger")
    larger.click()
    assert larger.get_attribute("aria-pressed") == "true"
    assert image.bounding_box()["width"] > 1.4 * small
    assert page.locator(".wbc-cell").evaluate_all(CLIPPED_JS) == []


def test_range_and_flag_of_a_class_are_seen_on_every_screen(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    for text in ("0.5 – 1", "20 – 40"):
        sync_api.expect(
            page.locator(".wbc-differential").get_by_text(text, exact=True).filter(visible=True)
        ).to_have_count(1)
    assert page.locator(".wbc-differential").get_by_role("columnheader", name="Flag").is_visible()


@DESKTOP_FIRST
def test_a_rubber_band_selects_cells(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    first = page.locator(".wbc-cell").first
    first.scroll_into_view_if_needed()
    place = first.bounding_box()
    page.mouse.move(place["x"] - 4, place["y"] - 3)
    page.mouse.down()
    page.mouse.move(place["x"] + 20, place["y"] + 30, steps=3)
    assert first.get_attribute("aria-selected") == "true"
    page.mouse.up()
    assert page.locator(".wbc-band").count() == 0
    page.get_by_text("1 cell selected").wait_for()
    page.keyboard.press("Escape")
    assert first.get_attribute("aria-selected") == "false"


def test_a_missed_cell_is_pointed_at(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    boxes = page.locator(".wbc-box")
    before, height = boxes.count(), page.locator(".wbc-boxes").bounding_box()["height"]
    page.get_by_role("button", name="Missed cell").click()
    # The corner, where the margin of the outermost box leaves room.
    page.locator(".wbc-boxes").click(position={"x": 6, "y": height - 6})
    page.wait_for_function(f"document.querySelectorAll('.wbc-box').length === {before + 1}")
    assert "Cell" in page.inner_text(".wbc-card .wbc-file")
    page.locator(".wbc-classes").get_by_role("button", name="Eosinophil").click()
    _wait_for_count(page, "eosinophil", 1)


@pytest.fixture
def desktop(request: pytest.FixtureRequest, context: "sync_api.BrowserContext", url: str) -> Iterator["sync_api.Page"]:
    """The page on a wide screen, where there are a keyboard and a mouse; light, or as the parameter says."""
    with opened(context, url, scheme=getattr(request, "param", "light")) as page:
        yield page


@pytest.fixture
def large_field(tmp_path: Path) -> Path:
    """A painted field of 2592 x 1944 pixels: more than its preview has."""
    file = tmp_path / "large.jpg"
    Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=1).image).resize((2592, 1944)).save(file)
    return file


def _zoom(page: "sync_api.Page") -> float:
    return float(page.locator(".wbc-zoom").inner_text().split()[0])


def _choose(page: "sync_api.Page", number: int) -> None:
    page.locator(f".wbc-card[data-number='{number}']").wait_for()


def _is_within(page: "sync_api.Page", box: str) -> bool:
    inner, outer = (page.locator(part).bounding_box() for part in (f"{box} .wbc-line", ".wbc-stage"))
    return all(
        outer[edge] - 2 <= inner[edge] and inner[edge] + inner[side] <= outer[edge] + outer[side] + 2
        for edge, side in (("x", "width"), ("y", "height"))
    )


def test_a_field_is_zoomed_to_full_resolution_and_stays_so_at_a_review(desktop: "sync_api.Page", large_field: Path):
    page = desktop
    _examine(page, [large_field], "Field 1 of 1")
    width = "document.querySelector('.wbc-stage img').naturalWidth"
    page.wait_for_function(f"{width} === 1280")
    box = page.locator(".wbc-box.wbc-waiting:not(.wbc-chosen)").first
    number, tag = int(box.get_attribute("data-number")), box.locator(".wbc-tag").bounding_box()
    small = box.locator(".wbc-line").bounding_box()
    page.mouse.move(small["x"] + small["width"] / 2, small["y"] + small["height"] / 2)

    for _ in range(2):
        page.mouse.wheel(0, -500)

    page.wait_for_function(f"{width} === 2592")
    zoomed = _zoom(page)
    assert 2 < zoomed < 3
    large = box.locator(".wbc-line").bounding_box()
    # Lines keep their width, so that a box grows a little less than the field.
    assert large["width"] == pytest.approx(zoomed * small["width"], rel=0.1)
    assert box.locator(".wbc-tag").bounding_box()["width"] == pytest.approx(tag["width"], rel=0.1)

    page.mouse.click(large["x"] + large["width"] / 2, large["y"] + large["height"] / 2)
    _choose(page, number)
    page.locator("h1").click()
    page.keyboard.press("1")
    _wait_for_count(page, "basophil", 1)
    assert _zoom(page) == zoomed and page.evaluate(width) == 2592
    assert _is_within(page, ".wbc-chosen")

    page.locator(".wbc-stage").focus()
    for key, expected in (("+", 1.5 * zoomed), ("-", zoomed), ("0", 1)):
        page.keyboard.press(key)
        assert _zoom(page) == pytest.approx(expected, abs=0.11)
    assert _count_of(page, "basophil") == 1


def test_a_field_is_shown_brighter_and_with_a_bar_of_known_length(desktop: "sync_api.Page", tmp_path: Path):
    page, file, micrometres = desktop, tmp_path / "calibrated.png", 0.1  # a pixel
    field = Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=1).image)
    field.save(file, dpi=(25_400 / micrometres, 25_400 / micrometres))
    _examine(page, [file], "Field 1 of 1")
    chosen, box = _chosen(page), page.locator(".wbc-box .wbc-line").first
    for _ in range(2):
        bar = page.locator(".wbc-scale-bar")
        on_screen = box.bounding_box()["width"] / float(box.get_attribute("width"))
        length = float(bar.inner_text().removesuffix(" µm")) / micrometres * on_screen
        assert bar.bounding_box()["width"] == pytest.approx(length, rel=0.1)
        page.get_by_role("button", name="Zoom in").click()

    drawn = "getComputedStyle(document.querySelector('.wbc-stage img')).filter"
    before = page.evaluate(drawn)
    for name, key in (("Brightness", "ArrowRight"), ("Gamma", "ArrowLeft")):
        page.get_by_label(name).focus()
        for _ in range(4):
            page.keyboard.press(key)
    assert "brightness(1.2)" in page.evaluate(drawn) and "wbc-gamma" in page.evaluate(drawn)
    exponent = page.locator(".wbc-filters [exponent]").first.get_attribute("exponent")
    assert float(exponent) == pytest.approx(1 / 0.8)
    assert _chosen(page) == chosen  # a slider has arrow keys of its own
    page.locator(".wbc-tools").get_by_role("button", name="Reset").click()
    assert page.evaluate(drawn) == before


def test_the_gallery_brings_a_cell_into_view_and_dragging_chooses_none(desktop: "sync_api.Page", large_field: Path):
    page = desktop
    _examine(page, [large_field], "Field 1 of 1")
    page.get_by_role("button", name="All cells").click()
    page.locator(".wbc-stage").focus()
    for _ in range(2):
        page.keyboard.press("+")
    for number in (1, 3):
        page.locator(f".wbc-cell[data-number='{number}']").click()
        _choose(page, number)
        assert _is_within(page, ".wbc-chosen")

    page.locator("h1").click()  # the gallery has arrow keys of its own
    page.keyboard.press("ArrowLeft")
    _choose(page, 2)
    page.locator(".wbc-stage").scroll_into_view_if_needed()
    stage = page.locator(".wbc-stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    before = page.locator(".wbc-chosen .wbc-line").bounding_box()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=4)
    page.mouse.up()
    after = page.locator(".wbc-chosen .wbc-line").bounding_box()
    assert (before["x"], before["y"]) != (after["x"], after["y"])
    assert _chosen(page) == 2


def test_arrow_keys_lead_from_cell_to_cell_and_from_field_to_field(desktop: "sync_api.Page", fields: list[Path]):
    page = desktop
    _examine(page, [*fields, fields[0]], "Field 1 of 3")
    page.locator("h1").click()
    first = _chosen(page)
    page.keyboard.press("ArrowRight")
    _choose(page, first + 1)
    page.keyboard.press("ArrowLeft")
    _choose(page, first)
    for number in (2, 3):
        page.keyboard.press("PageDown")
        page.get_by_text(f"Field {number} of 3").wait_for()
    # From a cell that was seen before, too.
    page.get_by_text("not counted again").first.wait_for()
    seen = _chosen(page)
    page.keyboard.press("ArrowLeft")
    _choose(page, seen - 1)
    page.keyboard.press("l")
    assert page.locator(".wbc-box").first.evaluate("it => getComputedStyle(it).opacity") == "0"
    # Not where somebody writes.
    page.get_by_role("textbox", name="Reviewed by").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert _chosen(page) == seen - 1


def test_a_missed_cell_is_pointed_at_by_keyboard(desktop: "sync_api.Page", fields: list[Path]):
    page = desktop
    _examine(page, fields, "Field 1 of 2")
    before = page.locator(".wbc-box").count()
    pointing = page.get_by_role("button", name="Missed cell")
    page.keyboard.press("m")
    sync_api.expect(pointing).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    sync_api.expect(pointing).to_have_attribute("aria-pressed", "false")
    sync_api.expect(pointing).to_be_focused()

    page.keyboard.press("Enter")
    assert page.locator(".wbc-cross").is_visible()
    # To the corner, where the margin of the outermost box leaves room.
    for key, times in (("ArrowLeft", 40), ("ArrowDown", 40)):
        for _ in range(times):
            page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('.wbc-box').length === {before + 1}")
    assert not page.locator(".wbc-cross").is_visible()


def test_own_keys_are_kept_in_the_browser(desktop: "sync_api.Page", fields: list[Path]):
    page = desktop
    page.on("dialog", lambda dialog: dialog.accept())
    _examine(page, fields, "Field 1 of 2")
    page.get_by_text("Keys", exact=True).click()
    keys = page.locator(".wbc-key-fields input")
    keys.nth(0).fill("a")
    page.get_by_text("A accepts already").wait_for()
    keys.nth(0).fill("5")
    page.get_by_text("5 is the key of “Neutrophil” already").wait_for()
    keys.nth(0).fill("q")
    assert page.locator(".wbc-key-problem").inner_text() == ""
    page.locator("h1").click()
    page.keyboard.press("1")
    page.keyboard.press("q")
    _wait_for_count(page, "basophil", 1)

    page.reload()
    _examine(page, fields, "Field 1 of 2")
    assert page.locator(".wbc-classes kbd").all_inner_texts() == ["Q", "2", "3", "4", "5", "0"]
    page.get_by_text("Keys", exact=True).click()
    page.locator(".wbc-key-fields button").click()
    assert page.locator(".wbc-classes kbd").first.inner_text() == "1"


@pytest.fixture
def shipped(context: "sync_api.BrowserContext", shipped_url: str) -> Iterator["sync_api.Page"]:
    """The page with the default model."""
    with opened(context, shipped_url) as page:
        yield page


@pytest.fixture
def page_with_types(browser: "sync_api.Browser") -> Iterator["sync_api.Page"]:
    """A page of a laboratory that has types of its own, on a wide screen."""
    types = load_types(Path(__file__).parents[2] / "configs" / "types.toml")
    served = build_page(Predictor(*build_tiny_model(), name="tiny"), types=types)
    page = browser.new_page(viewport=DESKTOP)
    page.set_default_timeout(60_000)
    page.goto(launch_page(served, "127.0.0.1", None))
    page.wait_for_selector(".wbc-examples button")
    yield page
    page.close()
    served.close()


def test_own_types_are_named_by_key_and_stand_in_table_and_gallery(
    page_with_types: "sync_api.Page", fields: list[Path]
):
    page = page_with_types
    _examine(page, fields, "Field 1 of 2")
    page.locator("h1").click()
    first = _chosen(page)
    page.keyboard.press("6")
    _wait_for_count(page, "band", 1)
    second = _chosen(page)
    page.keyboard.press("e")
    _wait_for_count(page, "erythroblast", 1)
    _wait_for_cells(page, "Band", [first])
    _wait_for_cells(page, "Erythroblast", [second])
    assert page.locator(".wbc-per-hundred tbody tr").inner_text().split()[:2] == ["Erythroblast", "1"]

    # The gallery draws what its own keys say before the server has answered.
    third = next(number for name in CLASS_NAMES for number in _numbers(page, name.capitalize(), ".wbc-waiting"))
    _cell(page, third).hover()
    page.keyboard.press("s")
    _wait_for_cells(page, "Smudge cell", [third])
    _wait_for_count(page, "smudge cell", 1)

    page.locator("h1").click()
    page.keyboard.press("u")
    _wait_for_cells(page, "Smudge cell", [])
    assert page.locator(".wbc-groups section[data-only-filled]").is_hidden()


def _boxes(page: "sync_api.Page") -> int:
    return page.locator(".wbc-box").count()


@DESKTOP_FIRST
def test_a_wrong_choice_is_mended_by_one_click_and_undone_by_another(page: "sync_api.Page", fields: list[Path]):
    page.get_by_text("One cell each", exact=True).click()
    _examine(page, fields, "Picture 1 of 2")
    assert _boxes(page) == 1

    page.get_by_role("button", name="Read them as whole fields").click()
    wait_until_read(page, "Field 3 of 4")
    assert _boxes(page) >= 3
    assert page.get_by_role("button", name="Read them as").count() == 0
    assert page.get_by_role("radio", name="Find out").is_checked()

    page.locator(".wbc-card").get_by_role("button", name="Undo reading otherwise").click()
    page.locator(".wbc-pager", has_text="Picture 1 of 4").wait_for()
    assert _boxes(page) == 1
    sync_api.expect(page.locator(".wbc-cell.wbc-waiting")).to_have_count(2)


def test_the_example_smear_counts_something(shipped: "sync_api.Page"):
    page = shipped
    page.get_by_role("button", name="An example smear").click()
    wait_until_read(page, "of 4")  # a field with a cell that waits is shown, whichever that is
    counted = page.locator(".wbc-differential tfoot td").first
    assert int(counted.inner_text()) >= 2
    assert sum(_count_of(page, name) for name in CLASS_NAMES) == int(counted.inner_text())


def test_the_nearest_reference_cells_stand_beside_the_cell_under_review(shipped: "sync_api.Page", fields: list[Path]):
    page = shipped
    _examine(page, fields, "of 2")
    neighbours = page.locator(".wbc-card .wbc-neighbours li")
    page.locator(".wbc-box:not(.wbc-cut)").first.click()
    sync_api.expect(neighbours).to_have_count(len(CLASS_NAMES))
    assert sorted(neighbours.locator("small").all_inner_texts()) == [f"{it}/known {it}.png" for it in CLASS_NAMES]
    images = neighbours.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert all(width == 96 for width in images)


@pytest.mark.parametrize("desktop", ["light", "dark"], indirect=True)
def test_what_the_browser_prints_is_the_report(desktop: "sync_api.Page", fields: list[Path]):
    page = desktop
    _examine(page, fields, "Field 1 of 2")
    page.get_by_role("textbox", name="Specimen").fill("S 17")
    page.get_by_role("textbox", name="Reviewed by").fill("A. Meyer")
    for count in (1, 2):
        page.locator(".wbc-classes").get_by_role("button", name="Monocyte").click()
        _wait_for_count(page, "monocyte", count)
    page.wait_for_function("[...document.querySelectorAll('.wbc-reviewed img')].every(image => image.naturalWidth)")

    page.emulate_media(media="print")
    for part in (".wbc-intake", ".wbc-pager", ".wbc-viewer", ".wbc-card", ".wbc-legend", ".wbc-exports", "[role=tab]"):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator(".wbc-reviewed:visible").count() == page.locator(".wbc-cell:visible").count() == 2
    # Dark letters, also where the screen is dark; and colours where a word or a dot is nothing without.
    for part in (".wbc-differential td b", ".wbc-notes li", "h1", ".wbc-gallery h2"):
        colour = page.locator(part).first.evaluate("it => getComputedStyle(it).color")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 130, part
    for part in (".wbc-differential .wbc-dot", ".wbc-flag"):
        shown = page.locator(part).first
        assert not shown.count() or shown.evaluate("it => getComputedStyle(it).printColorAdjust") == "exact"
    sheets = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4"))).pages
    text = " ".join(" ".join(sheet.extract_text() for sheet in sheets).split())
    assert len(sheets) == 1
    for said in (RESEARCH_USE, "S 17", "A. Meyer", "Cells by class", "Neutrophil", "95 % limits", "MedlinePlus"):
        assert said in text, said
    assert "6.4" not in text  # an example in an empty field is no count
    assert not any(button in text for button in ("Accept", "Undo", "New specimen", "Select several", "Stop at"))


def _touch(devtools: "sync_api.CDPSession", kind: str, *points: tuple[float, float]) -> None:
    touched = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})


def test_two_fingers_zoom_the_field_and_one_moves_it(browser: "sync_api.Browser", url: str, fields: list[Path]):
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    page.wait_for_selector(".wbc-examples button")
    _examine(page, fields, "Field 1 of 2")
    page.locator(".wbc-stage").scroll_into_view_if_needed()
    stage, chosen = page.locator(".wbc-stage").bounding_box(), _chosen(page)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    devtools = context.new_cdp_session(page)

    def scale() -> float:
        return page.evaluate("visualViewport.scale")

    _touch(devtools, "touchStart", (x - 30, y), (x + 30, y))
    for apart in (40, 50, 60, 75, 90):
        _touch(devtools, "touchMove", (x - apart, y), (x + apart, y))
    _touch(devtools, "touchEnd")
    assert _zoom(page) == pytest.approx(3, abs=0.35)
    assert scale() == 1  # the field was zoomed, not the page

    box = page.locator(".wbc-box").first.locator(".wbc-line")
    before, scrolled = box.bounding_box(), page.evaluate("scrollY")
    _touch(devtools, "touchStart", (x, y))
    for moved in (10, 25, 40):
        _touch(devtools, "touchMove", (x + moved, y + moved / 2))
    _touch(devtools, "touchEnd")
    after = box.bounding_box()
    assert after["x"] - before["x"] == pytest.approx(40, abs=6)
    assert after["y"] - before["y"] == pytest.approx(20, abs=6)
    assert page.evaluate("scrollY") == scrolled
    assert _chosen(page) == chosen

    # Back to the whole field, over which a finger scrolls the page again.
    _touch(devtools, "touchStart", (x - 120, y), (x + 120, y))
    for apart in (90, 60, 30, 15):
        _touch(devtools, "touchMove", (x - apart, y), (x + apart, y))
    _touch(devtools, "touchEnd")
    assert _zoom(page) == 1
    context.close()


def test_what_can_be_taken_away(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    page.get_by_role("textbox", name="Specimen").fill("S 17")
    page.get_by_role("textbox", name="Leucocytes").fill("6,4")
    page.get_by_role("textbox", name="Reviewed by").fill("A. Meyer")
    page.locator(".wbc-differential th", has_text="10⁹/l").wait_for()
    page.locator(".wbc-classes").get_by_role("button", name="Monocyte").click()
    _wait_for_count(page, "monocyte", 1)

    files = {}
    for key in ("PDF", "CSV", "JSON", "FHIR", "ZIP"):
        with page.expect_download() as download:
            page.locator(".wbc-exports").get_by_role("button", name=key).click()
        assert download.value.suggested_filename.startswith("differential-S-17-")
        files[key] = Path(download.value.path()).read_bytes()

    sheet, *_, history = pypdf.PdfReader(io.BytesIO(files["PDF"])).pages
    assert "A. Meyer: reviewed, cell" in history.extract_text()
    assert "S 17" in sheet.extract_text() and "A. Meyer" in sheet.extract_text()
    rows = list(csv.DictReader(io.StringIO(files["CSV"].decode("utf-8-sig"))))
    document = json.loads(files["JSON"])
    assert len(rows) == len(document["cells"]) > 5
    _check_rows(page, rows, document)
    assert [row["class"] for row in rows if row["reviewer"] == "A. Meyer"] == ["monocyte"]
    assert document["differential"]["leucocytes"] == 6.4
    bundle = Bundle.model_validate_json(files["FHIR"])
    assert "DiagnosticReport" in {entry.resource.get_resource_type() for entry in bundle.entry}
    names = zipfile.ZipFile(io.BytesIO(files["ZIP"])).namelist()
    assert [name.split("/")[0] for name in names if name.endswith(".png")] == ["monocyte"]


def _check_rows(page: "sync_api.Page", rows: list[dict[str, str]], document: dict) -> None:
    """Compare what the gallery and the table show with the files, cell by cell and class by class."""
    shown = page.locator(".wbc-cells .wbc-cell").evaluate_all(
        "cells => cells.map(it => [Number(it.dataset.number), it.parentElement.ariaLabel.toLowerCase(), it.className])"
    )
    assert sorted(number for number, _, _ in shown) == [int(row["number"]) for row in rows]
    by_number = {int(row["number"]): row for row in rows}
    for number, column, looks in shown:
        row, cell = by_number[number], document["cells"][number - 1]
        assert f"wbc-{row['state']}" in looks.split() and ("wbc-reviewed" in looks) == bool(row["reviewer"])
        assert (cell["number"], cell["state"], cell["class"] or "") == (number, row["state"], row["class"])
        assert row["state"] != "counted" or row["class"] == column
        assert tuple(cell["box"]) == tuple(int(row[side]) for side in ("x0", "y0", "x1", "y1"))
    table = page.locator(".wbc-differential tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(it => it.firstChild ? it.firstChild.textContent.trim() : ''))"
    )
    counts = [sum(row["state"] == "counted" and row["class"] == name for row in rows) for name in CLASS_NAMES]
    assert [int(row[1]) for row in table] == [it["count"] for it in document["differential"]["shares"]] == counts
    assert [row[2] for row in table] == [f"{it['percent']:.1f}" for it in document["differential"]["shares"]]


@DESKTOP_FIRST
def test_an_export_without_reviewed_cells_says_why(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    page.locator(".wbc-exports").get_by_role("button", name="ZIP").click()
    page.get_by_text("no counted cell is reviewed").wait_for()


@DESKTOP_FIRST
def test_a_broken_file_stops_nothing_and_a_field_counts_once(page: "sync_api.Page", fields: list[Path], notes: Path):
    _examine(page, [notes, *fields], "Field 1 of 2")
    assert "notes.jpg: is not a picture" in page.inner_text(".wbc-remarks")

    _examine(page, fields[:1], "Field 1 of 3")
    page.get_by_text("none of its cells is counted again").wait_for()
    for number in (2, 3):
        page.get_by_label("Next picture").click()
        page.get_by_text(f"Field {number} of 3").wait_for()
    assert page.locator(".wbc-box.wbc-duplicate").count() == page.locator(".wbc-box").count()


def _drop(page: "sync_api.Page", selector: str, files: list[Path]) -> None:
    """Drop files or folders of this machine on a part of the page, as a hand does."""
    box = page.locator(selector).first.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + min(box["height"], 200) / 2}
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def test_files_and_folders_are_dropped_anywhere_and_one_too_large_is_named(
    desktop: "sync_api.Page", fields: list[Path], tmp_path: Path
):
    tab = desktop
    folder = tmp_path / "smear" / "slide 1"
    folder.mkdir(parents=True)
    shutil.copy(fields[0], folder)
    (tmp_path / "smear" / "notes.txt").write_text("no picture")
    with (tmp_path / "smear" / "whole slide.svs").open("wb") as slide:
        slide.truncate(2 * 2**30)
    _drop(tab, ".wbc-many", [tmp_path / "smear"])
    tab.locator(".wbc-pager", has_text="Field 1 of 1").wait_for()
    tab.locator(".wbc-remarks summary", has_text="2 of 3 photographs: 1 cannot be read, 1 left out").click()
    assert "whole slide.svs: is too large (2.0 GiB)" in tab.inner_text(".wbc-remarks")

    _drop(tab, ".wbc-boxes", [fields[1]])
    tab.locator(".wbc-pager", has_text="Field 1 of 2").wait_for()
    _upload(tab, [fields[0], tmp_path / "smear" / "whole slide.svs"])
    tab.locator(".wbc-remarks summary", has_text="2 of 2 photographs: 1 seen before, 1 left out").wait_for()


def test_answers_that_arrive_all_at_once(browser: "sync_api.Browser", url: str, fields: list[Path], notes: Path):
    """As from behind a proxy that holds them back, or in a browser that is still busy with loading the page."""
    for _ in range(3):  # in each the first specimen, whose part of the page is not loaded yet
        tab = browser.new_page(viewport=DESKTOP)
        tab.set_default_timeout(60_000)
        tab.route("**/queue/data?*", lambda route: route.fulfill(response=route.fetch()))
        tab.goto(url)
        tab.wait_for_selector(".wbc-examples button")
        _examine(tab, [notes, *fields], "Field 1 of 2")
        assert tab.locator(".wbc-box").count() >= 3
        assert tab.locator(".wbc-stop").count() == 0 or tab.locator(".wbc-stop").is_hidden()
        tab.close()


def test_a_long_name_pushes_nothing_out_of_sight(page: "sync_api.Page", fields: list[Path], tmp_path: Path):
    """As those of public sets, which have no place to break a line."""
    file = tmp_path / f"{'1b0a6b33-884e-51d9-8fd8-599873e988b9' * 2}.png"
    file.write_bytes(fields[0].read_bytes())
    _examine(page, [file], "Field 1 of 1")
    buttons = page.locator(".wbc-card button").all()
    assert len(buttons) >= 6
    right = page.locator(".wbc-card").bounding_box()
    for button in buttons:
        box = button.bounding_box()
        assert box["x"] + box["width"] <= right["x"] + right["width"]


@DESKTOP_FIRST
def test_a_specimen_is_put_away(page: "sync_api.Page", fields: list[Path]):
    _examine(page, fields, "Field 1 of 2")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="New specimen").click()
    page.locator(".wbc-box").first.wait_for(state="detached")
    _examine(page, fields[1:], "Field 1 of 1")


def test_one_visitor_never_sees_the_specimen_of_another(browser: "sync_api.Browser", url: str, fields: list[Path]):
    tabs = [browser.new_page(viewport=DESKTOP) for _ in range(2)]
    for tab, field in zip(tabs, fields, strict=True):
        tab.goto(url)
        tab.wait_for_selector(".wbc-examples button")
        _examine(tab, [field], "Field 1 of 1")
    for tab, field in zip(tabs, fields, strict=True):
        assert field.name in tab.inner_text(".wbc-pager")
        tab.close()


@DESKTOP_FIRST
def test_the_reading_of_many_pictures_can_be_stopped(page: "sync_api.Page", tmp_path: Path):
    files = []
    for seed in range(120):
        files.append(tmp_path / f"{seed}.png")
        Image.fromarray(paint_field([0, 4], width=320, height=240, seed=seed).image).save(files[-1])
    _upload(page, files)
    page.wait_for_selector(".wbc-box")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("photographs were read").wait_for()
    read = int(re.search(r"of (\d+)", page.inner_text(".wbc-pager"))[1])
    assert 1 <= read < 120


@pytest.mark.parametrize("page", [PHONE], ids=["phone"], indirect=True)
def test_a_model_is_adapted_to_reviewed_cells_and_taken_away(page: "sync_api.Page", fields: list[Path]):
    page.get_by_role("tab", name="Adapt").click()
    button = page.get_by_role("button", name="Adapt the model")
    sync_api.expect(button).to_be_disabled()
    page.get_by_role("tab", name="Specimen").click()
    _examine(page, fields, "Field 1 of 2")
    waiting = page.locator(".wbc-cell.wbc-waiting").count()
    for left in range(waiting - 1, -1, -1):
        name = ("Lymphocyte", "Neutrophil")[left % 2]
        page.locator(".wbc-classes").get_by_role("button", name=name).click()
        page.locator(".wbc-chips b").first.get_by_text(str(left), exact=True).wait_for()
    page.get_by_role("tab", name="Adapt").click()
    page.get_by_text(f"{waiting} reviewed cells").wait_for()

    button.click()

    with page.expect_download(timeout=240_000) as download:
        page.get_by_text("Save the adapted model").click(timeout=240_000)
    assert page.locator(".wbc-result .wbc-status").is_visible()
    assert RESEARCH_USE in page.inner_text(".wbc-result")
    names = {name.split("/", 1)[1] for name in zipfile.ZipFile(download.value.path()).namelist()}
    assert {"model.safetensors", "config.json", "wbc.json", "README.md"} <= names


def test_a_laboratory_is_adapted_to_kept_and_used_after_a_restart(
    browser: "sync_api.Browser", fields: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The whole way, with a model to which every laboratory is another one."""
    predictor, store = _wary_predictor(tmp_path / "tiny"), Laboratories(tmp_path / "laboratories")
    # An untrained network may not gain by an adaptation, and whether it did is not what is looked at here.
    own = adapting.adapt
    monkeypatch.setattr(adapting, "adapt", lambda *given, **more: replace(own(*given, **more), warning=None))
    server = build_page(predictor, laboratories=store)
    page = _open(browser, launch_page(server, "127.0.0.1", None))
    _examine(page, [*fields, _field(tmp_path, 3)], "Field 1 of 3")
    page.get_by_text("look as if they came from another laboratory").wait_for()
    button = page.locator(".wbc-laboratory").get_by_role("button", name="Adapt the model to these photographs")
    sync_api.expect(button).to_be_hidden()
    waiting = page.locator(".wbc-chips b").first
    for left in range(int(waiting.inner_text()) - 1, -1, -1):
        page.locator(".wbc-classes").get_by_role("button", name=("Lymphocyte", "Neutrophil")[left % 2]).click()
        waiting.get_by_text(str(left), exact=True).wait_for()
    sync_api.expect(button).to_contain_text("that you reviewed")
    with adapting.adaptation_turn(lambda step, share: None, lambda: False):  # of another visitor
        button.click()
        page.get_by_text("Waiting for another adaptation: one runs at a time").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("Cancelled. The model is as it was before.").wait_for()
    button.click()
    page.get_by_label("Keep this laboratory as").fill("Ward 3, MGG")
    page.get_by_label("and keep the cells that I reviewed").check()
    page.get_by_role("button", name="Keep", exact=True).click()
    page.get_by_text("Counted under Ward 3, MGG.").wait_for()
    reviewed = len(store.list_cells("Ward 3, MGG"))
    assert reviewed >= 4
    page.close()
    server.close()

    server = build_page(_wary_predictor(tmp_path / "tiny"), laboratories=Laboratories(store.folder))
    page = _open(browser, launch_page(server, "127.0.0.1", None))
    _examine(page, _field(tmp_path, 4), "Field 1 of 1")
    page.get_by_label("Laboratory", exact=True).click()
    page.get_by_role("option", name="Ward 3, MGG").click()
    page.get_by_role("button", name=f"with {reviewed} cells kept of Ward 3, MGG").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    record = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert record["model"]["name"] == "tiny, adapted to Ward 3, MGG"
    assert record["model"]["version"] == store.show("Ward 3, MGG").version
    page.close()
    server.close()


def _open(browser: "sync_api.Browser", url: str) -> "sync_api.Page":
    page = browser.new_page(viewport=DESKTOP)
    page.set_default_timeout(60_000)
    page.goto(url)
    page.wait_for_selector(".wbc-examples button")
    return page


def _field(folder: Path, seed: int) -> Path:
    file = folder / f"field {seed}.png"
    Image.fromarray(paint_field([0, 1, 2, 4], width=480, height=360, seed=seed).image).save(file)
    return file


def _wary_predictor(folder: Path) -> Predictor:
    """A network without training, to which every laboratory is another one, and which is sure of nothing."""
    if not folder.exists():
        network = write_tiny_model(folder)
        features = np.random.default_rng(0).random((20, sum(network.config.hidden_sizes[-3:])), dtype=np.float32)
        distance = LaboratoryDistance(np.zeros(20, np.int8), (1.0,), 1e-6)
        score = OutOfDistributionScore.fit(features)
        Calibration(
            1.0, 1.0, False, 10.0, 20, "painted", out_of_distribution_score=score, laboratory_distance=distance
        ).save(folder)
    return Predictor.from_pretrained(folder, "torch")


def test_the_model_tab(page: "sync_api.Page"):
    page.get_by_role("tab", name="Model").click()
    page.get_by_text("Tells apart", exact=True).wait_for()
    assert "tiny" in page.inner_text(".wbc-model")


# What Ctrl+V does to a page: a browser without a screen has no clipboard of pictures.
PASTE_JS = """
([name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/png'}));
    document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true}));
}
"""
