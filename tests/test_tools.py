"""The endpoints as tools of language models, asked by a real MCP client."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.adapted_models import write_tiny_model
from wbc_hf.adaptation import Laboratories
from wbc_hf.data import paint_cells, paint_field
from wbc_hf.inference import Predictor, ReferenceCells
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.web import build_page, launch_page
from wbc_hf.web.access import SIGN_IN

mcp = pytest.importorskip("mcp", reason="mcp is not installed: pip install -e .[mcp]")
streamable_http = pytest.importorskip("mcp.client.streamable_http")

USER = ("ana", "secret")
BASIC = {"Authorization": "Basic " + base64.b64encode(":".join(USER).encode()).decode()}


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "cell.png"
    Image.fromarray(paint_cells([1], size=48, seed=3)[0]).save(file)
    return file


@pytest.fixture(scope="module", params=[(), (USER,)], ids=["open", "auth"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, known = tmp_path_factory.mktemp("models") / "tiny", tmp_path_factory.mktemp("known")
    write_tiny_model(folder)
    predictor = Predictor.from_pretrained(folder, "torch")
    for name, pixels in zip(CLASS_NAMES, paint_cells(range(5), size=40, seed=4), strict=True):
        (known / name).mkdir()
        Image.fromarray(pixels).save(known / name / "1.png")
    page = build_page(
        predictor,
        references=ReferenceCells.from_folder(known, predictor),
        laboratories=Laboratories(tmp_path_factory.mktemp("laboratories")),
    )
    yield launch_page(page, "127.0.0.1", None, users=request.param, mcp=True)
    page.close()


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[httpx.Client]:
    """Whoever is signed in, where users have to be."""
    with httpx.Client(base_url=url) as client:
        client.post("login", data=dict(zip(("username", "password"), USER, strict=True)))
        yield client


@asynccontextmanager
async def _session(url: str, headers: dict[str, str]):
    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as client,
        streamable_http.streamable_http_client(f"{url}gradio_api/mcp/", http_client=client) as (reading, writing, _),
        mcp.ClientSession(reading, writing) as session,
    ):
        await session.initialize()
        yield session


def _call(url: str, calls: list[tuple[str, dict]], headers: dict[str, str] | None = None) -> list:
    async def call_all() -> list:
        async with _session(url, headers or {}) as session:
            return [await session.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(call_all())


def _data_url(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _upload(browser: httpx.Client, file: Path) -> str:
    """The URL of an uploaded file, as Gradio's own `upload_file_to_gradio` gives it."""
    with file.open("rb") as content:
        path = browser.post("gradio_api/upload", files={"files": content}).raise_for_status().json()[0]
    return f"{browser.base_url}gradio_api/file={path}"


def test_every_tool_answers(url: str, browser: httpx.Client, cell: Path, tmp_path: Path):
    Image.fromarray(paint_field([1, 2, 3, 4], width=480, height=360, seed=8).image).save(tmp_path / "field.png")
    picture, field = _data_url(cell), _upload(browser, tmp_path / "field.png")
    calls = {
        "classify": {"picture": picture},
        "classify_many": {"pictures": [picture, _upload(browser, cell)]},
        "explain": {"picture": picture, "label": "monocyte"},
        "nearest": {"picture": picture, "number": 2},
        "count": {"pictures": [field], "corrections": {"1": "monocyte"}, "reviewer": "Mallory"},
        "export": {"form": "csv", "pictures": [field]},
        "model": {},
        "types": {},
        "laboratories": {},
    }
    answers = dict(zip(calls, _call(url, list(calls.items()), BASIC), strict=True))

    assert [name for name, answer in answers.items() if answer.isError] == []
    records = {name: json.loads(answers[name].content[0].text) for name in calls if name not in ("explain", "export")}
    assert records["classify"]["file"] == "picture 1"
    assert [record["file"] for record in records["classify_many"]] == ["picture 1", "cell.png"]
    assert answers["explain"].content[0].mimeType == "image/png"
    assert len(records["nearest"]) == 2
    assert records["count"]["differential"]["total"] == 1
    signed_in = httpx.get(f"{url}gradio_api/info").status_code == 401
    assert records["count"]["reviewers"] == ["ana" if signed_in else "Mallory"]
    assert records["model"]["labels"] == list(CLASS_NAMES)
    assert browser.get(answers["export"].content[0].text).content.decode("utf-8-sig").startswith("number,picture")


def test_an_adaptation_as_a_tool_says_what_is_missing(url: str, cell: Path):
    (answer,) = _call(url, [("adapt", {"pictures": [_data_url(cell)], "show": "cell", "laboratory": "W 3"})], BASIC)
    assert answer.isError
    assert "Too few cells: 1, of which are reviewed: none." in answer.content[0].text


def test_tools_read_no_file_of_the_server(url: str, tmp_path: Path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    calls = [
        ("classify", {"picture": str(secret)}),
        ("classify", {"picture": f"{url}gradio_api/file={secret}"}),
        ("classify_many", {"pictures": [file]}),
        ("count", {"pictures": [str(secret)], "corrections": file}),
    ]
    assert all(answer.isError for answer in _call(url, calls, BASIC))


def test_who_may_use_the_tools(url: str, browser: httpx.Client):
    cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ana:other").decode()}
    assert not any(_call(url, [("model", {})], headers)[0].isError for headers in (BASIC, cookie))
    if httpx.get(f"{url}gradio_api/info").status_code == 401:
        for headers in (wrong, {}):
            for path in ("", "schema", "sse"):
                answer = httpx.get(f"{url}gradio_api/mcp/{path}", headers=headers)
                assert (answer.status_code, answer.json()["detail"]) == (401, SIGN_IN)
    else:
        assert not any(_call(url, [("model", {})], headers)[0].isError for headers in (wrong, {}))
