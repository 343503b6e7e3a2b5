"""Gradio's blocks, whose endpoints answer in a sentence also where Gradio itself cannot use what it was sent."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState

from wbc_hf.errors import WbcError
from wbc_hf.web.access import log_error
from wbc_hf.web.arguments import HOW_TO_SEND, shown

_ANOTHER = "This tab is of somebody who signed in before. Reload the page, so that it is yours."
UNEXPECTED = "Something went wrong on the server; its log says where. The page goes on."


class CheckedBlocks(gr.Blocks):
    """A page whose endpoints say what is wrong with what they were sent.

    Gradio (6.31) answers `{"error": null}` to a wrong number of values and to a wrong file among them, before it calls
    an endpoint. What nobody foresaw it prints whole; here the log gets no message of an error, which may name a
    visitor's file.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        # Who began a session; None where nobody signs in.
        self._owners: WeakKeyDictionary[SessionState, str | None] = WeakKeyDictionary()
        super().__init__(*args, **kwargs)

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Handle an event; `gr.Error` says what is wrong."""
        of_the_page = getattr(kwargs.get("block_fn"), "api_visibility", "") != "public"
        # Endpoints keep no state, and Gradio's MCP server calls them in one session for all users.
        if of_the_page:
            self._check_owner(kwargs.get("state"), kwargs.get("request"))
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error:
            raise
        except WbcError as error:  # which a user can solve
            if of_the_page:  # whose own handlers say what they foresee
                log_error(error)
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            log_error(error)
            raise gr.Error(UNEXPECTED, print_exception=False) from None

    def _check_owner(self, state: SessionState | None, request: Any) -> None:
        """Refuse a session that another user began: Gradio gives it to whoever names it.

        As a rule it is a tab that somebody left open in a browser in which another has signed in since.
        """
        user = getattr(request, "username", None)
        if state is not None and self._owners.setdefault(state, user) != user:
            raise gr.Error(_ANOTHER, print_exception=False)

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """Check what an endpoint was sent; `gr.Error` says what is wrong."""
        if block_fn.api_visibility != "public":
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        names = [str(name) for name in block_fn.input_parameter_names]
        if len(inputs) != len(names):
            problem = (
                f"/{block_fn.api_name} takes {len(names)} values ({', '.join(names)}), and {len(inputs)} were given."
            )
            raise gr.Error(problem, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except Exception as error:  # whatever: it looks for files only, and fails on paths, addresses and types
            raise gr.Error(_describe_file(names, inputs), print_exception=False) from error


async def answer_wrong_names(request: Request, error: Exception) -> JSONResponse:
    """Name an endpoint or an argument that does not exist, of a request that names its arguments (/call/v2)."""
    if "/call/v2/" not in request.url.path:
        raise error
    if isinstance(error, KeyError):
        return JSONResponse({"error": f"There is no endpoint {error}."}, status_code=404)
    return JSONResponse({"error": str(error)}, status_code=422)


def _describe_file(names: Sequence[str], values: Sequence[object]) -> str:
    """Say which value holds a file that was not uploaded."""
    name, value = next(
        ((name, value) for name, value in zip(names, values, strict=True) if _holds_file(value)), (names[0], values[0])
    )
    return f"{name}: {shown(value)} is not a file that was uploaded here. {HOW_TO_SEND}"


def _holds_file(value: object) -> bool:
    if isinstance(value, dict):
        return {"path", "meta"} <= value.keys() or any(map(_holds_file, value.values()))
    return isinstance(value, list) and any(map(_holds_file, value))
