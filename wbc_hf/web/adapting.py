"""Adapt the page's model to the cells of a visitor's specimen, with the time that is left, and a way to stop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wbc_hf.adaptation import Adaptation, AdaptationCell, adapt
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor

# Options of Gradio's events: an adaptation takes all cores for half a minute or more, so a second waits for the first.
ADAPTATIONS: dict[str, Any] = {"concurrency_id": "adaptations", "concurrency_limit": 1, "api_visibility": "private"}

_SOONEST = 2.0  # seconds, before which nothing is known of the time left


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


def adapt_model(
    model: str | Path,
    cells: Sequence[AdaptationCell],
    progress: Callable[[str, float], None],
    cancelled: Callable[[], bool],
) -> Adapted:
    """Adapt a model to cells.

    Args:
        model: Folder or Hub id.
        cells: Of the specimen, from `cells_to_learn`.
        progress: Called with a sentence that names the step and the time left, and the share done, 0 to 1.
        cancelled: Whether to stop.

    Raises:
        CancelledError: The visitor cancelled.
        WbcError: From `adapt`.
    """
    started = time.monotonic()

    def report(step: str, share: float) -> None:
        if cancelled():
            raise CancelledError("The model is as it was before.")
        progress(f"{step}{_time_left(time.monotonic() - started, share)}", share)

    temporary = TemporaryDirectory(prefix="wbc-adapted-")
    folder = Path(temporary.name) / "model"
    try:
        adaptation = adapt(model, cells, folder, progress=report)
        return Adapted(adaptation, folder, Predictor.from_pretrained(folder, fresh=True), temporary)
    except BaseException:
        temporary.cleanup()
        raise


def _time_left(elapsed: float, share: float) -> str:
    if elapsed < _SOONEST or not share:
        return ""
    return f", about {max(1, round(elapsed * (1 - share) / share))} s left"
