"""Fetching: what counts as a model, what is never fetched, and how long a dead Hub is waited for."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.loopback_hub import LoopbackHub, connect
from wbc_hf.errors import HubUnreachableError, WbcError
from wbc_hf.hub import check_hub_reachable, fetch_model, fetching

MODEL = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "wbc.json": b'{"temperature": 1.5}',
    "wbc_statistics.safetensors": b"statistics",
    "README.md": b"# A model\n",
}
PICKLES = {"pytorch_model.bin": b"pickle", "training_args.bin": b"pickle", "optimizer.pt": b"pickle"}


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub's waits between its retries take no time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Folders


def test_a_local_folder_is_returned_as_it_is(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert fetch_model(tmp_path) == tmp_path
    assert fetch_model(str(tmp_path)) == tmp_path


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path):
    with pytest.raises(WbcError, match=r"has no config\.json"):
        fetch_model(tmp_path)


def test_a_file_is_no_model(tmp_path: Path):
    weights = tmp_path / "model.safetensors"
    weights.touch()
    with pytest.raises(WbcError, match="Pass the folder it lies in"):
        fetch_model(weights)


@pytest.mark.parametrize("model", ["./nowhere", "a/b/c", "/no/where", "runs/", "~/nowhere"])
def test_what_is_neither_folder_nor_id(model: str, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WbcError, match="no such folder"):
        fetch_model(model)
    assert hub.requests == []


# Repositories


def test_a_hub_model_comes_without_its_pickles(hub: LoopbackHub):
    hub.add_repo("me/name", MODEL | PICKLES | {"checkpoint-5/optimizer.pt": b"pickle", "notes.txt": b"notes"})
    assert contents(fetch_model("me/name")) == MODEL
    assert not [request.path for request in hub.requests if request.path.endswith((".bin", ".pt"))]


def test_a_sharded_model_comes_whole(hub: LoopbackHub):
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) for i in (1, 2)}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()}
    hub.add_repo("me/large", {"config.json": b"{}"} | shards | index)
    assert contents(fetch_model("me/large")) == {"config.json": b"{}"} | shards | index


def test_a_new_version_is_fetched(hub: LoopbackHub):
    hub.add_repo("me/name", MODEL)
    fetch_model("me/name")
    hub.add_repo("me/name", MODEL | {"wbc.json": b"{}"})
    assert contents(fetch_model("me/name"))["wbc.json"] == b"{}"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}"} | PICKLES, "no model.safetensors on the Hub.*never fetched"),
        ({"model.safetensors": b""}, "no config.json on the Hub"),
    ],
)
def test_a_repository_that_holds_no_model(hub: LoopbackHub, files: dict[str, bytes], message: str):
    hub.add_repo("me/name", files)
    with pytest.raises(WbcError, match=message):
        fetch_model("me/name")
    assert not [request.path for request in hub.requests if "resolve" in request.path]


def test_a_repository_that_does_not_exist(hub: LoopbackHub):
    with pytest.raises(
        WbcError, match=f"me/nothing: no folder of that name here, and no such model on {hub.endpoint}"
    ):
        fetch_model("me/nothing")


def test_a_private_repository_needs_a_token(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    hub.add_repo("me/secret", MODEL, private=True)
    assert contents(fetch_model("me/secret")) == MODEL
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WbcError, match="hf auth login"):
        fetch_model("me/secret")


def test_a_gated_repository_says_where_to_ask(hub: LoopbackHub):
    hub.add_repo("me/gated", MODEL, gated=True)
    with pytest.raises(WbcError, match=f"grants access on request. Ask for it on {hub.endpoint}/me/gated"):
        fetch_model("me/gated")


def test_a_refused_request_is_no_unreachable_hub(hub: LoopbackHub):
    hub.add_repo("me/name", MODEL)
    hub.fail_next("GET /api/models", 403)
    with pytest.raises(WbcError, match="refused access") as caught:
        fetch_model("me/name")
    assert not isinstance(caught.value, HubUnreachableError)


@pytest.mark.parametrize("status", [None, 500])
@pytest.mark.usefixtures("no_waiting")
def test_a_download_that_breaks_off_goes_on_later(hub: LoopbackHub, status: int | None):
    hub.add_repo("me/name", MODEL)
    hub.fail_next(r"GET .*model\.safetensors", status, times=None)
    with pytest.raises(WbcError, match=r"did not finish.*Run the same command again"):
        fetch_model("me/name")
    hub.heal()
    assert contents(fetch_model("me/name")) == MODEL


# A Hub that is not there


@contextmanager
def refusing_endpoint() -> Iterator[str]:
    with socket.socket() as listener:  # bound, so that nobody else gets the port, and not listening
        listener.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def silent_endpoint() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel accepts, nobody answers
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def trickling_endpoint() -> Iterator[str]:
    """Answers with one byte every tenth of a second, which no read timeout notices."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                while not done.wait(0.1):
                    connection.sendall(b"H")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        thread.join()


