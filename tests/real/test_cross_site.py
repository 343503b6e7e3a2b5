"""What another site can do with the page through the browser of somebody who is signed in."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.adapted_models import build_tiny_model
from wbc_hf.data import paint_cells
from wbc_hf.inference import Predictor
from wbc_hf.web import build_page, launch_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Names of sites that are no aliases of this machine, so that they are sites of their own.
RULES = "MAP *.example 127.0.0.1"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--host-resolver-rules={RULES}"]
READ = "url => fetch(url, {credentials: 'include'}).then(it => it.text()).catch(error => `refused: ${error.name}`)"
# Neither asks for leave before: what forms can send.
SEND = """([url, body]) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body,
    headers: {'Content-Type': 'text/plain'}}).then(() => 'sent').catch(() => 'refused')"""
FRAME = """url => new Promise(done => {
    const frame = document.createElement('iframe');
    frame.onload = () => done('loaded');
    frame.src = url;
    document.body.append(frame);
    setTimeout(done, 5000, 'late');
})"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine"),
]


class Empty(BaseHTTPRequestHandler):
    """A site with one page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A site</title><body></body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """Port of a site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture(scope="module")
def address(site: int) -> Iterator[str]:
    """URL of a page for users, under a name, that one other site may use."""
    page = build_page(Predictor(*build_tiny_model(), name="tiny"))
    origins = [f"http://friend.example:{site}"]
    url = launch_page(page, "127.0.0.1", None, users=[("ana", "secret")], hosts=["lab.example"], origins=origins)
    yield f"http://lab.example:{urlsplit(url).port}/"
    page.close()


@pytest.fixture
def visitor(address: str, tmp_path: Path) -> Iterator["sync_api.BrowserContext"]:
    """The browser of somebody who has just signed in, and had a cell classified without any complaint of it."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.get_by_label("username").fill("ana")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector(".wbc-examples button")

        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.reload()
        page.wait_for_selector(".wbc-examples button")
        Image.fromarray(paint_cells([1], size=48, seed=3)[0]).save(tmp_path / "cell.png")
        page.get_by_role("tab", name="One cell").click()
        page.locator(".wbc-picture input[type=file]").set_input_files(tmp_path / "cell.png")
        page.wait_for_selector(".wbc-answer")
        assert complaints == []
        yield context
        browser.close()


def test_another_site_reads_sends_and_shows_nothing(
    visitor: "sync_api.BrowserContext", address: str, site: int, monkeypatch: pytest.MonkeyPatch
):
    joined: list[str] = []
    monkeypatch.setattr("gradio.queueing.Queue.push", lambda *_, **__: joined.append("event"))
    other = visitor.new_page()
    other.goto(f"http://evil.example:{site}/")
    assert other.evaluate(READ, f"{address}config") == "refused: TypeError"
    assert other.evaluate(READ, f"{address}gradio_api/info") == "refused: TypeError"
    body = '{"data": [], "fn_index": 0, "session_hash": "abc"}'
    for path in ("gradio_api/queue/join", "gradio_api/call/model", "logout"):
        other.evaluate(SEND, [f"{address}{path}", body])
    assert joined == []
    other.evaluate(FRAME, address)
    assert all(frame.locator(".wbc-examples").count() == 0 for frame in other.frames)
    # A link is followed, and whoever is signed in stays so.
    other.goto(address)
    other.wait_for_selector(".wbc-examples button", timeout=60_000)


def test_a_site_that_is_allowed_reads_and_shows_the_page(visitor: "sync_api.BrowserContext", address: str, site: int):
    other = visitor.new_page()
    other.goto(f"http://friend.example:{site}/")
    # Without the cookie, which stays on its own site: whoever is to sign in there does so by header.
    assert "Not authenticated" in other.evaluate(READ, f"{address}config")
    with_password = READ.replace("credentials: 'include'", "headers: {Authorization: 'Basic ' + btoa('ana:secret')}")
    assert '"components"' in other.evaluate(with_password, f"{address}config")
    assert other.evaluate(FRAME, address) == "loaded"
    framed = next(frame for frame in other.frames if frame.url.startswith(address))
    framed.get_by_role("button", name="Login").wait_for(timeout=60_000)
