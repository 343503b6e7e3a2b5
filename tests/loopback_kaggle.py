"""Kaggle on this machine's loopback, for tests: what kagglehub asks to download a public data set, and no more.

    with LoopbackKaggle() as kaggle:
        kaggle.add_dataset("me/cells", zipped({"basophil/1.png": b"..."}))
        connect(kaggle, monkeypatch, tmp_path)  # for kagglehub in this process

kagglehub knows a handful of fixed endpoints and no port of its own choice. So it is told to use `http://localhost`,
and to reach that by a proxy, which is this server.
"""

import base64
import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

_SERVICE = "/api/v1/datasets.DatasetApiService"


class LoopbackKaggle:
    """A Kaggle on 127.0.0.1 with a port of its own, running between `__enter__` and `__exit__`.

    Attributes:
        endpoint: What `HTTP_PROXY` has to be.
        requests: "METHOD /path" of every request so far.
        fault: What to do wrong: "silent" answers nothing, "refuse" says 403, "cut" breaks off the archive half-way,
            "page" answers with HTML, None does nothing wrong.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.archives: dict[str, bytes] = {}
        self.fault: str | None = None
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.kaggle = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def add_dataset(self, handle: str, archive: bytes) -> None:
        """Put a data set on Kaggle, as the archive that is downloaded."""
        self.archives[handle] = archive


def zipped(files: dict[str, bytes]) -> bytes:
    """An archive of files by path."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return stream.getvalue()


def connect(endpoint: LoopbackKaggle | str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the kagglehub of this process at a loopback Kaggle, with an empty cache and nobody's credentials."""
    if isinstance(endpoint, LoopbackKaggle):
        endpoint = endpoint.endpoint
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    # Credentials are looked for below the home folder, whatever the environment says.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE", "TBE_RUNTIME_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, endpoint)
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    kaggle: LoopbackKaggle


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Quiet: tests read `LoopbackKaggle.requests`."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        kaggle = self.server.kaggle
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kaggle.requests.append(f"{self.command} {path}")
        if kaggle.fault == "silent":
            kaggle.closing.wait(60)
            self.close_connection = True
        elif self.command == "HEAD":
            self._send(200, b"", "text/html")
        elif kaggle.fault == "page":
            self._send(200, b"<html>Log in to the network of your institution</html>", "text/html")
        elif path.startswith("/archive/"):
            self._send_archive(kaggle.archives[path.removeprefix("/archive/")])
        else:
            self._answer(path, json.loads(body))

    def _answer(self, path: str, asked: dict) -> None:
        kaggle = self.server.kaggle
        handle = f"{asked['ownerSlug']}/{asked['datasetSlug']}"
        if kaggle.fault == "refuse":
            self._send_json(403, {"code": 403, "message": "Permission 'datasets.get' was denied"})
        elif handle not in kaggle.archives:
            self._send_json(404, {"code": 404, "message": "Dataset not found"})
        elif path == f"{_SERVICE}/GetDataset":
            self._send_json(200, {"ref": handle, "currentVersionNumber": 3})
        elif path == f"{_SERVICE}/DownloadDataset" and asked["datasetVersionNumber"] == 3:
            self._send(302, b"", "text/plain", {"Location": f"http://localhost/archive/{handle}"})
        else:
            self._send_json(400, {"code": 400, "message": f"Not a request that is known here: {path} {asked}"})

    def _send_archive(self, archive: bytes) -> None:
        checksum = base64.b64encode(hashlib.md5(archive).digest()).decode()
        headers = {"X-Goog-Hash": f"md5={checksum}", "Accept-Ranges": "bytes"}
        if self.server.kaggle.fault == "cut":
            headers["Content-Length"] = str(len(archive))
            archive = archive[: len(archive) // 2]
            self.close_connection = True
        self._send(200, archive, "application/zip", headers)

    def _send_json(self, status: int, answer: dict) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content)), "Content-Type": kind} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
