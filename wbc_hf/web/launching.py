"""Serve the page."""

import os
import re
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import gradio as gr

from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity
from wbc_hf.web.access import Access, check_host, check_origin
from wbc_hf.web.checked_blocks import answer_wrong_names
from wbc_hf.web.housekeeping import start_housekeeping
from wbc_hf.web.operating import add_operation
from wbc_hf.web.rendering import read_text
from wbc_hf.web.uploads import MAX_FILE_SIZE
from wbc_hf.web.users import Users

if TYPE_CHECKING:
    from wbc_hf.store import SpecimenStore

MAX_THREADS = 160  # most of them wait for their turn, see `turns`

# Gradio lets a style sheet reach no further out than the page's content.
PAGE_STYLE = (
    "<style>@media (max-width: 640px) { .main.fillable { padding: 12px !important; } } "
    "@media print { footer { display: none !important; } "
    # Paper is white: what is written in pale letters on a dark screen would not be seen on it.
    ".dark { color-scheme: light !important; --body-background-fill: white !important; "
    "--block-background-fill: white !important; --input-background-fill: white !important; "
    "--background-fill-primary: white !important; --background-fill-secondary: white !important; "
    "--body-text-color: #111827 !important; --body-text-color-subdued: #475569 !important; "
    "--block-title-text-color: #475569 !important; --input-placeholder-color: #475569 !important; "
    "--border-color-primary: #cbd5e1 !important; } }</style>"
)

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "Consolas", "monospace")


def launch_page(
    page: gr.Blocks,
    host: str,
    port: int | None,
    *,
    users: Sequence[tuple[str, str]] = (),
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    root_path: str | None = None,
    mcp: bool = False,
    model: ModelIdentity | None = None,
    store: "SpecimenStore | None" = None,
) -> str:
    """Serve a page in the background.

    Args:
        page: What `build_page` gave.
        host: Address to listen at.
        port: Port to listen at; None for any that is free.
        users: Names and passwords of those who may sign in; everybody if empty.
        hosts: Names by which the page may be reached, beside addresses, localhost and the name of this machine.
        origins: Other sites that may use the page and show it in a frame, such as "https://lab.example.org".
        root_path: The path below which a reverse proxy serves the page, such as "/leucocytes".
        mcp: Whether language models may use the endpoints as tools (Model Context Protocol).
        model: What `/version` names; without it, the page answers neither `/version` nor `/health`.
        store: Where specimens are kept, which `/health` looks at.

    Returns:
        Its URL.

    Raises:
        WbcError: Nothing can listen at this address and port, a name or origin is none, or what MCP needs is not
            installed.
    """
    hosts, origins = [check_host(name) for name in hosts], [check_origin(origin) for origin in origins]
    space = os.environ.get("SPACE_ID", "")
    if space:
        # A Space is reached through the Hub's proxy alone, which says who asks.
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")
        hosts = [*hosts, os.environ.get("SPACE_HOST") or re.sub(r"[^a-z0-9]+", "-", space.lower()) + ".hf.space"]
    admitted = Users(users) if users else None
    access = Access(admitted, hosts=[*hosts, host], origins=origins, in_space=bool(space))
    try:
        app, url, _ = page.launch(
            server_name=host,
            server_port=_free_port(host) if port is None else port,
            theme=_theme(),
            css=read_text("style.css"),
            js=read_text("behaviour.js"),
            head=PAGE_STYLE,
            auth=admitted and admitted.check,  # type: ignore[arg-type]  # Gradio awaits it
            root_path=root_path,
            max_file_size=MAX_FILE_SIZE,
            share=False,
            footer_links=["api"],
            run_history=False,  # it would keep pictures of cells in the browser
            enable_monitoring=False,
            mcp_server=mcp,
            max_threads=MAX_THREADS,
            app_kwargs={
                "exception_handlers": dict.fromkeys((KeyError, TypeError), answer_wrong_names),
                "lifespan": access.lifespan,
            },
            ssr_mode=False,  # needs Node.js, which a laboratory need not have
            prevent_thread_lock=True,
            quiet=True,  # its lines advertise public links
        )
    except OSError as error:
        raise WbcError(
            f"{host}:{port}: cannot be listened at, as a rule because another program does. "
            "Choose another port with --port."
        ) from error
    except ImportError as error:
        raise WbcError("MCP needs one more package: pip install 'wbc-hf[mcp]'.") from error
    if model is not None:
        add_operation(app, model, store)
    start_housekeeping(page, access.open_tabs)
    if mcp:
        from wbc_hf.web.tools import mend_tools

        mend_tools(page)
    return url


def _free_port(host: str) -> int:
    """A port that nothing listens at. Gradio would try one after the other, as another page may do just then."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        return probe.getsockname()[1]


def _theme() -> gr.themes.Base:
    """Gradio's own with the fonts of the reader's system, and its pale greys and greens dark enough to read."""
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS)
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_700",
        link_text_color_dark="*primary_300",
        link_text_color_hover_dark="*primary_200",
        link_text_color_visited_dark="*primary_300",
        link_text_color_active_dark="*primary_200",
        loader_color="*primary_600",
    )
