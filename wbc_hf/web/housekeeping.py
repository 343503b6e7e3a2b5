"""Clean-up while a page runs: sessions of visitors who are gone, temporary files, and freed memory."""

import contextlib
import threading
import time
from datetime import datetime, timedelta

import gradio as gr
from gradio.route_utils import delete_files_created_by_app
from gradio.state_holder import SessionState, StateHolder

from wbc_hf.memory import give_back_freed
from wbc_hf.web.session import Session

EVERY = 60  # seconds
# A tab that is open may hold a morning's review. One that was closed may come back after a break of the network.
# Programs have no tab: what they sent is answered at once.
KEEP_OPEN = timedelta(hours=8)
KEEP_CLOSED = timedelta(minutes=10)
KEEP_FILES = 3600  # seconds; longer than any upload waits to be read


def start_housekeeping(page: gr.Blocks) -> None:
    """Clean up every minute, in the background, as long as a launched page runs."""
    threading.Thread(target=_clean_up, args=(page,), daemon=True).start()


def drop_idle_sessions(visitors: StateHolder, now: datetime) -> None:
    """Drop sessions that were idle for long: specimens, and the last value of every component.

    Gradio by itself drops states an hour after a tab was closed, and keeps the values of components.
    """
    for session, touched in list(visitors.time_last_used.items()):
        if now - touched > _time_to_keep(visitors.session_data.get(session)):
            with visitors.lock:
                visitors.session_data.pop(session, None)
                visitors.time_last_used.pop(session, None)


def remove_files(page: gr.Blocks, age: int = KEEP_FILES) -> None:
    """Remove uploads and answers older than `age` seconds from Gradio's temporary folder.

    Gradio's own schedule ends for good when a file comes in meanwhile; here the next minute tries again.
    """
    with contextlib.suppress(RuntimeError):  # the set of files changed
        delete_files_created_by_app(page, age)


def _time_to_keep(state: SessionState | None) -> timedelta:
    if state is None or state.is_closed or not any(isinstance(value, Session) for value in state.state_data.values()):
        return KEEP_CLOSED
    return KEEP_OPEN


def _clean_up(page: gr.Blocks) -> None:
    while page.is_running:
        time.sleep(EVERY)
        drop_idle_sessions(page.state_holder, datetime.now())
        remove_files(page)
        give_back_freed()
