"""Turns at reading and answering pictures: none starves another visitor, and memory is bounded by pixels in flight.

Gradio starts an event once there is a place for it, in the order of arrival, and an event may hold a hundred pictures
of 50 million pixels. So here every event starts, and waits for its turn at each picture or few.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import gradio as gr
from gradio.context import LocalContext

from wbc_hf.data import MAX_PIXELS
from wbc_hf.errors import WbcError

# A picture of one cell has fewer. They wait for each other only, so that a cell is answered in a moment.
SMALL_PIXELS = 2**18
AT_A_TIME = 2  # in each lane
MAX_WAITING = 48  # of one visitor


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A visitor, by user name or address, who waits to read so many pixels; `number` is that of arrival."""

    visitor: str
    session: str
    pixels: int
    number: int


class Lane:
    """Lets a number of pixels at a time through, and next whoever has had no turn for the longest time.

    Args:
        pixels: Of all pictures that are read at a time.
    """

    def __init__(self, pixels: int):
        self._pixels, self._free, self._places = pixels, pixels, AT_A_TIME
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._numbers = count(1)
        # When visitors, and their sessions, last had a turn. A visitor gets no more turns for having more sessions.
        self._last: Counter[tuple[str, ...]] = Counter()

    @contextmanager
    def turn(self, pixels: int, visitor: str, session: str) -> Iterator[None]:
        """Wait for a turn, and hold it.

        Args:
            pixels: That are to be read. More than there are wait until all are free.
            visitor: User name or address.
            session: Of the visitor.

        Raises:
            WbcError: Too many requests of this visitor wait already.
        """
        with self._changed:
            if sum(other.visitor == visitor for other in self._waiting) >= MAX_WAITING:
                raise WbcError(f"{MAX_WAITING} of your requests wait already. Try again when one is answered.")
            me = _Waiting(visitor, session, min(pixels, self._pixels), next(self._numbers))
            self._waiting.append(me)
            try:
                self._changed.wait_for(lambda: self._places and self._next() is me and me.pixels <= self._free)
            finally:
                self._waiting.remove(me)
            self._last[visitor,] = self._last[visitor, session] = next(self._numbers)
            self._free, self._places = self._free - me.pixels, self._places - 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free, self._places = self._free + me.pixels, self._places + 1
                if not self._waiting:
                    self._last.clear()
                self._changed.notify_all()

    def _next(self) -> _Waiting:
        last = self._last
        return min(self._waiting, key=lambda it: (last[it.visitor,], last[it.visitor, it.session], it.number))


# One of each for the process: its processors and its memory are what is shared.
_SMALL, _LARGE = Lane(AT_A_TIME * SMALL_PIXELS), Lane(MAX_PIXELS)


def current_visitor() -> tuple[str, str]:
    """User name or address, and session, of whose event is handled in this thread; "" outside of one."""
    request: gr.Request | None = LocalContext.request.get(None)
    if request is None:
        return "", ""
    return request.username or (request.client.host if request.client else ""), request.session_hash or ""


def current_user() -> str:
    """Name of the user whose event is handled in this thread; "" where nobody signed in, or outside of one."""
    request: gr.Request | None = LocalContext.request.get(None)
    return "" if request is None else request.username or ""


@contextmanager
def turn(pixels: int, who: tuple[str, str] | None = None) -> Iterator[None]:
    """Wait for a visitor's turn to read pictures, and hold it. Not to be nested.

    Args:
        pixels: Of the pictures.
        who: User name or address, and session; by default of the current visitor.

    Raises:
        WbcError: Too many requests of this visitor wait already.
    """
    with (_SMALL if pixels <= SMALL_PIXELS else _LARGE).turn(pixels, *(who or current_visitor())):
        yield
