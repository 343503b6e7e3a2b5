"""Who may ask the page, from where, and how much they may send: by requests to an application behind `Access`."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from gradio.route_utils import CustomCORSMiddleware
from starlette.testclient import TestClient

from wbc_hf.errors import WbcError
from wbc_hf.web import access as access_module
from wbc_hf.web import quotas
from wbc_hf.web.access import Access, check_host, check_origin
from wbc_hf.web.users import Users

OWN = "http://testserver"
FOREIGN = "https://evil.example"
FILE = {"files": ("cell.png", b"x" * 1000)}


@contextmanager
def served(users: Users | None = None, **options: Any) -> Iterator[TestClient]:
    """A client of an application that is put together as Gradio puts its own together."""
    access = Access(users, **({"hosts": ["testserver"]} | options))
    app = FastAPI(lifespan=access.lifespan)
    app.add_middleware(CustomCORSMiddleware)
    app.cookie_id, app.tokens, app.reads = "id", {}, []

    @app.post("/gradio_api/queue/join")
    @app.post("/gradio_api/upload")
    @app.post("/gradio_api/mcp")
    async def read(request: Request) -> int:
        app.reads.append(len(await request.body()))
        return app.reads[-1]

    @app.post("/login")
    async def login() -> JSONResponse:
        app.tokens["ticket"] = "ana"
        response = JSONResponse({"success": True})
        response.set_cookie("access-token-id", "ticket", httponly=True, samesite="none", secure=True)
        response.set_cookie("access-token-unsecure-id", "ticket", httponly=True)
        return response

    @app.get("/logout")
    async def logout() -> JSONResponse:
        response = JSONResponse({})
        response.delete_cookie("access-token-id", path="/")
        return response

    @app.get("/{path:path}")
    async def get(path: str) -> PlainTextResponse:
        if path.startswith("broken"):
            raise OSError(path)
        return PlainTextResponse(path)

    with TestClient(app, base_url=OWN, raise_server_exceptions=False) as client:
        client.access = access
        yield client


# ---- names of the page, and other sites


@pytest.mark.parametrize(
    "host", ["testserver", "TESTSERVER:80", "localhost:7860", "127.0.0.1", "10.0.0.7:1", "[::1]:7860"]
)
def test_names_by_which_the_page_may_be_reached(host: str):
    with served() as client:
        assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("name", ["host", "x-forwarded-host"])
@pytest.mark.parametrize(
    "host", ["evil.example", "testserver.evil.example:7860", "127.0.0.1.evil.example", "[", "a b"]
)
def test_other_names_are_refused(host: str, name: str):
    with served() as client:
        answer = client.get("/", headers={name: host})
        assert answer.status_code == 421 and "--allow-host" in answer.json()["detail"]


def test_pages_of_the_same_site_may_ask():
    for headers in (
        {},
        {"origin": OWN},
        {"origin": "https://lab.example", "x-forwarded-host": "lab.example"},  # a proxy that keeps its own Host
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ):
        with served(hosts=["testserver", "lab.example"]) as client:
            answer = client.post("/gradio_api/queue/join", headers=headers)
            assert answer.status_code == 200, headers
            assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://testserver:1", "http://testserver.evil.example", ""])
def test_other_sites_may_neither_ask_nor_prepare_to(origin: str):
    with served() as client:
        for answer in (
            client.post("/gradio_api/queue/join", headers={"origin": origin}),
            client.get("/config", headers={"origin": origin}),
            client.options("/config", headers={"origin": origin, "access-control-request-method": "POST"}),
        ):
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert client.app.reads == []


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [("cross-site", "no-cors", 403), ("same-site", "no-cors", 403), ("cross-site", "navigate", 200)],
)
def test_other_sites_may_link_here_and_not_embed(site: str, mode: str, status: int):
    with served() as client:
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
        assert client.get("/gradio_api/file=a.png", headers=headers).status_code == status


def test_a_site_that_is_allowed_may_ask_and_show_the_page():
    with served(origins=["https://intranet.example"]) as client:
        headers = {"origin": "https://intranet.example"}
        before = client.options("/config", headers=headers | {"access-control-request-method": "POST"})
        answer = client.post("/gradio_api/queue/join", headers=headers)
        for it in (before, answer):
            assert it.status_code == 200
            assert it.headers["access-control-allow-origin"] == "https://intranet.example"
            assert it.headers["access-control-allow-credentials"] == "true"
        assert "frame-ancestors 'self' https://intranet.example" in answer.headers["content-security-policy"]
        assert "x-frame-options" not in answer.headers
        assert client.post("/gradio_api/queue/join", headers={"origin": FOREIGN}).status_code == 403


@pytest.mark.parametrize("given", ["https://Lab.example/", "http://10.0.0.5:8080"])
def test_origins(given: str):
    assert check_origin(given) == given.lower().rstrip("/")
    assert check_host("Lab.example") == "lab.example"


@pytest.mark.parametrize(
    "given", ["", "*", "null", "lab.example", "ftp://lab.example", "https://lab.example/page", "https://"]
)
def test_what_is_no_origin_is_named(given: str):
    with pytest.raises(WbcError, match="not the origin of a site"):
        check_origin(given)


@pytest.mark.parametrize("given", ["", "https://lab.example", "lab.example:443", "lab.example/", "["])
def test_what_is_no_name_of_a_host_is_named(given: str):
    with pytest.raises(WbcError, match="not the name of a host alone"):
        check_host(given)


def test_every_answer_bounds_what_a_browser_does_with_it():
    with served() as client:
        for answer in (client.get("/"), client.get("/", headers={"host": "evil.example"}), client.get("/broken")):
            assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
            assert "connect-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["x-frame-options"] == "SAMEORIGIN"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


# ---- cookies


@pytest.mark.parametrize(
    ("https", "in_space", "same_site"), [(False, False, "Lax"), (True, False, "Lax"), (True, True, "None")]
)
def test_cookies(https: bool, in_space: bool, same_site: str):
    headers = {"x-forwarded-proto": "https"} if https else {}
    with served(in_space=in_space) as client:
        for answer in (client.post("/login", headers=headers), client.get("/logout", headers=headers)):
            cookies = answer.headers.get_list("set-cookie")
            assert cookies
            for cookie in cookies:
                assert f"SameSite={same_site}" in cookie and "HttpOnly" in cookie and "Path=/" in cookie
                assert ("Secure" in cookie) == https
        assert "Max-Age=0" in cookies[0]


# ---- who is signed in


def basic(words: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(words.encode()).decode()}


@pytest.fixture
def guarded() -> Iterator[TestClient]:
    with served(Users([("ana", "secret")])) as client:
        yield client


@pytest.mark.parametrize("path", ["queue/join", "upload", "mcp", "mcp/"])
def test_nothing_is_read_of_who_is_not_signed_in(guarded: TestClient, path: str):
    for headers in ({}, basic("ana:wrong"), {"cookie": "access-token-id=other"}):
        answer = guarded.post(f"/gradio_api/{path}", headers=headers, content=b"x" * 1000)
        assert answer.status_code == 401 and "/login" in answer.json()["detail"]
    assert guarded.app.reads == []


@pytest.mark.parametrize(
    "path", ["gradio_api/mcp/schema", "gradio_api/heartbeat/one", "gradio_api/file=a", "monitoring/a"]
)
def test_nothing_is_told_to_who_is_not_signed_in(guarded: TestClient, path: str):
    assert guarded.get(path).status_code == 401
    assert guarded.get("/").status_code == guarded.get("/assets/index.js").status_code == 200


def test_who_signed_in_may_ask(guarded: TestClient):
    assert guarded.post("/login", data={"username": "ana"}).status_code == 200
    assert guarded.post("/gradio_api/queue/join", content=b"abc").json() == 3


def test_programs_may_sign_in_by_header(guarded: TestClient):
    assert guarded.post("/gradio_api/mcp", headers=basic("ana:secret"), content=b"abc").json() == 3
    assert list(guarded.app.tokens.values()) == ["ana"]


# ---- how much may be sent


@pytest.mark.parametrize("said", [True, False], ids=["said", "in parts"])
@pytest.mark.parametrize(
    ("path", "limit"), [("gradio_api/queue/join", "MAX_BODY"), ("gradio_api/upload", "MAX_UPLOAD")]
)
def test_bodies_are_bounded(path: str, limit: str, said: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access_module, limit, 10_000)
    with served() as client:
        for size, status in ((10_000, 200), (10_001, 413)):
            content = b"x" * size if said else (b"x" * part for part in (5000, size - 5000))
            assert client.post(path, content=content).status_code == status
        assert client.app.reads == [10_000]


def test_a_visitor_may_upload_so_much_in_an_hour(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas, "MAX_BYTES", 3000)
    now = [0.0]
    monkeypatch.setattr(quotas.time, "monotonic", lambda: now[0])
    with served() as client:
        assert client.post("/gradio_api/upload", content=b"x" * 2000).status_code == 200
        refused = client.post("/gradio_api/upload", content=b"x" * 2000)
        assert refused.status_code == 429 and "Try again later" in refused.json()["detail"]
        now[0] = 3700.0
        assert client.post("/gradio_api/upload", content=b"x" * 2000).status_code == 200
        assert client.app.reads == [2000, 2000]


def test_a_visitor_may_upload_so_many_files_in_an_hour(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas, "MAX_FILES", 5)
    with served() as client:
        upload = [("files", (f"{number}.png", b"content")) for number in range(3)]
        assert client.post("/gradio_api/upload", files=upload).status_code == 200
        assert client.post("/gradio_api/upload", files=upload).status_code == 429
        other = quotas.UploadQuotas()
        other.add("ana", 10, 6)
        assert other.problem("ana") and not other.problem("ben")


# ---- tabs, and what goes wrong


def test_open_tabs_are_known():
    access = Access()
    seen = []

    async def page(scope: dict, receive: object, send: object) -> None:
        seen.append(dict(access.open_tabs))

    async def ask() -> None:
        app = FastAPI()
        app.middleware_stack = page
        async with access.lifespan(app):
            scope = {"type": "http", "method": "GET", "scheme": "http", "client": ("10.0.0.7", 1)}
            headers = [(b"host", b"localhost")]
            await access(scope | {"path": "/gradio_api/heartbeat/one", "headers": headers}, None, None)

    asyncio.run(ask())
    assert seen == [{"one": 1}]
    assert not access.open_tabs


def test_what_goes_wrong_is_logged_without_the_names_of_files(caplog: pytest.LogCaptureFixture):
    with served() as client:
        assert client.get("/broken/Mrs Smith.png").status_code == 500
    assert "Mrs Smith" not in caplog.text
    assert "OSError" in caplog.text and "test_access.py" in caplog.text
