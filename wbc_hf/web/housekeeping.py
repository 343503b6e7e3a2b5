"""Clean-up while a page runs: sessions of visitors who are gone, temporary files, and freed memory."""

import contextlib
import os
import threading
import time
from collections.abc import Container
from datetime import datetime, timedelta

import gradio as gr
from gradio.route_utils import delete_files_created_by_app
from gradio.state_holder import StateHolder

from wbc_hf.memory import give_back_freed
from wbc_hf.web.session import Session

EVERY = 60  # seconds
# A tab that is open may hold a morning's review. One that was closed may come back after a break of the network.
# Programs that keep no connection have no tab: what they sent is answered at once.
KEEP_OPEN = timedelta(hours=8)
KEEP_CLOSED = timedelta(minutes=10)
KEEP_FILES = 3600  # seconds; longer than any upload waits to be read


def start_housekeeping(page: gr.Blocks, open_tabs: Container[str]) -> None:
    """Clean up every minute, in the background, as long as a launched page runs.

    Args:
        page: The page.
        open_tabs: Hashes of the sessions that have an open tab at the moment.
    """
    threading.Thread(target=_clean_up, args=(page, open_tabs), daemon=True).start()


def drop_idle_sessions(visitors: StateHolder, now: datetime, open_tabs: Container[str]) -> None:
    """Drop sessions that were idle for long: specimens, and the last value of every component.

    Gradio by itself drops states an hour after a tab was closed, and keeps the values of components.
    """
    for session, touched in list(visitors.time_last_used.items()):
        state = visitors.session_data.get(session)
        holds_specimen = state is not None and any(isinstance(it, Session) for it in state.state_data.values())
        if now - touched > (KEEP_OPEN if holds_specimen and session in open_tabs else KEEP_CLOSED):
            with visitors.lock:
                visitors.session_data.pop(session, None)
                visitors.time_last_used.pop(session, None)


def remove_files(page: gr.Blocks, age: int = KEEP_FILES) -> None:
    """Remove uploads and answers older than `age` seconds from Gradio's temporary folder.

    Gradio's own schedule ends for good when a file comes in meanwhile; here the next minute tries again. It also
    forgets uploads that were cut off, and leaves the folders of all. A folder that the variable GRADIO_TEMP_DIR names
    is this page's alone, so all that is old there goes.
    """
    with contextlib.suppress(RuntimeError):  # the set of files changed
        delete_files_created_by_app(page, age)
    uploads = os.environ.get("GRADIO_TEMP_DIR")
    if not uploads:
        return
    kept = {file for component in page.blocks.values() for file in getattr(component, "keep_in_cache", ())}
    before = time.time() - age
    for folder, _, files in os.walk(uploads, topdown=False):
        for file in (os.path.join(folder, name) for name in files):
            with contextlib.suppress(OSError):
                if file not in kept and os.lstat(file).st_ctime <= before:
                    os.remove(file)
        with contextlib.suppress(OSError):  # it holds something, or an upload has just begun in it
            if os.lstat(folder).st_mtime <= before and folder != uploads:
                os.rmdir(folder)


def _clean_up(page: gr.Blocks, open_tabs: Container[str]) -> None:
    while page.is_running:
        time.sleep(EVERY)
        drop_idle_sessions(page.state_holder, datetime.now(), open_tabs)
        remove_files(page)
        give_back_freed()
