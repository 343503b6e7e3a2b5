"""How the C library holds on to memory: in a page that runs for weeks, and in a training that repeats one step.

mallopt(3) and malloc_trim(3) are glibc's. Other C libraries have neither these heaps nor these calls: there, all of
this does nothing.
"""

import ctypes
import platform

# Numbers of the settings of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_ARENAS, _LARGE, _NEVER = 2, 2**17, 2**31 - 1  # heaps, bytes, bytes


def keep_memory_level() -> None:
    """Have a page give back what pictures took once they are answered; to be called before a model is loaded.

    glibc gives nearly every thread a heap of its own, up to eight for each core, and Gradio answers in whichever
    thread is free: each heap grew to the most that it ever held, and kept it. Two are enough for a page whose model
    answers one or two at a time, and what is large is mapped apart, whatever was freed before, and unmapped at once.
    Heaps that are there already stay, and loading a model starts some.
    """
    _set(_M_ARENA_MAX, _ARENAS)
    _set(_M_MMAP_THRESHOLD, _LARGE)


def keep_freed_memory() -> None:
    """Have a training keep what one step frees for the next; the process then keeps the most that it ever used.

    Each step allocates and frees the same gigabytes. By itself glibc maps large blocks apart and unmaps them when they
    are freed, and the kernel clears hundreds of thousands of pages anew in every step.
    """
    _set(_M_MMAP_MAX, 0)
    _set(_M_TRIM_THRESHOLD, _NEVER)


def give_back_freed() -> None:
    """Return to the system what was freed within the heaps."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _set(setting: int, value: int) -> None:
    if libc := _glibc():
        libc.mallopt(setting, value)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
