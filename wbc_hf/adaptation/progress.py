"""Progress callbacks."""

from collections.abc import Callable

# Called with what is being done and the share of the whole that is done, 0 to 1.
ProgressCallback = Callable[[str, float], None]


def no_progress(what: str, share: float) -> None:
    """Ignore progress."""


def subprogress(progress: ProgressCallback, start: float, end: float) -> ProgressCallback:
    """Callback for a part of the work that begins and ends at these shares of the whole."""
    return lambda what, share: progress(what, start + share * (end - start))
