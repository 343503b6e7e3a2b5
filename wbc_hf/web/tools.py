"""The endpoints as tools of language models (Model Context Protocol): what Gradio's own server needs to serve them.

Gradio 6.31 looks for the files of a list where the list's schema is, so it finds none; it downloads what was uploaded
to itself, which its own protection against such requests refuses; it asks its page without the caller's credentials,
so nobody may do anything where users sign in; and it sends records as Python prints them.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import gradio as gr
from gradio_client import Client, handle_file
from gradio_client.utils import is_file_obj_with_meta

from wbc_hf.web.arguments import FILE_URL

MAX_CLIENTS = 32  # users at a time; each has threads of its own


def mend_tools(page: gr.Blocks) -> None:
    """Make every endpoint callable as a tool, also with lists of pictures and where users sign in.

    Args:
        page: Launched with its MCP server.
    """
    server: Any = page.mcp_server_obj
    client_of = lru_cache(MAX_CLIENTS)(lambda *cookies: _connect(server.local_url, dict(cookies)))
    content_of = server.postprocess_output_data
    server.convert_strings_to_filedata = lambda arguments, _: {
        name: _mark_addresses(value) for name, value in arguments.items()
    }
    # `Access` has made sure that whoever asks is signed in, and by which cookie.
    server._get_or_create_client = lambda: client_of(
        *(sorted(server.mcp_server.request_context.request.cookies.items()) if page.auth else ())
    )
    server.postprocess_output_data = lambda answers, root: content_of([_to_text(answer) for answer in answers], root)


def _mark_addresses(value: object) -> object:
    """Mark addresses on other machines as files to download. Data URLs and uploads are read by the endpoints."""
    if isinstance(value, list):
        return [_mark_addresses(element) for element in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")) and FILE_URL not in value:
        return handle_file(value)
    return value


def _connect(url: str, cookies: Mapping[str, str]) -> Client:
    """Connect to the page as the user who called a tool."""
    options: Mapping[str, Any] = {"download_files": False, "verbose": False, "analytics_enabled": False}
    return Client(
        url,
        httpx_kwargs={"cookies": dict(cookies)},
        headers={"x-gradio-user": "mcp"},
        ssl_verify=False,
        _skip_components=False,
        **options,
    )


def _to_text(answer: object) -> object:
    """Write a record as JSON; leave a file as it is."""
    return (
        answer if is_file_obj_with_meta(answer) or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    )
