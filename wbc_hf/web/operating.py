"""What those who run the page ask it: whether it is well, and what it is. Neither says anything of a visitor."""

from collections.abc import Callable
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


def add_operation(app: Any, model: ModelIdentity, store: "SpecimenStore | None") -> None:
    """Let an application answer `/health` and `/version`.

    Args:
        app: Of the page, while it runs.
        model: In use.
        store: Where specimens are kept, or None.
    """

    def health(_: Request) -> Response:
        answer = check_health(store)
        return JSONResponse(answer, 200 if answer["status"] == "ok" else 503)

    def version(_: Request) -> Response:
        return JSONResponse({"software": __version__, "model": model.name, "model_version": model.version})

    routes: tuple[tuple[str, Callable[[Request], Response]], ...] = ((HEALTH, health), (VERSION, version))
    for path, answer in routes:
        # Before Gradio's own, one of which takes every path.
        app.router.routes.insert(0, Route(path, answer))


def check_health(store: "SpecimenStore | None") -> dict[str, str]:
    """Whether the page can do its work: `status` is "ok", or "degraded" where specimens cannot be kept or read.

    Args:
        store: Where specimens are kept, or None.
    """
    if store is None:
        return {"status": "ok", "store": "none"}
    if store.reading_only:
        return {"status": "degraded", "store": "can only be read"}
    try:
        store.find(most=1)
    except WbcError:
        return {"status": "degraded", "store": "cannot be read"}
    return {"status": "ok", "store": "can be written to"}
