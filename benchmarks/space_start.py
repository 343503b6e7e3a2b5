"""Time of a Space: from `python app.py` to an answer, and to the differential of its example smear.

    python -m venv ../space-venv && ../space-venv/bin/pip install -r requirements.txt  # once; a few minutes
    python benchmarks/space_start.py --python ../space-venv/bin/python

The Space is assembled, pushed to a Hub on this machine's loopback and fetched from there, as the Hub does it. It runs
in an environment with its own `requirements.txt` alone, and without a network but this machine's.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from huggingface_hub import snapshot_download

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the tests are no package that is installed

from tests.loopback_hub import LoopbackHub, connect  # noqa: E402
from tests.scripts import script  # noqa: E402
from wbc_hf.hub import push_space  # noqa: E402

NAME = "me/leucocytes"
EXAMPLES = "wbc_hf/web/example_pictures"
# What this machine may have set for other purposes.
FOREIGN = ("WBC_HF", "HF_", "PYTHON", "GRADIO", "VIRTUAL_ENV")


def fetch_space(folder: Path) -> Path:
    """Assemble the Space, push it to the loopback Hub, and fetch it into a folder."""
    script("scripts/deploy_space.py").assemble(folder / "assembled")
    with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        connect(hub, patch, folder)
        push_space(folder / "assembled", NAME)
        return Path(snapshot_download(NAME, repo_type="space", local_dir=folder / "fetched"))


def reach(address: str, page: subprocess.Popen, patience: float) -> Client:
    """Wait until the page answers.

    Raises:
        SystemExit: It ended, or did not answer for so many seconds.
    """
    deadline = time.monotonic() + patience
    while page.poll() is None and time.monotonic() < deadline:
        try:
            return Client(address, verbose=False)
        except Exception:  # whatever the client raises where nobody listens yet
            time.sleep(0.2)
    raise SystemExit(f"The Space did not answer within {patience:g} s, or ended (status {page.poll()}).")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="The Python of the environment (default: this one).")
    parser.add_argument("--patience", type=float, default=300, help="Seconds to wait for its first answer.")
    arguments = parser.parse_args()
    # Not resolved: a link is what makes Python use its environment.
    python = Path(os.path.abspath(arguments.python))
    if not python.is_file():
        parser.error(f"{arguments.python}: no such file. Name the `bin/python` of an environment.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = fetch_space(Path(temporary))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "HOME": temporary}
        started = time.monotonic()
        page = subprocess.Popen([str(python), "app.py"], cwd=folder, env=environment)
        try:
            client = reach(f"http://127.0.0.1:{port}", page, arguments.patience)
            answered = time.monotonic()
            pictures = [handle_file(str(file)) for file in sorted((folder / EXAMPLES).glob("field-*.jpg"))]
            document = client.predict(pictures=pictures, api_name="/count")
            counted = time.monotonic()
        finally:
            page.terminate()
            page.wait(timeout=60)
    cells = document["cells"]
    if not cells:
        raise SystemExit("The Space found no cell in its example smear.")
    print(f"answers after {answered - started:.1f} s, for the first time in this environment's cache")
    print(f"{len(pictures)} photographs counted after {counted - answered:.1f} s more: {len(cells)} cells")
    print(f"load of this machine (1 minute): {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
