"""How far an adaptation is."""

from collections.abc import Callable

# Told what is being done, and how far all of it is, 0 to 1.
Progress = Callable[[str, float], None]


def silent(what: str, share: float) -> None:
    """Tell nobody."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """Progress of a part of the work, which begins and ends at these shares of the whole."""
    return lambda what, share: progress(what, start + share * (end - start))
