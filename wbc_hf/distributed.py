"""Work shared by the processes of one `torchrun` or `accelerate launch`; a single process works too."""

from collections.abc import Callable
from typing import TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from wbc_hf.errors import WbcError

T = TypeVar("T")


def on_first_process(work: Callable[[], T]) -> T:
    """Run `work` on the first process and return its result on all; its WbcError is raised on all."""
    outcome: list[T | WbcError | None] = [None]
    if PartialState().is_main_process:
        try:
            outcome = [work()]
        except WbcError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], WbcError):
        raise outcome[0]
    return cast(T, outcome[0])
