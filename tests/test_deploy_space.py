"""The Space: what is in it, how it gets to the Hub, and that it starts there."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from huggingface_hub import snapshot_download

from tests.loopback_hub import LoopbackHub, connect
from tests.scripts import ROOT, script
from tests.test_packaging import SPACE, locked
from wbc_hf.errors import HubUnreachableError, WbcError
from wbc_hf.hub import push_space

deploy_space = script("scripts/deploy_space.py")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder that could be a Space."""
    folder = tmp_path / "small"
    (folder / "wbc_hf").mkdir(parents=True)
    (folder / "README.md").write_bytes((ROOT / "scripts/space/README.md").read_bytes())
    (folder / "app.py").write_text("print()")
    (folder / "wbc_hf/new.py").write_text("new = 1")
    return folder


def test_an_assembled_space_holds_what_the_page_needs_and_nothing_else(tmp_path: Path):
    deploy_space.main(["--output", str(tmp_path / "space")])
    names = {path.relative_to(tmp_path / "space").as_posix() for path in (tmp_path / "space").rglob("*")}
    assert {"README.md", ".gitattributes", "app.py", "requirements.txt"} <= names
    assert {"wbc_hf/web/style.css", "wbc_hf/web/example_pictures/CREDITS.txt"} <= names
    assert {"models/starter/model.safetensors", "models/starter/NOTICE", "models/finder/model.safetensors"} <= names
    assert {name.split("/")[0] for name in names} <= {
        "README.md", ".gitattributes", "app.py", "requirements.txt", "LICENSE", "NOTICE", "wbc_hf", "models",
    }  # fmt: skip
    assert not [name for name in names if "__pycache__" in name]


def test_another_model_takes_the_place_of_the_default_one(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "model.safetensors", "README.md", "training_args.bin", "run.json"):
        (run / name).write_text(name)
    deploy_space.assemble(tmp_path / "space", run)
    served = {path.name for path in (tmp_path / "space/models/starter").iterdir()}
    assert served == {"config.json", "model.safetensors", "README.md"}


def test_a_folder_without_a_model_and_one_that_exists_are_refused(tmp_path: Path):
    with pytest.raises(WbcError, match=r"has no config\.json"):
        deploy_space.assemble(tmp_path / "space", tmp_path)
    with pytest.raises(WbcError, match="exists"):
        deploy_space.assemble(tmp_path)


def test_the_front_matter_names_the_locked_gradio_and_a_python_that_the_package_supports():
    front = (ROOT / "scripts/space/README.md").read_text(encoding="utf-8").split("---")[1]
    assert re.search(r"sdk_version: (\S+)", front)[1] == locked("gradio")
    assert SPACE["gradio"].specifier.contains(locked("gradio"))
    assert 'python_version: "3.11"' in front


def test_a_push_replaces_what_was_there(hub: LoopbackHub, small: Path):
    hub.add_repo("me/space", {"wbc_hf/old.py": b"old = 1", ".gitattributes": b"*.bin", "app.py": b"old"}, "space")
    assert push_space(small, "me/space") == f"{hub.endpoint}/spaces/me/space"
    expected = {path.relative_to(small).as_posix(): path.read_bytes() for path in small.rglob("*") if path.is_file()}
    assert hub.files("me/space", "space") == expected | {".gitattributes": b"*.bin"}
    commits = hub.commit_count("me/space", "space")
    push_space(small, "me/space")
    assert hub.commit_count("me/space", "space") == commits


def test_a_private_space_stays_private_and_a_public_one_is_refused(hub: LoopbackHub, small: Path):
    push_space(small, "me/space", private=True)
    assert hub.is_private("me/space", "space")
    hub.add_repo("me/public", {}, "space")
    with pytest.raises(WbcError, match="exists and is public"):
        push_space(small, "me/public", private=True)


def test_a_push_that_breaks_off_leaves_the_old_space(hub: LoopbackHub, small: Path):
    hub.add_repo("me/space", {"app.py": b"old"}, "space")
    hub.fail_next("POST .*commit", 403, times=None)
    with pytest.raises(WbcError, match=r"did not finish: the Hub answered 403.*The Space is as it was"):
        push_space(small, "me/space")
    assert hub.files("me/space", "space") == {"app.py": b"old"}


def test_no_token_and_no_hub_are_said(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    connect("http://127.0.0.1:1", monkeypatch, tmp_path)  # port 1 is nobody's
    with pytest.raises(HubUnreachableError):
        push_space(small, "me/space")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WbcError, match="No token for the Hub"):
        push_space(small, "me/space")


@pytest.mark.long
@pytest.mark.slow
def test_a_space_from_the_hub_starts_and_counts_its_example_smear(hub: LoopbackHub, tmp_path: Path):
    deploy_space.main(["me/space"])
    # Links into the cache are no folder that an import can start from.
    folder = Path(snapshot_download("me/space", repo_type="space", local_dir=tmp_path / "fetched"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WBC_HF", "HF_", "PYTHONPATH"))}
    environment = kept | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "0"}
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        page = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        client = _reach(f"http://127.0.0.1:{port}", page, log)
        example = folder / "wbc_hf/web/example_pictures/field-1.jpg"
        document = client.predict(pictures=[handle_file(str(example))], api_name="/count")
        assert document["cells"]
    finally:
        page.terminate()
        page.wait(timeout=30)


def _reach(address: str, page: subprocess.Popen, log: Path) -> Client:
    for _ in range(240):
        assert page.poll() is None, log.read_text()
        try:
            return Client(address, verbose=False)
        except Exception:  # whatever the client raises where nobody listens yet
            time.sleep(0.5)
    raise AssertionError(log.read_text())
