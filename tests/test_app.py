"""What `python app.py` makes of its arguments and of the variables that a Space sets."""

import socket
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

import app
from wbc_hf.data import paint_cells
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_scratch


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("WBC_HF_MODEL", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_help(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit_info:
        app.main(["--help"])
    assert exit_info.value.code == 0
    assert "WBC_HF_MODEL" in capsys.readouterr().out


def test_defaults():
    arguments = app.make_parser().parse_args([])
    assert (arguments.host, arguments.port, arguments.model) == ("127.0.0.1", 7860, None)


def test_variables_of_a_space(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8000")
    arguments = app.make_parser().parse_args([])
    assert (arguments.host, arguments.port) == ("0.0.0.0", 8000)
    arguments = app.make_parser().parse_args(["--host=127.0.0.1", "--port=9000", "--model=cells"])
    assert (arguments.host, arguments.port, arguments.model) == ("127.0.0.1", 9000, "cells")


@pytest.mark.parametrize("given", [None, "", "ana", "ana:", ":secret", "ana:secret ben"])
def test_users_that_cannot_be_are_refused_before_anything_is_loaded(
    given: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    if given is not None:
        monkeypatch.setenv(app.USERS, given)
    with pytest.raises(SystemExit) as exit_info:
        app.main(["--model", "cells", "--auth"])
    assert exit_info.value.code == 2
    assert "WBC_HF_USERS" in capsys.readouterr().err


def test_users_are_named_in_the_environment():
    assert app.read_users("ana:secret  ben:a:b\n") == [("ana", "secret"), ("ben", "a:b")]


def test_what_is_given_reaches_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in build_from_scratch(0.0625, image_size=32):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "ranges.yaml").write_text("source: our own\n")
    for name, pixels in zip(CLASS_NAMES, paint_cells(range(5), size=32), strict=True):
        (tmp_path / "cells" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "cells" / name / "1.png")
    monkeypatch.setenv(app.USERS, "ana:secret")
    told = {}
    monkeypatch.setattr("gradio.Blocks.block_thread", lambda page: told.update(page=page))
    words = ["--model", "model", "--ranges", "ranges.yaml", "--references", "cells", "--auth", "--root-path", "/wbc"]

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app.main([*words, "--port", str(port)])

    page = told["page"]
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/gradio_api/info").status_code == 401
        client = Client(f"http://127.0.0.1:{port}", auth=("ana", "secret"), verbose=False, analytics_enabled=False)
        nearest = client.predict(handle_file(str(tmp_path / "cells/monocyte/1.png")), 1, api_name="/nearest")
        assert nearest[0]["name"] == "monocyte/1.png"
        assert page.root_path == "/wbc"
    finally:
        page.close()


def test_a_folder_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit_info:
        app.main(["--model", str(tmp_path)])
    assert exit_info.value.code == 2
    assert "config.json" in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture):
    for part in build_from_scratch(0.0625, image_size=32):
        part.save_pretrained(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as exit_info:
        app.main(["--model", str(tmp_path), "--port", str(taken.getsockname()[1])])
    assert exit_info.value.code == 2
    assert "Choose another port" in capsys.readouterr().err
