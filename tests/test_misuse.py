"""What programs send by mistake is answered by a sentence that names it, and the page serves on."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.adapted_models import write_tiny_model
from wbc_hf.adaptation import Laboratories
from wbc_hf.data import paint_cells
from wbc_hf.inference import Predictor
from wbc_hf.web import build_page, launch_page

JSON = {"content-type": "application/json"}
FILE = {"meta": {"_type": "gradio.FileData"}}
ANYWHERE = [
    "\ud800",
    {"path": "/etc/passwd"} | FILE,
    {"path": "x.jpg", "meta": 5},
    {"path": "\ud800"} | FILE,
    {"path": "a\x00b"} | FILE,
    {"path": "http://127.0.0.1:9/cell.jpg"} | FILE,
    ["x.jpg"],
    [[1]],
    {"a": {"b": [{}]}},
    "x" * 100_000,
]
# Right values, and wrong ones beside those of `ANYWHERE`. None is left out where it means "not given".
NO_FILE = [
    "x.jpg",
    None,
    5,
    True,
    {},
    {"path": 5},
    {"path": "x.jpg"},
    "data:image/png;base64,???",
    "/gradio_api/file=/etc/passwd",
]
NO_TEXT = [5, True, 6.4, {}, [], "a\nb"]
NO_NUMBER = [True, "6.4", "", [], {}, -1, 1e6, "five"]
NO_CORRECTIONS = ["monocyte", 5, True, ["monocyte"], {"one": "monocyte"}, {"1": 4}, {"1": "blast"}, {"99": None}]
NO_CORRECTIONS += [{"9" * 5000: None}, {"1": "\ud800"}, {"\ud800": None}, {"²": None}]
NO_FLAG = ["yes", 1, 0, "true", [], {}]
NO_CHOICE = ["smear", 5, None, [], {}, True, ""]

SPECIMEN = {
    "show": ("cell", NO_CHOICE),
    "name": ("S 1", NO_TEXT),
    "leucocytes": (6.4, NO_NUMBER),
    "corrections": ({"1": "monocyte"}, NO_CORRECTIONS),
    "reviewer": ("Ana", NO_TEXT),
    "laboratory": ("", [*NO_TEXT, "Nowhere", "..", "x" * 61]),
}
ENDPOINTS = {
    "classify": {"picture": ("PICTURE", [*NO_FILE, [], "LIST"])},
    "classify_many": {"pictures": ("LIST", [*NO_FILE, [], [None]])},
    "explain": {"picture": ("PICTURE", [*NO_FILE, "LIST"]), "label": ("monocyte", [*NO_TEXT, "blast"])},
    "nearest": {"picture": ("PICTURE", NO_FILE), "number": (5, [*NO_NUMBER, None, 0, 101, 2.5])},
    "count": {"pictures": ("LIST", [*NO_FILE, []])} | SPECIMEN,
    "export": {"form": ("csv", NO_CHOICE), "pictures": ("LIST", [*NO_FILE, []])} | SPECIMEN,
    "adapt": {
        "pictures": ("LIST", [*NO_FILE, []]),
        "show": ("cell", NO_CHOICE),
        "laboratory": ("Ward 3", NO_TEXT),
        "corrections": ({"1": "monocyte"}, NO_CORRECTIONS),
        "keep_cells": (False, NO_FLAG),
    },
}
CALLS = [
    (endpoint, parameter, wrong)
    for endpoint, parameters in ENDPOINTS.items()
    for parameter, (_, mistakes) in parameters.items()
    for wrong in (*ANYWHERE, *mistakes)
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    laboratories = Laboratories(tmp_path_factory.mktemp("laboratories"))
    page = build_page(Predictor.from_pretrained(folder, "torch"), laboratories=laboratories)
    yield launch_page(page, "127.0.0.1", None)
    page.close()


@pytest.fixture(scope="module")
def upload(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = tmp_path_factory.mktemp("pictures") / "cell.png"
    Image.fromarray(paint_cells([1], size=48, seed=3)[0]).save(file)
    with file.open("rb") as content:
        path = httpx.post(f"{url}gradio_api/upload", files={"files": content}).json()[0]
    return {"path": path, "orig_name": "cell.png"} | FILE


def _call(client: httpx.Client, endpoint: str, values: list) -> tuple[str, object]:
    """The kind of the answer, "complete" or "error", and what it says."""
    # httpx would refuse to send half a character; a program can.
    asked = client.post(f"call/{endpoint}", content=json.dumps({"data": values}), headers=JSON)
    assert asked.status_code == 200, asked.text
    answer = client.get(f"call/{endpoint}/{asked.json()['event_id']}", timeout=60).text
    kind, data = (line.partition(": ")[2] for line in answer.split("\n")[-4:-2])
    return kind, json.loads(data)


def _values(endpoint: str, upload: dict, **wrong: object) -> list:
    stand_ins = {"PICTURE": upload, "LIST": [upload]}
    values = [wrong.get(name, right) for name, (right, _) in ENDPOINTS[endpoint].items()]
    return [stand_ins.get(value, value) if isinstance(value, str) else value for value in values]


def test_every_mistake_is_named(url: str, upload: dict):
    with httpx.Client(base_url=f"{url}gradio_api/", timeout=60) as client, ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda call: _call(client, call[0], _values(call[0], upload, **{call[1]: call[2]})), CALLS)
        )
        right = _call(client, "classify", [upload])

    assert len(CALLS) >= 300
    unnamed = [
        (call, kind, data)
        for call, (kind, data) in zip(CALLS, answers, strict=True)
        if kind != "error" or not _is_sentence(data["error"], *call[1:])
    ]
    assert unnamed == []
    assert right[0] == "complete"  # the page serves on


def _is_sentence(message: object, parameter: str, wrong: object) -> bool:
    """Whether a message has several words, names the parameter or the value, and is short enough to be read."""
    if not isinstance(message, str) or len(message.split()) < 4 or len(message) > 400:
        return False
    values = [*wrong.keys(), *wrong.values()] if isinstance(wrong, dict) else [wrong]
    quoted = [f"{value:g}" if isinstance(value, float) else str(value)[:20] for value in values]
    return parameter in message or any(value and value in message for value in quoted)


def test_a_wrong_number_of_values_is_named(url: str, upload: dict):
    with httpx.Client(base_url=f"{url}gradio_api/") as client:
        kind, data = _call(client, "count", [[upload]])
    assert kind == "error"
    assert data["error"].startswith("/count takes 7 values (pictures, show, name, leucocytes,")


def test_wrong_names_are_named(url: str, upload: dict):
    with httpx.Client(base_url=f"{url}gradio_api/call/v2/") as client:
        wrong = client.post("classify", json={"image": upload})
        missing = client.post("classify", json={})
        unknown = client.post("classfy", json={"picture": upload})
        right = client.post("classify", json={"picture": upload})
    assert wrong.status_code == missing.status_code == 422
    assert "`image` is not a valid" in wrong.json()["error"]
    assert "picture" in missing.json()["error"]
    assert unknown.status_code == 404 and "/classfy" in unknown.json()["error"]
    assert right.status_code == 200


def test_one_picture_counts_as_a_list(url: str, upload: dict):
    with httpx.Client(base_url=f"{url}gradio_api/") as client:
        kind, (records,) = _call(client, "classify_many", [upload])
    assert kind == "complete"
    assert [record["file"] for record in records] == ["cell.png"]


def test_endpoints_are_described_in_words_of_the_task(url: str):
    info = httpx.get(f"{url}gradio_api/info").json()["named_endpoints"]
    for name, endpoint in info.items():
        assert endpoint["description"].endswith("."), name
        for described in (*endpoint["parameters"], *endpoint["returns"]):
            assert described["python_type"]["description"].endswith("."), (name, described)
            assert not described["label"].startswith(("value_", "parameter_"))
        (returned,) = endpoint["returns"]
        assert returned["label"]
    parameters = {parameter["parameter_name"]: parameter for parameter in info["/count"]["parameters"]}
    assert parameters["pictures"]["example_input"][0]["path"] == "field.jpg"
    assert parameters["pictures"]["python_type"]["type"] == "list[filepath]"
    assert parameters["corrections"]["example_input"] == {"3": "monocyte", "7": None}
    assert "gradio-app" not in json.dumps(info)
