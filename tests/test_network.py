"""The page and its endpoints as another machine on the network meets them."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from tests.adapted_models import build_tiny_model
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor
from wbc_hf.web import build_page, launch_page, users

MANY = 8
LARGE = 24_000_000  # pixels


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*build_tiny_model(), name="tiny")


@pytest.fixture
def guarded(predictor: Predictor) -> Iterator[tuple[str, object]]:
    """A page for users who sign in: its URL, and its application."""
    page = build_page(predictor)
    yield launch_page(page, "127.0.0.1", None, users=[("ana", "secret")], hosts=["lab.example"], mcp=True), page.app
    page.close()


def paths_of(app: object, method: str) -> set[str]:
    """Paths of an application's routes, in which a name stands for each parameter."""
    routers = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    routes = [route for it in (app, *routers) for route in it.routes if method in (getattr(route, "methods", 0) or ())]
    return {route.path.replace("{", "").replace("}", "") for route in routes}


def announce(url: str, path: str, size: int) -> str:
    """The first line of the answer to a request of which only the headers are sent."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        lines = [f"POST {path} HTTP/1.1", f"Host: {place.netloc}", f"Content-Length: {size}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return connection.recv(1000).decode().splitlines()[0]


def test_no_body_is_awaited_of_who_is_not_signed_in(guarded: tuple[str, object]):
    url, app = guarded
    paths = paths_of(app, "POST") | {"/gradio_api/mcp/", "/gradio_api/mcp/messages/"}
    assert "/gradio_api/queue/join" in paths
    for path in sorted(paths - {"/login", "/login/"}):
        assert announce(url, path, 200 * 2**20).split()[1] == "401", path
    assert announce(url, "/login", 200 * 2**20).split()[1] == "413"


def test_nothing_of_a_session_is_told_to_who_is_not_signed_in(guarded: tuple[str, object]):
    url, app = guarded
    paths, told = paths_of(app, "GET"), set()
    assert "/gradio_api/heartbeat/session_hash" in paths
    for path in paths:
        with httpx.stream("GET", url.rstrip("/") + path, timeout=30) as answer:
            if answer.status_code == 200:
                told.add(path.rstrip("/") or "/")
    assert told <= {
        *("/", "/theme.css", "/gradio_api/theme.css", "/robots.txt", "/manifest.json", "/favicon.ico", "/pwa_icon"),
        *("/gradio_api/startup-events", "/gradio_api/user", "/gradio_api/token", "/gradio_api/app_id"),
    }
    assert httpx.get(f"{url}gradio_api/token").json() == {"token": None, "user": None}


def test_cookies_stay_on_the_site(guarded: tuple[str, object]):
    url, _ = guarded
    for scheme in ("http", "https"):
        headers = {"x-forwarded-proto": scheme, "x-forwarded-host": "lab.example"}
        answer = httpx.post(f"{url}login", data={"username": "ana", "password": "secret"}, headers=headers)
        cookies = answer.raise_for_status().headers.get_list("set-cookie")
        assert len(cookies) == 2
        for cookie in cookies:
            assert "SameSite=Lax" in cookie and "HttpOnly" in cookie
            assert ("Secure" in cookie) == (scheme == "https")


def test_wrong_passwords_are_slowed(guarded: tuple[str, object], monkeypatch: pytest.MonkeyPatch):
    url, _ = guarded
    monkeypatch.setattr(users, "FIRST_WAIT", 0.4)
    started = time.monotonic()
    for password in "abc":
        assert httpx.post(f"{url}login", data={"username": "ana", "password": password}).status_code == 400
    assert time.monotonic() - started > 0.4 + 0.8


def test_a_name_that_is_not_the_pages_and_an_origin_that_is_none(predictor: Predictor):
    page = build_page(predictor)
    with pytest.raises(WbcError, match="not the origin of a site"):
        launch_page(page, "127.0.0.1", None, origins=["*"])
    url = launch_page(page, "127.0.0.1", None)
    try:
        assert httpx.get(url, headers={"host": "evil.example"}).status_code == 421
        assert httpx.post(f"{url}gradio_api/upload", headers={"origin": "https://evil.example"}).status_code == 403
    finally:
        page.close()


def test_a_space_is_shown_in_a_frame_of_the_hub(predictor: Predictor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPACE_ID", "Owner/white_cells")
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    page = build_page(predictor)
    url = launch_page(page, "127.0.0.1", None)
    try:
        answer = httpx.get(url, headers={"host": "owner-white-cells.hf.space"}).raise_for_status()
        assert "frame-ancestors 'self' https://huggingface.co" in answer.headers["content-security-policy"]
        assert "x-frame-options" not in answer.headers
    finally:
        page.close()
        monkeypatch.delenv("FORWARDED_ALLOW_IPS")


def test_a_cell_is_answered_while_another_visitor_has_large_pictures_read(predictor: Predictor, tmp_path: Path):
    Image.new("RGB", (LARGE // 4000, 4000), "white").save(tmp_path / "large.png", compress_level=1)
    Image.fromarray(paint_cells([1], size=48, seed=3)[0]).save(tmp_path / "cell.png")
    page = build_page(predictor)
    url = launch_page(page, "127.0.0.1", None)
    try:
        ours, theirs = (Client(url, verbose=False, analytics_enabled=False) for _ in range(2))
        large = [handle_file(tmp_path / "large.png")] * MANY
        job = theirs.submit(large, api_name="/classify_many")
        waited = []
        for _ in range(3):
            started = time.monotonic()
            ours.predict(handle_file(tmp_path / "cell.png"), api_name="/classify")
            waited.append(time.monotonic() - started)
        assert not job.done()
        assert min(waited) < 2
        while not (said := job.status().progress_data):
            assert not job.done()
            time.sleep(0.02)
        assert said[0].length == MANY
        assert len(job.result(timeout=200)) == MANY
    finally:
        page.close()
