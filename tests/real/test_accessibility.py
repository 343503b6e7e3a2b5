"""Every view of the page under axe-core, in light and dark, on a desktop and on a phone."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from tests.real.conftest import DESKTOP, PHONE, opened, wait_until_read

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed: pip install -e .[dev]")

pytestmark = pytest.mark.browser

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js")


VIEWS = {
    f"{scheme}-{name}": (scheme, viewport)
    for scheme in ("light", "dark")
    for name, viewport in (("desktop", DESKTOP), ("phone", PHONE))
}


@pytest.fixture(
    # What is dark is so on both, and what a phone shows is that in both.
    params=[
        pytest.param(view, id=name, marks=pytest.mark.long if name == "dark-phone" else ())
        for name, view in VIEWS.items()
    ]
)
def page(
    request: pytest.FixtureRequest, context: "sync_api.BrowserContext", shipped_url: str
) -> Iterator["sync_api.Page"]:
    scheme, viewport = request.param
    with opened(context, shipped_url, viewport=viewport, scheme=scheme) as page:
        assert page.locator("body.dark").count() == (scheme == "dark")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        yield page


def broken_rules(page: "sync_api.Page") -> list[str]:
    """What axe-core finds in the view that is shown, Gradio's own widgets included."""
    page.wait_for_timeout(400)  # until what fades in is there
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html'][:200]} ({' '.join(map(str, node['target']))}): {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def test_a_specimen(page: "sync_api.Page", fields: list[Path]):
    assert broken_rules(page) == []
    page.locator(".tabitem:visible input[type=file]").first.set_input_files([*fields, fields[0]])
    wait_until_read(page, "of 3")
    page.locator(".wbc-remarks").wait_for()
    page.locator(".wbc-classes button").first.click()
    page.locator(".wbc-reviewed").first.wait_for()
    assert broken_rules(page) == []

    page.get_by_text("Keys", exact=True).click()
    page.locator(".wbc-card summary").click()
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Missed cell").click()
    page.locator(".wbc-cell[draggable=true]").first.click(modifiers=["Control"])
    page.get_by_text("1 cell selected").wait_for()
    assert broken_rules(page) == []
    page.keyboard.press("Escape")

    page.get_by_role("textbox", name="Leucocytes").fill("many")
    page.get_by_text("many: not a number").wait_for()
    page.locator(".wbc-exports").get_by_role("button", name="PDF").scroll_into_view_if_needed()
    assert broken_rules(page) == []


def test_one_cell(page: "sync_api.Page"):
    page.get_by_role("tab", name="One cell").click()
    page.get_by_role("button", name="Monocyte").wait_for()
    assert broken_rules(page) == []
    page.get_by_role("button", name="Monocyte").click()
    page.locator(".wbc-heat img").wait_for()
    assert broken_rules(page) == []


@pytest.mark.parametrize("name", ["Adapt", "Model"])
def test_the_other_tabs(page: "sync_api.Page", name: str):
    page.get_by_role("tab", name=name).click()
    page.locator(".tabitem:visible").wait_for()
    assert broken_rules(page) == []
    if name == "Model":
        page.get_by_text("The model's card").click()
        assert broken_rules(page) == []
