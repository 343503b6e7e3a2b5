"""A Hugging Face Hub on this machine's loopback, for tests: what pushing, fetching and loading ask, and no more.

    with LoopbackHub() as hub:
        hub.add_repo("me/name", {"config.json": b"{}"})
        environment = hub_environment(hub, tmp_path)  # for a subprocess
        connect(hub, monkeypatch, tmp_path)  # for huggingface_hub in this process

It keeps to the real Hub's manners where a client can tell: a missing repository, file or revision has its own error
code, a commit happens as a whole or not at all, unchanged files are recognised, and writing needs `TOKEN`.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_loopback"
USER = "me"
REPO_TYPES = ("model", "dataset", "space")
# The suffixes that the real Hub keeps outside git; the rest travels inside the commit.
LARGE_SUFFIXES = {".safetensors", ".bin", ".parquet", ".zip", ".png", ".jpg"}
LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "openrail",
    "other",
    "unknown",
}


@dataclass(frozen=True)
class Request:
    """One request as it came in. `path` has no query."""

    method: str
    path: str
    authorization: str | None


@dataclass
class _Failure:
    pattern: str
    status: int | None
    left: int | None


@dataclass
class _Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""

    def commit(self, files: dict[str, bytes]) -> str:
        names = "".join(f"{name}\0{_sha256(content)}\0" for name, content in sorted(files.items()))
        self.head = hashlib.sha1(f"{len(self.commits)} {names}".encode()).hexdigest()
        self.commits[self.head] = files
        return self.head

    def resolve(self, revision: str) -> str | None:
        return self.head if revision == "main" else revision if revision in self.commits else None


class LoopbackHub:
    """A Hub on 127.0.0.1 with a port of its own, running between `__enter__` and `__exit__`.

    Attributes:
        endpoint: What `HF_ENDPOINT` has to be.
        requests: Every request so far, failed ones included.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._repositories: dict[tuple[str, str], _Repository] = {}
        self._blobs: dict[str, bytes] = {}
        self._failures: list[_Failure] = []
        self._requests_left: int | None = None
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        # The default poll of half a second would be waited for at the end of every test.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_repo(
        self,
        repo_id: str,
        files: dict[str, bytes] | None = None,
        repo_type: str = "model",
        *,
        private: bool = False,
        gated: bool = False,
    ) -> None:
        """Put a repository on the Hub. `private` hides it from who has no token, `gated` keeps all off its files."""
        with self._lock:
            repository = _Repository(private=private, gated=gated)
            repository.commit(dict(files or {}))
            self._repositories[repo_type, repo_id] = repository

    def files(self, repo_id: str, repo_type: str = "model") -> dict[str, bytes]:
        """The files at the head of a repository. KeyError where there is none."""
        with self._lock:
            repository = self._repositories[repo_type, repo_id]
            return dict(repository.commits[repository.head])

    def commit_count(self, repo_id: str, repo_type: str = "model") -> int:
        """How many commits a repository has had, the first (empty) one included."""
        return len(self._repositories[repo_type, repo_id].commits)

    def is_private(self, repo_id: str, repo_type: str = "model") -> bool:
        return self._repositories[repo_type, repo_id].private

    def fail_next(self, pattern: str, status: int | None, times: int | None = 1) -> None:
        """Answer the next `times` requests that match `pattern` with `status`; all from now on where `times` is None.

        Args:
            pattern: Regular expression, searched in "METHOD /path".
            status: An HTTP status, or None to drop the connection without an answer.
            times: How often. huggingface_hub repeats some requests up to five times.
        """
        with self._lock:
            self._failures.append(_Failure(pattern, status, times))

    def drop_after(self, count: int) -> None:
        """Answer `count` more requests, then drop every connection."""
        with self._lock:
            self._requests_left = count

    def heal(self) -> None:
        """Take back what `fail_next` and `drop_after` ordered."""
        with self._lock:
            self._failures.clear()
            self._requests_left = None

    def _fault(self, request: Request) -> _Failure | None:
        with self._lock:
            self.requests.append(request)
            if self._requests_left is not None:
                if self._requests_left == 0:
                    return _Failure("", None, None)
                self._requests_left -= 1
            for failure in self._failures:
                if failure.left != 0 and re.search(failure.pattern, f"{request.method} {request.path}"):
                    if failure.left is not None:
                        failure.left -= 1
                    return failure
        return None


