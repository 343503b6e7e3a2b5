"""`wbc-hf serve`, and what `app.py` runs: the web page."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_hf.cli.shared import MODEL_HELP, exit_on_error
from wbc_hf.default_model import choose_model
from wbc_hf.errors import WbcError, needs_extra
from wbc_hf.files import own_temporary_folder
from wbc_hf.safe_text import log_as_json, say

if TYPE_CHECKING:
    from wbc_hf.adaptation import Laboratories
    from wbc_hf.store import SpecimenStore

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
ROLES = "WBC_HF_ROLES"
USERS = "WBC_HF_USERS"  # not an argument: everybody on the machine can read those


def serve(
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    host: Annotated[
        str,
        typer.Option(envvar="GRADIO_SERVER_NAME", help="Address to listen at; 0.0.0.0 lets other machines in."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="GRADIO_SERVER_PORT", min=1, max=65535, help="Port to listen at.")
    ] = 7860,
    ranges: Annotated[
        Path | None, typer.Option(help="Reference ranges in percent: YAML, `neutrophil: [39, 75]`.")
    ] = None,
    types: Annotated[
        Path | None,
        typer.Option(
            help="The laboratory's own types of cells, which a person may name in review: TOML, such as "
            "configs/types.toml."
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder of known cells, a sub-folder per class; the most similar appear beside a prediction."
        ),
    ] = None,
    laboratories: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which visitors keep laboratories. Default: that of `wbc-hf laboratories` where the page "
            "listens to this machine alone; else none are kept."
        ),
    ] = None,
    slides: Annotated[
        Path | None,
        typer.Option(
            help="Folder of whole slides on this machine that every visitor may read; files outside of it stay "
            "closed. Specimens that were kept or loaded go on reading theirs. Needs the extra `slides`."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Folder in which specimens are kept: pictures, reviews, history, and what the fields say of "
            "patients; or a PostgreSQL database for several servers, postgresql+psycopg://user@host/database, with "
            "the password in the variable PGPASSWORD or in ~/.pgpass (extra `postgres`). Default: nothing is kept. "
            "Where other machines reach the page it needs --auth.",
        ),
    ] = None,
    store_quota: Annotated[float | None, typer.Option(min=0.001, help="Most GB of pictures to keep.")] = None,
    ask_after: Annotated[
        int, typer.Option(min=1, help="Days after which the work list asks about unsigned specimens.")
    ] = 14,
    auth: Annotated[
        bool,
        typer.Option("--auth", help=f"Admit only the users in the variable {USERS}: name:password, space-separated."),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which the page may be reached, such as lab.example.org; more than once for more. Addresses, "
            "localhost and the name of this machine always may."
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Other site that may use the page and show it in a frame, such as https://intranet.example.org; "
            "more than once for more. Default: none."
        ),
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path below which a reverse proxy serves the page, such as /leucocytes.")
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line, for log collectors.")
    ] = False,
    mcp: Annotated[
        bool,
        typer.Option("--mcp", help="Offer the page's endpoints to language models as tools. Needs the extra `mcp`."),
    ] = False,
) -> None:
    """Serve a model as a web page: single cells, whole smears, adaptation to a laboratory.

    wbc-hf serve --model runs/cells --port 8000

    wbc-hf serve --ranges ranges.yaml --references cells/ --slides scans/

    wbc-hf serve --store specimens/ --types configs/types.toml

    PGPASSWORD="..." wbc-hf serve --store postgresql+psycopg://wbc@db.example.org/specimens

    WBC_HF_USERS="ana:secret" wbc-hf serve --host 0.0.0.0 --auth --root-path /leucocytes --allow-host lab.example.org
    """
    if store is not None and not auth and host not in _THIS_MACHINE:
        raise WbcError(f"--store: {host} lets other machines in. Add --auth, so that not everybody reads specimens.")
    if log_json:
        log_as_json()
    model = choose_model(model)
    users = read_users(os.environ.pop(USERS, None)) if auth else []
    # A folder of its own for uploads: Gradio names them after their content and removes them when a page ends, also
    # those of another page on the same machine. It goes with this one.
    with _end_on_sigterm(), own_temporary_folder("wbc_hf-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
        from wbc_hf.adaptation import Laboratories
        from wbc_hf.hardware import use_one_blas_thread
        from wbc_hf.inference import Predictor, ReferenceCells
        from wbc_hf.memory import keep_memory_level
        from wbc_hf.smear import DEFAULT_RANGES, NO_TYPES, load_ranges, load_types

        with needs_extra("web"):
            from wbc_hf.web import build_page, launch_page, parse_roles

        reference_ranges = load_ranges(ranges) if ranges else DEFAULT_RANGES
        own_types = load_types(types) if types else NO_TYPES
        keep_memory_level()
        use_one_blas_thread()
        predictor = Predictor.from_pretrained(model)
        cells = ReferenceCells.from_folder(references, predictor) if references else None
        kept = Laboratories(laboratories) if laboratories is not None or host in _THIS_MACHINE else None
        if kept is not None:
            _tidy(kept)
        specimens = None if store is None else _open_store(store, store_quota)
        page = build_page(
            predictor,
            ranges=reference_ranges,
            types=own_types,
            references=cells,
            laboratories=kept,
            slides=slides,
            store=specimens,
            roles=parse_roles(os.environ.pop(ROLES, None), [name for name, _ in users]),
            ask_after=timedelta(days=ask_after),
        )
        url = launch_page(
            page,
            host,
            port,
            users=users,
            hosts=allow_host or (),
            origins=allow_origin or (),
            root_path=root_path,
            mcp=mcp,
            model=predictor.identity,
            store=specimens,
        )
        del users  # the page keeps hashes
        say(f"{model} answers at {url}  (Ctrl+C ends it)", flush=True)
        page.block_thread()


def _open_store(place: str, quota: float | None) -> "SpecimenStore":
    """Open a store of specimens with a quota in GB, and say where it can only be read."""
    with needs_extra("store"):
        from wbc_hf.store import SpecimenStore
    opened = SpecimenStore(place, None if quota is None else round(quota * 1e9))
    if opened.reading_only:
        say(f"app.py: {opened.reading_only}", error=True)
    opened.tidy()
    return opened


def _tidy(store: "Laboratories") -> None:
    """Remove what a killed page left of laboratories. One that is only read, or in use elsewhere, does not matter."""
    try:
        store.tidy()
    except WbcError as error:
        say(f"app.py: {error}", error=True)


@contextmanager
def _end_on_sigterm() -> Iterator[None]:
    """Let the signal by which service managers end a program do what Ctrl+C does: end the page and clean up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_users(given: str | None) -> list[tuple[str, str]]:
    """Parse `"ana:secret ben:other"` into names and passwords.

    Raises:
        WbcError: There are none, or one has no name or no password.
    """
    users = [(name, password) for name, _, password in (user.partition(":") for user in (given or "").split())]
    if not users or not all(name and password for name, password in users):
        raise WbcError(
            f"--auth: the variable {USERS} must hold name:password, separated by spaces. It is empty, or a name or a "
            "password is missing."
        )
    return users


def main(argv: Sequence[str] | None = None) -> None:
    """Run `app.py`: serve until interrupted.

    Raises:
        SystemExit: 0 at the end, 2 with a message where an argument cannot be used.
    """
    single = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    single.command()(serve)
    with exit_on_error("app.py"):
        single(args=argv, prog_name="app.py")
