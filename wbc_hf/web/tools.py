"""The endpoints as tools of language models (Model Context Protocol): what Gradio's own server needs to serve them.

Gradio 6.31 looks for the files of a list where the list's schema is, so it finds none; it downloads what was uploaded
to itself, which its own protection against such requests refuses; it asks its page without the caller's credentials,
so nobody may do anything where users sign in; and it sends records as Python prints them.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio_client import Client, handle_file
from gradio_client.exceptions import AuthenticationError
from gradio_client.utils import is_file_obj_with_meta

from wbc_hf.errors import WbcError
from wbc_hf.web.arguments import FILE_URL

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_CLIENTS = 32  # users at a time; each has threads of its own
SIGN_IN = (
    "This page admits only users who sign in. Send a name and password as the header Authorization (Basic), or the "
    "cookie that /login gives."
)


def mend_tools(page: gr.Blocks) -> None:
    """Make every endpoint callable as a tool, also with lists of pictures and where users sign in.

    Args:
        page: Launched with its MCP server.
    """
    server: Any = page.mcp_server_obj
    client_of = lru_cache(MAX_CLIENTS)(lambda *credentials: _connect(server.local_url, *credentials))
    content_of = server.postprocess_output_data
    server.convert_strings_to_filedata = lambda arguments, _: {
        name: _mark_addresses(value) for name, value in arguments.items()
    }
    server._get_or_create_client = lambda: client_of(
        *(_credentials(server.mcp_server.request_context.request) if page.auth else ((), ""))
    )
    server.postprocess_output_data = lambda answers, root: content_of([_to_text(answer) for answer in answers], root)


def _mark_addresses(value: object) -> object:
    """Mark addresses on other machines as files to download. Data URLs and uploads are read by the endpoints."""
    if isinstance(value, list):
        return [_mark_addresses(element) for element in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")) and FILE_URL not in value:
        return handle_file(value)
    return value


def _credentials(request: "Request") -> tuple[tuple[tuple[str, str], ...], str]:
    """Cookies and the header Authorization of a request: whatever tells who sent it."""
    return tuple(sorted(request.cookies.items())), request.headers.get("authorization", "")


def _connect(url: str, cookies: tuple[tuple[str, str], ...], authorization: str) -> Client:
    """Connect to the page as the user who called a tool.

    Raises:
        WbcError: The page admits only users who sign in, and the credentials are none of theirs.
    """
    options: Mapping[str, Any] = {"download_files": False, "verbose": False, "analytics_enabled": False}
    try:
        return Client(
            url,
            auth=_read_basic(authorization),
            httpx_kwargs={"cookies": dict(cookies)},
            headers={"x-gradio-user": "mcp"},
            ssl_verify=False,
            _skip_components=False,
            **options,
        )
    except (AuthenticationError, ValueError) as error:
        raise WbcError(SIGN_IN) from error


def _read_basic(authorization: str) -> tuple[str, str] | None:
    """Name and password of a header "Basic …"; None of any other."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise WbcError(SIGN_IN) from None
    return name, password


def _to_text(answer: object) -> object:
    """Write a record as JSON; leave a file as it is."""
    return (
        answer if is_file_obj_with_meta(answer) or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    )
