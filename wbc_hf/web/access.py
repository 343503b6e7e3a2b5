"""What stands between the network and the page: who may ask, from where, and how much they may send.

Gradio (6.31) allows every origin with credentials unless its own host name is localhost, sends its cookie across
sites, reads a body before it asks who sent it, and leaves the MCP server open where users sign in.
"""

import ipaddress
import logging
import socket
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wbc_hf.errors import WbcError
from wbc_hf.web.quotas import UploadQuotas
from wbc_hf.web.users import ADDRESS, Users

if TYPE_CHECKING:
    from gradio.routes import App

_log = logging.getLogger(__name__)

API = "/gradio_api"
UPLOAD = f"{API}/upload"
HEARTBEAT = f"{API}/heartbeat/"
# Of a request other than an upload. Values of endpoints may hold pictures as data URLs.
MAX_BODY = 32 * 2**20  # bytes
MAX_LOGIN = 2**14
# One body with up to 1,000 files. The quota of a visitor bounds it, too.
MAX_UPLOAD = 4 * 2**30
SIGN_IN = (
    "This page admits only users who sign in. Send a name and password as the header Authorization (Basic), or the "
    "cookie that /login gives."
)
# What the page of the login consists of. All else is for those who are signed in.
_OPEN_PATHS = {
    *("/", "/login", "/logout", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/pwa_icon"),
    "/health",
    *(f"{API}/{name}" for name in ("startup-events", "login_check", "user", "token", "app_id", "theme.css")),
}
_OPEN_FOLDERS = ("/assets/", "/static/", "/svelte/", "/pwa_icon/")
# It would write what the components of a session show into a file that a link opens for everybody.
_CLOSED_PATHS = {f"{API}/deep_link"}
_FILE_HEADER = b"content-disposition"  # one in front of each file of an upload
HUB = "https://huggingface.co"


class Access:
    """ASGI middleware of the page.

    Args:
        users: Who may sign in, or None where everybody is admitted.
        hosts: Names by which the page may be reached, beside addresses, localhost and the name of this machine.
        origins: Other sites that may use the page and show it in a frame, such as "https://lab.example.org".
        in_space: Whether this is a Space, which the Hub shows in a frame.

    Attributes:
        open_tabs: How many tabs are open of each session, by its hash.
    """

    def __init__(
        self,
        users: Users | None = None,
        *,
        hosts: Collection[str] = (),
        origins: Sequence[str] = (),
        in_space: bool = False,
    ):
        self.open_tabs: Counter[str] = Counter()
        self._users, self._quotas, self._in_space = users, UploadQuotas(), in_space
        self._hosts = {host.lower() for host in (*hosts, "localhost", socket.gethostname())}
        self._origins = [*origins, HUB] if in_space else list(origins)
        self._headers = _security_headers(self._origins)

    @asynccontextmanager
    async def lifespan(self, app: "App") -> AsyncIterator[None]:
        """Put this around an application when it starts, before it is asked anything.

        Gradio adds its own middleware after what an application is made with, so that would not be outermost.
        """
        self._app = app
        gradio: Any = app.middleware_stack

        async def without_origin(scope: Scope, receive: Receive, send: Send) -> None:
            # Gradio's own middleware allows whatever origin it sees.
            headers = [header for header in scope.get("headers", ()) if header[0] != b"origin"]
            await gradio({**scope, "headers": headers}, receive, send)

        self._inner: ASGIApp = without_origin
        if self._origins:
            self._inner = CORSMiddleware(
                without_origin,
                allow_origins=self._origins,
                allow_credentials=True,
                allow_methods=["*"],
                allow_headers=["*"],
            )
        app.middleware_stack = self
        yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._complete(scope, MutableHeaders(scope=message))
            await send(message)

        try:
            await self._answer(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Exception as error:
            status, detail = 500, "Something went wrong on the server; its log says where."
            if isinstance(error, HTTPException):
                status, detail = error.status_code, error.detail
            else:
                log_error(error)
            if not started:
                await JSONResponse({"detail": detail}, status)(scope, receive, send_with_headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = Headers(scope=scope), _path(scope)
        self._check_host(headers)
        self._check_origin(scope["method"], headers)
        if path in _CLOSED_PATHS:
            raise HTTPException(404, "This page has no such links.")
        address = scope["client"][0] if scope.get("client") else ""
        ADDRESS.set(address)
        user = await self._check_user(scope, headers, path)
        receive = self._limited(receive, headers, path, user or address)
        session = path.removeprefix(HEARTBEAT) if path.startswith(HEARTBEAT) else None
        if session is None:
            await self._inner(scope, receive, send)
            return
        self.open_tabs[session] += 1
        try:
            await self._inner(scope, receive, send)
        finally:
            self.open_tabs[session] -= 1
            if not self.open_tabs[session]:
                del self.open_tabs[session]

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not the page's: a foreign site could point its own name here (DNS rebinding)."""
        for given in (headers.get("host", ""), _first(headers.get("x-forwarded-host", ""))):
            host = _host_name(given)
            if given and not (host in self._hosts or _is_address(host)):
                raise HTTPException(
                    421, f"This page is not known as {host or given!r}. Start it with --allow-host {host or 'NAME'}."
                )

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Refuse what other sites make a browser send, but for those that are allowed and for following a link."""
        origin = headers.get("origin")
        if origin is not None:
            own = {headers.get("host", "").lower(), _first(headers.get("x-forwarded-host", "")).lower()}
            if origin not in self._origins and urlsplit(origin).netloc.lower() not in own - {""}:
                raise HTTPException(403, f"{origin} may not use this page. Start it with --allow-origin {origin}.")
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            headers.get("sec-fetch-mode") != "navigate" or method not in ("GET", "HEAD")
        ):
            raise HTTPException(403, "Other sites may not use this page. Start it with --allow-origin.")

    async def _check_user(self, scope: Scope, headers: Headers, path: str) -> str | None:
        """The name of who is signed in; None where nobody has to be, or where it does not matter."""
        if self._users is None:
            return None
        app = self._app
        names = [f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"]
        cookies = HTTPConnection(scope).cookies
        token = next((cookies[name] for name in names if cookies.get(name) in app.tokens), "")
        if token not in app.tokens and (authorization := headers.get("authorization")):
            # From here on a program is known as a browser is: also to the client by which MCP asks the page.
            token = await self._users.sign_in(authorization, app.tokens) or ""
            MutableHeaders(scope=scope)["cookie"] = f"{names[1]}={token}"
        if token in app.tokens:
            return app.tokens[token]
        if path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS):
            return None
        raise HTTPException(401, SIGN_IN)

    def _limited(self, receive: Receive, headers: Headers, path: str, visitor: str) -> Receive:
        """Bound the body, before it is read where its size is said."""
        upload = path == UPLOAD
        limit = MAX_UPLOAD if upload else MAX_LOGIN if path == "/login" else MAX_BODY
        said = headers.get("content-length", "")
        size = int(said) if said.isdecimal() else 0
        taken, end = 0, b""

        def check(total: int, more: int) -> None:
            if total > limit:
                raise HTTPException(413, f"A request holds at most {limit // 1024:,} KiB. Upload pictures as files.")
            if upload and (problem := self._quotas.problem(visitor, more)):
                raise HTTPException(429, problem)

        check(size, size)

        async def limited() -> Message:
            nonlocal taken, end
            message = await receive()
            if body := message.get("body", b""):
                taken += len(body)
                if upload:
                    seen = end + body.lower()
                    end = seen[-len(_FILE_HEADER) + 1 :]
                    self._quotas.add(visitor, len(body), seen.count(_FILE_HEADER))
                check(taken, 0)
            return message

        return limited

    def _complete(self, scope: Scope, headers: MutableHeaders) -> None:
        """Add the headers that bound what a browser does with an answer, and bound its cookies."""
        headers.update(self._headers)
        cookies = headers.getlist("set-cookie")
        if not cookies:
            return
        del headers["set-cookie"]
        forwarded = Headers(scope=scope).get("x-forwarded-proto", scope["scheme"])
        https = _first(forwarded) == "https"
        for cookie in cookies:
            # In the frame that the Hub shows a Space in, every request crosses sites.
            headers.append("set-cookie", _bound_cookie(cookie, https, "None" if https and self._in_space else "Lax"))


def log_error(error: BaseException) -> None:
    """Log what went wrong and where. Not its message, which may name a visitor's file or specimen."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s (its message may name files, and is not logged)\n%s", type(error).__name__, where)


def check_origin(given: str) -> str:
    """An origin as browsers write it: scheme, name in lower case, and port if it is not the usual one.

    Raises:
        WbcError: It is none.
    """
    origin = given.rstrip("/").lower()
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
        raise WbcError(f"{given}: not the origin of a site, such as https://lab.example.org or http://10.0.0.5:8080.")
    return origin


def check_host(given: str) -> str:
    """The name of a host, in lower case.

    Raises:
        WbcError: It is none, or says more.
    """
    if not given or _host_name(given) != given.lower():
        raise WbcError(f"{given}: not the name of a host alone, such as lab.example.org (no https://, no port).")
    return given.lower()


def _security_headers(origins: Sequence[str]) -> dict[str, str]:
    """Headers of every answer. Gradio's page needs scripts within it and made from text, and asks nobody else."""
    policy = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "media-src": "'self' data: blob:",
        "connect-src": "'self' data: blob:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": " ".join(("'self'", *origins)),
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-resource-policy": "cross-origin" if origins else "same-origin",
    }
    # It cannot name sites; browsers that know frame-ancestors do not look at it.
    return headers if origins else headers | {"x-frame-options": "SAMEORIGIN"}


def _bound_cookie(cookie: str, https: bool, same_site: str) -> str:
    parsed = SimpleCookie(cookie)
    for morsel in parsed.values():
        morsel["samesite"], morsel["secure"], morsel["httponly"] = same_site, https, True
    return parsed.output(header="").strip()


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path if path == "/" else path.rstrip("/")


def _first(value: str) -> str:
    """The first of several values, as proxies in a row write them."""
    return value.partition(",")[0].strip()


def _host_name(host: str) -> str:
    """`"lab.example.org:7860"` → `"lab.example.org"`; "" of what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
