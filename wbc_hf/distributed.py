"""What the processes of one launch do together, by `torchrun` or `accelerate launch`; one alone does it by itself."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from wbc_hf.errors import WbcError

T = TypeVar("T")


def on_first_process(work: Callable[[], T]) -> T:
    """What `work` returns on the first process, for all; its WbcError is raised on all, so that none waits for it."""
    outcome: list[T | WbcError | None] = [None]
    if PartialState().is_main_process:
        try:
            outcome = [work()]
        except WbcError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], WbcError):
        raise outcome[0]
    return outcome[0]
