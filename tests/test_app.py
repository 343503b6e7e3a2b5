"""What `python app.py` makes of its arguments and of the variables that a Space sets."""

import inspect
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

import app
from wbc_hf.cli import serve
from wbc_hf.data import paint_cells
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_scratch


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("WBC_HF_MODEL", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # and back again: a page sets its own


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        app.main(list(words))
    return exit_info.value.code


def test_help(capsys: pytest.CaptureFixture):
    assert call("--help") == 0
    assert "WBC_HF_MODEL" in capsys.readouterr().out


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The host and port that reach the page, without one."""
    reached: dict[str, object] = {}

    def launch(page: object, host: str, port: int, **_: object) -> str:
        reached.update(host=host, port=port)
        raise WbcError("no page in this test")

    monkeypatch.setattr("wbc_hf.web.launch_page", launch)
    monkeypatch.setattr("wbc_hf.web.build_page", lambda *_, **__: None)
    predictor = SimpleNamespace(identity=None)
    monkeypatch.setattr("wbc_hf.inference.Predictor.from_pretrained", lambda model: predictor)
    return reached


def test_defaults(given: dict[str, object]):
    assert call() == 2
    assert given == {"host": "127.0.0.1", "port": 7860}


def test_variables_of_a_space(given: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8000")
    call()
    assert given == {"host": "0.0.0.0", "port": 8000}
    call("--host=127.0.0.1", "--port=9000")
    assert given == {"host": "127.0.0.1", "port": 9000}


@pytest.mark.parametrize("given", [None, "", "ana", "ana:", ":secret", "ana:secret ben"])
def test_users_that_cannot_be_are_refused_before_anything_is_loaded(
    given: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    if given is not None:
        monkeypatch.setenv(serve.USERS, given)
    assert call("--model", "cells", "--auth") == 2
    assert "WBC_HF_USERS" in capsys.readouterr().err


def test_users_are_named_in_the_environment():
    assert serve.read_users("ana:secret  ben:a:b\n") == [("ana", "secret"), ("ben", "a:b")]


def test_what_is_given_reaches_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in build_from_scratch(0.0625, image_size=32):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "ranges.yaml").write_text("source: our own\n")
    for name, pixels in zip(CLASS_NAMES, paint_cells(range(5), size=32), strict=True):
        (tmp_path / "cells" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "cells" / name / "1.png")
    monkeypatch.setenv(serve.USERS, "ana:secret")
    told = {}
    kept = lambda: [repr(level.frame.f_locals.get("users")) for level in inspect.stack()]  # noqa: E731
    monkeypatch.setattr("gradio.Blocks.block_thread", lambda page: told.update(page=page, users=kept()))
    words = ["--model", "model", "--ranges", "ranges.yaml", "--references", "cells", "--auth", "--root-path", "/wbc"]

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert call(*words, "--port", str(port)) == 0

    page = told["page"]
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/gradio_api/info").status_code == 401
        client = Client(f"http://127.0.0.1:{port}", auth=("ana", "secret"), verbose=False, analytics_enabled=False)
        nearest = client.predict(handle_file(str(tmp_path / "cells/monocyte/1.png")), 1, api_name="/nearest")
        assert nearest[0]["name"] == "monocyte/1.png"
        assert page.root_path == "/wbc"
        assert not any("secret" in level for level in told["users"])
        assert serve.USERS not in os.environ  # nor in those of programs that it starts
    finally:
        page.close()


def test_a_folder_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert call("--model", str(tmp_path)) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture):
    for part in build_from_scratch(0.0625, image_size=32):
        part.save_pretrained(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert call("--model", str(tmp_path), "--port", str(taken.getsockname()[1])) == 2
    assert "Choose another port" in capsys.readouterr().err
