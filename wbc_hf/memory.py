"""Tune glibc's memory allocator, for a page that runs for weeks and for training. No effect with other C libraries."""

import ctypes
import platform

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_ARENAS, _LARGE, _NEVER = 2, 2**17, 2**31 - 1  # heaps, bytes, bytes


def keep_memory_level() -> None:
    """Return the memory of a request to the system after it; call this before a model is loaded.

    glibc gives nearly every thread a heap of its own, up to eight for each core, and Gradio answers in any free
    thread: each heap grew to its maximum and stayed there. Two are enough for a page whose model answers one or two
    requests at a time, and large blocks are mapped apart and unmapped at once. Existing heaps stay, and loading a
    model creates some.
    """
    _set(_M_ARENA_MAX, _ARENAS)
    _set(_M_MMAP_THRESHOLD, _LARGE)


def keep_freed_memory() -> None:
    """Keep the memory that one training step frees for the next; the process never shrinks.

    Each step allocates and frees the same gigabytes. By default glibc unmaps large blocks when they are freed, and the
    kernel clears hundreds of thousands of pages again in every step.
    """
    _set(_M_MMAP_MAX, 0)
    _set(_M_TRIM_THRESHOLD, _NEVER)


def give_back_freed() -> None:
    """Return freed memory within the heaps to the system (malloc_trim(3))."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _set(setting: int, value: int) -> None:
    if libc := _glibc():
        libc.mallopt(setting, value)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