def hub_environment(hub: LoopbackHub, tmp_path: Path) -> dict[str, str]:
    """Environment of a subprocess that knows only this Hub, with an empty cache below `tmp_path` and a token."""
    foreign = ("HF_", "HUGGING", "TRANSFORMERS_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return inherited | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }


def connect(endpoint: LoopbackHub | str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the huggingface_hub of this process at an endpoint, with an empty cache below `tmp_path` and a token.

    datasets copies the endpoint at import and does not notice: what loads data sets needs `hub_environment`.
    """
    from huggingface_hub import constants

    if isinstance(endpoint, LoopbackHub):
        endpoint = endpoint.endpoint
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf_home" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf_home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub


class _RefusalError(Exception):
    """An error answer: what the client reads are the status and the `X-Error-Code`."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status = status
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body are written apart; with Nagle's algorithm every answer would wait 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Quiet: tests read `LoopbackHub.requests`."""

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_HEAD(self) -> None:
        self._serve(self._get)

    def do_POST(self) -> None:
        self._serve(self._post)

    def do_PUT(self) -> None:
        self._serve(self._put)

    @property
    def hub(self) -> LoopbackHub:
        return self.server.hub

    def _serve(self, route) -> None:
        url = urlsplit(self.path)
        # A revision or path may come with its slashes quoted; they are parted from the rest before they are unquoted.
        self.segments = [unquote(segment) for segment in url.path.strip("/").split("/")]
        self.query = parse_qs(url.query)
        self.body = self._read_body()
        if self.segments == ["api", "agent-harnesses"]:
            # huggingface_hub asks this about its surroundings, on some machines and once a day: nothing to count on.
            self._send_json(404, {})
            return
        fault = self.hub._fault(Request(self.command, unquote(url.path), self.headers["Authorization"]))
        if fault is not None and fault.status is None:
            self.close_connection = True
            return
        if fault is not None:
            message = f"told to fail with {fault.status}"
            self._send_json(fault.status, {"error": message}, {"X-Error-Message": message})
            return
        try:
            with self.hub._lock:
                route()
        except _RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
            self._send_json(refusal.status, {"error": str(refusal)}, headers)

    def _read_body(self) -> bytes:
        if self.headers["Transfer-Encoding"] == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

    @property
    def _signed_in(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"

    def _require_token(self) -> None:
        if not self._signed_in:
            raise _RefusalError(401, "", "Invalid username or password.")

    def _repository(self, repo_type: str, repo_id: str) -> _Repository:
        repository = self.hub._repositories.get((repo_type, repo_id))
        if repository is None or (repository.private and not self._signed_in):
            # The real Hub does not tell a stranger whether a private repository exists.
            raise _RefusalError(404 if self._signed_in else 401, "RepoNotFound", "Repository not found")
        return repository

    def _split_repository(self, segments: list[str], words: tuple[str, ...]) -> tuple[str, list[str]]:
        """`["me", "name", "tree", "main"]` → `("me/name", ["tree", "main"])`; the owner may be absent."""
        length = 1 if len(segments) > 1 and segments[1] in words else 2
        return "/".join(segments[:length]), segments[length:]

    # Reading ---------------------------------------------------------------------------------------------------------

    def _get(self) -> None:
        match self.segments:
            case [""]:
                self._send(200, b"", {})
            case ["api", "whoami-v2"]:
                self._require_token()
                self._send_json(200, {"type": "user", "name": USER, "auth": {"accessToken": {"role": "write"}}})
            case ["api", kind, *rest] if kind.removesuffix("s") in REPO_TYPES:
                self._get_about(kind.removesuffix("s"), rest)
            case [*segments] if "resolve" in segments:
                self._resolve(segments)
            case _:
                raise _RefusalError(404, "", "Not found")

    def _get_about(self, repo_type: str, segments: list[str]) -> None:
        repo_id, rest = self._split_repository(segments, ("revision", "tree"))
        repository = self._repository(repo_type, repo_id)
        match rest:
            case []:
                self._send_json(200, self._info(repo_id, repository, repository.head))
            case ["revision", revision]:
                self._send_json(200, self._info(repo_id, repository, self._commit_of(repository, revision)))
            case ["tree", revision, *folders]:
                files = repository.commits[self._commit_of(repository, revision)]
                recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
                self._send_json(200, _tree(files, "/".join(folders), recursive))
            case _:
                raise _RefusalError(404, "", "Not found")

    def _commit_of(self, repository: _Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _info(self, repo_id: str, repository: _Repository, commit: str) -> dict[str, object]:
        return {
            "id": repo_id,
            "sha": commit,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": name} for name in sorted(repository.commits[commit])],
        }

    def _resolve(self, segments: list[str]) -> None:
        repo_type = "model"
        if segments[0] in ("datasets", "spaces"):
            repo_type, segments = segments[0].removesuffix("s"), segments[1:]
        repo_id, (_, revision, *parts) = self._split_repository(segments, ("resolve",))
        repository = self._repository(repo_type, repo_id)
        if repository.gated:
            raise _RefusalError(403, "GatedRepo", f"Access to {repo_type} {repo_id} is restricted.")
        commit = self._commit_of(repository, revision)
        content = repository.commits[commit].get("/".join(parts))
        if content is None:
            raise _RefusalError(404, "EntryNotFound", "Entry not found")
        self._send_file(content, {"X-Repo-Commit": commit, "ETag": f'"{_sha256(content)}"', "Accept-Ranges": "bytes"})

    def _send_file(self, content: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"] or "")
        if wanted is None:
            self._send(200, content, headers)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= len(content):
            raise _RefusalError(416, "", f"Range not satisfiable: {self.headers['Range']}")
        headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        self._send(206, content[start:end], headers)

    # Writing ---------------------------------------------------------------------------------------------------------

    def _post(self) -> None:
        match self.segments:
            case ["api", "validate-yaml"]:
                self._validate_yaml()
            case ["api", "repos", "create"]:
                self._create()
            case ["api", kind, *rest] if kind.removesuffix("s") in REPO_TYPES:
                self._post_about(kind.removesuffix("s"), rest)
            case [*_, "info", "lfs", "objects", "batch"]:
                self._large_files()
            case _:
                raise _RefusalError(404, "", "Not found")

    def _post_about(self, repo_type: str, segments: list[str]) -> None:
        repo_id, rest = self._split_repository(segments, ("preupload", "commit", "paths-info"))
        match rest:
            case ["paths-info", revision]:
                repository = self._repository(repo_type, repo_id)
                files = repository.commits[self._commit_of(repository, revision)]
                self._send_json(200, _paths_info(files, self._paths_asked()))
            case ["preupload", _]:
                self._require_token()
                self._preupload(self._repository(repo_type, repo_id))
            case ["commit", _]:
                self._require_token()
                self._commit(repo_type, repo_id)
            case _:
                raise _RefusalError(404, "", "Not found")

    def _paths_asked(self) -> list[str]:
        if "json" in (self.headers["Content-Type"] or ""):
            return json.loads(self.body)["paths"]
        return parse_qs(self.body.decode())["paths"]

    def _validate_yaml(self) -> None:
        asked = json.loads(self.body)
        errors = _card_errors(asked["content"], asked["repoType"])
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        self._send_json(400 if errors else 200, answer)

    def _create(self) -> None:
        self._require_token()
        asked = json.loads(self.body)
        repo_type = asked.get("type") or "model"
        repo_id = f"{asked['organization'] or USER}/{asked['name']}"
        known = (repo_type, repo_id) in self.hub._repositories
        if not known:
            self.hub.add_repo(repo_id, {}, repo_type, private=asked.get("visibility") == "private")
        prefix = "" if repo_type == "model" else f"{repo_type}s/"
        answer = {"url": f"{self.hub.endpoint}/{prefix}{repo_id}", "name": repo_id}
        self._send_json(409 if known else 200, answer | ({"error": "You already created this repo"} if known else {}))

    def _preupload(self, repository: _Repository) -> None:
        present = repository.commits[repository.head]
        answer = []
        for asked in json.loads(self.body)["files"]:
            large = _is_large(asked["path"])
            content = present.get(asked["path"])
            oid = None if content is None else _sha256(content) if large else _git_oid(content)
            mode = "lfs" if large else "regular"
            answer.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json(200, {"files": answer})

    def _large_files(self) -> None:
        self._require_token()
        objects = []
        for asked in json.loads(self.body)["objects"]:
            known = asked["oid"] in self.hub._blobs
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}
            objects.append({"oid": asked["oid"], "size": asked["size"]} | ({} if known else {"actions": upload}))
        self._send_json(200, {"transfer": "basic", "objects": objects})

    def _put(self) -> None:
        match self.segments:
            case ["lfs", oid] if oid == _sha256(self.body):
                self.hub._blobs[oid] = self.body
                self._send(200, b"", {})
            case _:
                raise _RefusalError(400, "", "The content does not have the checksum it was announced with")

    def _commit(self, repo_type: str, repo_id: str) -> None:
        repository = self._repository(repo_type, repo_id)
        files = dict(repository.commits[repository.head])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile" if value["oid"] in self.hub._blobs:
                    files[value["path"]] = self.hub._blobs[value["oid"]]
                case "lfsFile":
                    raise _RefusalError(400, "", f"{value['path']} was never uploaded")
                case "deletedFile":
                    del files[value["path"]]
                case "deletedFolder":
                    files = {name: content for name, content in files.items() if not name.startswith(value["path"])}
        commit = repository.commit(files)
        prefix = "" if repo_type == "model" else f"{repo_type}s/"
        url = f"{self.hub.endpoint}/{prefix}{repo_id}/commit/{commit}"
        self._send_json(200, {"success": True, "commitOid": commit, "commitUrl": url})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(path: str) -> bool:
    return PurePosixPath(path).suffix in LARGE_SUFFIXES


def _folders(files: dict[str, bytes]) -> set[str]:
    return {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}


def _entry(files: dict[str, bytes], path: str) -> dict[str, object]:
    """One line of a listing: a file with its size and checksums, or a folder."""
    if path not in files:
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
    content = files[path]
    entry: dict[str, object] = {"type": "file", "path": path, "oid": _git_oid(content), "size": len(content)}
    if _is_large(path):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, object]]:
    folders = _folders(files)
    if folder and folder not in folders:
        raise _RefusalError(404, "EntryNotFound", f"{folder} does not exist")
    below = [path for path in sorted(folders | set(files)) if not folder or path.startswith(f"{folder}/")]
    if not recursive:
        below = [path for path in below if str(PurePosixPath(path).parent) == (folder or ".")]
    return [_entry(files, path) for path in below]


def _paths_info(files: dict[str, bytes], paths: list[str]) -> list[dict[str, object]]:
    known = _folders(files) | set(files)
    return [_entry(files, path) for path in paths if path in known]


def _card_errors(content: str, repo_type: str) -> list[str]:
    """What the Hub would refuse in a card's front matter, as far as this project writes such things."""
    front = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if front is None:
        return []
    try:
        data = yaml.safe_load(front[1])
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(data, dict):
        return ["YAML metadata must be a mapping"]
    errors = [f'"{key}" must be a list' for key in ("tags", "metrics") if not isinstance(data.get(key, []), list)]
    if data.get("license", "mit") not in LICENCES:
        errors.append(f'"license" must be one of {sorted(LICENCES)}')
    if repo_type == "model":
        errors += [error for model in data.get("model-index", []) for error in _model_index_errors(model)]
    return errors


def _model_index_errors(model: dict) -> list[str]:
    errors = [] if model.get("name") else ['"model-index[0].name" is required']
    for result in model.get("results", []):
        for path in ("task.type", "dataset.type", "dataset.name"):
            section, key = path.split(".")
            if not isinstance(result.get(section, {}).get(key), str):
                errors.append(f'"model-index[0].results[0].{path}" is required')
        for metric in result.get("metrics", []):
            if not isinstance(metric.get("type"), str) or metric.get("value") is None:
                errors.append('"model-index[0].results[0].metrics" need type and value')
    return errors
