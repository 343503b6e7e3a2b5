"""What those who run the page ask it: whether it is well, and what it is. Neither says anything of a visitor."""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wbc_hf import __version__
from wbc_hf.errors import WbcError
from wbc_hf.inference import ModelIdentity

if TYPE_CHECKING:
    from wbc_hf.store import SpecimenStore

HEALTH, VERSION = "/health", "/version"  # the first is answered to everybody, the second to those who may sign in
WELL = ("none", "can be written to")  # states of the store in which the page can do its work


def add_operation(app: Any, model: ModelIdentity, store: "SpecimenStore | None") -> None:
    """Let an application answer `/health` and `/version`.

    The `status` of health is "ok", or "degraded" where specimens cannot be kept or read.

    Args:
        app: Of the page, while it runs.
        model: In use.
        store: Where specimens are kept, or None.
    """

    def health(_: Request) -> Response:
        state = _describe_store(store)
        well = state in WELL
        return JSONResponse({"status": "ok" if well else "degraded", "store": state}, 200 if well else 503)

    def version(_: Request) -> Response:
        return JSONResponse({"software": __version__, "model": model.name, "model_version": model.version})

    # Before Gradio's own, one of which takes every path.
    app.router.routes[:0] = [Route(HEALTH, health), Route(VERSION, version)]


def _describe_store(store: "SpecimenStore | None") -> str:
    if store is None:
        return "none"
    if store.reading_only:
        return "can only be read"
    try:
        store.find(most=1)
    except WbcError:
        return "cannot be read"
    return "can be written to"
