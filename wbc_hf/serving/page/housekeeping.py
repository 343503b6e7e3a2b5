"""What a page gives up while it runs: visitors who are gone, with all that Gradio keeps of them, files, and memory."""

import contextlib
import ctypes
import platform
import threading
import time
from datetime import datetime, timedelta

import gradio as gr
from gradio.route_utils import delete_files_created_by_app
from gradio.state_holder import SessionState, StateHolder

from wbc_hf.serving.page.bench import Bench

EVERY = 60  # seconds
# A tab that is open may hold a morning's review. One that was closed may come back after a break of the network.
# Programs have no tab: what they sent is answered at once.
KEEP_OPEN = timedelta(hours=8)
KEEP_CLOSED = timedelta(minutes=10)
KEEP_FILES = 3600  # seconds; longer than any upload waits to be read

# Numbers of the two settings in mallopt(3), and what they are set to.
M_MMAP_THRESHOLD, LARGE = -3, 2**17  # bytes
M_ARENA_MAX, ARENAS = -8, 2


def keep_memory_level() -> None:
    """Have the C library give back what pictures took once they are answered; to be called before a model is loaded.

    glibc gives nearly every thread a heap of its own, up to eight for each core, and Gradio answers in whichever
    thread is free: each heap grew to the most that it ever held, and kept it. Two are enough for a page whose model
    answers one or two at a time, and what is large is mapped apart, whatever was freed before, and unmapped at once.
    Heaps that are there already stay, and loading a model starts some. Other C libraries have neither these heaps nor
    this call.
    """
    if libc := _glibc():
        libc.mallopt(M_ARENA_MAX, ARENAS)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)


def start_housekeeping(page: gr.Blocks) -> None:
    """Tidy up every minute, in the background, for as long as a launched page runs."""
    threading.Thread(target=_keep_house, args=(page,), daemon=True).start()


def forget_visitors(visitors: StateHolder, now: datetime) -> None:
    """Drop the sessions that were not touched for long: specimens, and the last value of every part of the page.

    Gradio by itself drops states an hour after a tab was closed, and keeps what the page showed.
    """
    for session, touched in list(visitors.time_last_used.items()):
        if now - touched > _keep(visitors.session_data.get(session)):
            with visitors.lock:
                visitors.session_data.pop(session, None)
                visitors.time_last_used.pop(session, None)


def remove_files(page: gr.Blocks, age: int = KEEP_FILES) -> None:
    """Remove uploads and answers older than `age` seconds from Gradio's temporary folder.

    Gradio's own schedule ends for good when a file comes in while it looks; here the next minute tries again.
    """
    with contextlib.suppress(RuntimeError):  # the set of files changed
        delete_files_created_by_app(page, age)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _keep(state: SessionState | None) -> timedelta:
    reviewing = state is not None and any(isinstance(value, Bench) for value in state.state_data.values())
    return KEEP_OPEN if reviewing and not state.is_closed else KEEP_CLOSED


def _keep_house(page: gr.Blocks) -> None:
    libc = _glibc()
    while page.is_running:
        time.sleep(EVERY)
        forget_visitors(page.state_holder, datetime.now())
        remove_files(page)
        if libc:
            libc.malloc_trim(0)  # what was freed within the heaps