DEAD_ENDPOINTS = [refusing_endpoint, silent_endpoint, trickling_endpoint]


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> float:
    assert fetching.REACH_SECONDS <= 9, "a person waits ten seconds in all"
    monkeypatch.setattr(fetching, "REACH_SECONDS", 0.5)
    return 0.5


@pytest.mark.parametrize("ask", [lambda: fetch_model("me/name"), check_hub_reachable], ids=["fetch", "check"])
@pytest.mark.parametrize("dead_endpoint", DEAD_ENDPOINTS)
def test_a_dead_hub_is_named_in_time(
    dead_endpoint: Callable, ask: Callable, short_wait: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with dead_endpoint() as endpoint:
        connect(endpoint, monkeypatch, tmp_path)
        start = time.monotonic()
        with pytest.raises(HubUnreachableError) as caught:
            ask()
        assert time.monotonic() - start < 15  # the Hub's own client takes 23
    message = str(caught.value)
    assert endpoint in message
    for advice in ("network", "HF_ENDPOINT", "local folder"):
        assert advice in message


@pytest.mark.parametrize("dead_endpoint", DEAD_ENDPOINTS)
@pytest.mark.usefixtures("short_wait")
def test_a_cached_model_does_without_the_hub(
    dead_endpoint: Callable,
    hub: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    hub.add_repo("me/name", MODEL | PICKLES)
    fetched = fetch_model("me/name")
    with dead_endpoint() as endpoint, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert fetch_model("me/name") == fetched
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("wbc_hf")]
    assert warnings == [f"{endpoint} could not be reached: using the copy of me/name in the cache."]


@pytest.mark.parametrize("missing", ["model.safetensors", "wbc.json"])
def test_a_cached_model_that_lacks_a_part_is_not_used(hub: LoopbackHub, missing: str):
    hub.add_repo("me/name", MODEL)
    (fetch_model("me/name") / missing).unlink()
    hub.fail_next("", 503, times=None)
    with pytest.raises(HubUnreachableError, match="answered 503"):
        fetch_model("me/name")


def test_a_cached_copy_without_a_list_needs_every_shard(hub: LoopbackHub):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    files = {"config.json": b"{}", "model-1.safetensors": b"1", "model-2.safetensors": b"2"}
    hub.add_repo("me/large", files | {"model.safetensors.index.json": index})
    snapshot = fetch_model("me/large")
    assert fetching._is_complete(snapshot)
    (snapshot / "model-2.safetensors").unlink()
    assert not fetching._is_complete(snapshot)


def test_offline_mode_uses_the_cache_or_says_so(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    hub.add_repo("me/name", MODEL)
    fetched = fetch_model("me/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model("me/name") == fetched
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE is set"):
        fetch_model("me/other")


@pytest.mark.parametrize(("status", "answer"), [(404, "answered 404"), (200, "answered with a page")])
def test_a_proxy_that_answers_is_no_hub(status: int, answer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>Please log in</html>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        connect(f"http://127.0.0.1:{server.server_port}", monkeypatch, tmp_path)
        with pytest.raises(HubUnreachableError, match=f"{answer}, not in a Hub's words"):
            fetch_model("me/name")
        server.shutdown()


def test_check_hub_reachable(hub: LoopbackHub):
    check_hub_reachable()
    hub.fail_next("HEAD /$", 404)  # an endpoint below a path may have no front page
    check_hub_reachable()
    for status in (403, 502):
        hub.fail_next("HEAD /$", status)
        with pytest.raises(HubUnreachableError, match=f"answered {status}"):
            check_hub_reachable()
