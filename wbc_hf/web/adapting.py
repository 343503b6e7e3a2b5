"""Adapt the page's model to the cells of a visitor's specimen, with the time that is left, and a way to stop."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wbc_hf.adaptation import Adaptation, AdaptationCell, adapt
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor

# Options of Gradio's events: as many begin, and wait for their turn below, where they can be told so and cancelled.
ADAPTATIONS: dict[str, Any] = {"concurrency_id": "adaptations", "concurrency_limit": 16, "api_visibility": "private"}

_SOONEST = 2.0  # seconds, before which nothing is known of the time left
_LOOK_EVERY = 0.2  # seconds, whether a visitor who waits has cancelled

# An adaptation takes all cores, for up to a minute or more, so they take turns, in the order of arrival.
_line: list[object] = []
_moved = threading.Condition()

AS_BEFORE = "The model is as it was before."


class CancelledError(WbcError):
    """The visitor cancelled the adaptation; everything is as it was."""


@dataclass(frozen=True)
class Adapted:
    """A model adapted in a session. Its files are removed with it.

    Attributes:
        adaptation: What was done and measured.
        folder: Of the model.
        predictor: Of the model.
    """

    adaptation: Adaptation
    folder: Path
    predictor: Predictor
    _temporary: TemporaryDirectory


@contextmanager
def adaptation_turn(progress: Callable[[str, float], None], cancelled: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other adaptation runs on this page, and hold the turn.

    Args:
        progress: Called with a sentence whenever the number of those who come before has changed, and the share 0.
        cancelled: Whether to stop waiting.

    Raises:
        CancelledError: The visitor cancelled.
    """
    me, told = object(), 0
    with _moved:
        _line.append(me)
    try:
        while True:
            with _moved:
                before = _line.index(me)
                if before and before == told:
                    _moved.wait(_LOOK_EVERY)
            if cancelled():
                raise CancelledError(AS_BEFORE)
            if not before:
                break
            if before != told:
                told = before
                others = "another adaptation" if before == 1 else f"{before} other adaptations"
                progress(f"Waiting for {others}: one runs at a time", 0)
        yield
    finally:
        with _moved:
            _line.remove(me)
            _moved.notify_all()


def adapt_model(
    base: Predictor,
    cells: Sequence[AdaptationCell],
    progress: Callable[[str, float], None],
    cancelled: Callable[[], bool],
) -> Adapted:
    """Adapt a model to cells, once no other adaptation runs on this page.

    Args:
        base: The model.
        cells: From `gather_cells`.
        progress: Called with a sentence that names the step and the time left, and the share done, 0 to 1.
        cancelled: Whether to stop.

    Raises:
        CancelledError: The visitor cancelled.
        WbcError: From `adapt`.
    """
    started = 0.0

    def report(step: str, share: float) -> None:
        if cancelled():
            raise CancelledError(AS_BEFORE)
        progress(f"{step}{_time_left(time.monotonic() - started, share)}", share)

    temporary = TemporaryDirectory(prefix="wbc-adapted-")
    folder = Path(temporary.name) / "model"
    try:
        with adaptation_turn(progress, cancelled):
            started = time.monotonic()
            adaptation = adapt(base.name, cells, folder, progress=report)
            adapted = Predictor.from_pretrained(folder, fresh=True)
        adapted.rename(f"{base.identity.name}, adapted")
        return Adapted(adaptation, folder, adapted, temporary)
    except BaseException:
        temporary.cleanup()
        raise


def _time_left(elapsed: float, share: float) -> str:
    if elapsed < _SOONEST or not share:
        return ""
    return f", about {max(1, round(elapsed * (1 - share) / share))} s left"
