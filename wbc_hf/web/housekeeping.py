"""What a page gives up while it runs: visitors who are gone, with all that Gradio keeps of them, files, and memory."""

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


def _keep(state: SessionState | None) -> timedelta:
    reviewing = state is not None and any(isinstance(value, Session) for value in state.state_data.values())
    return KEEP_OPEN if reviewing and not state.is_closed else KEEP_CLOSED


def _keep_house(page: gr.Blocks) -> None:
    while page.is_running:
        time.sleep(EVERY)
        forget_visitors(page.state_holder, datetime.now())
        remove_files(page)
        give_back_freed()
