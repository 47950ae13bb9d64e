"""Work shared among threads: those that torch computes with, if their library can be asked."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PROCESS = os.getpid()


@functools.cache
def _openmp() -> Any | None:
    """``GOMP_parallel(task, argument, num_threads, flags)`` of the OpenMP library that torch uses:
    GNU's, or one of those that know its calls as well."""
    for library in (None, torch._C.__file__):  # one that was preloaded, then what torch depends on
        try:
            run = ctypes.CDLL(library).GOMP_parallel
        except (AttributeError, OSError, TypeError):  # TypeError: Windows has no handle for None
            continue
        run.argtypes, run.restype = [_TASK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return run
    return None


@functools.lru_cache(maxsize=1)
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads beside the caller's; a forked process, which inherits none, gets its own."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="ms_deform_attn")


def in_parallel(work: Callable[[int, int], None], count: int, at_least: int = 1) -> None:
    """Calls ``work(begin, end)`` on ranges of ``at_least`` so many that cover ``range(count)``.

    Torch's own threads wait for more work on their cores for some milliseconds. Others would have
    to share the cores with them, which takes a decoder's attention twice as long.

    Args:
        work: lets others run (releases the GIL); what it raises is raised here.
        count: what ranges count up to.
        at_least: fewer are not worth a thread of their own.
    """
    threads = torch.get_num_threads()
    pieces = min(4 * threads, count // at_least)
    if threads == 1 or pieces <= 1:
        work(0, count)
        return
    ranges = iter([(count * i // pieces, count * (i + 1) // pieces) for i in range(pieces)])

    def work_on() -> None:
        for begin, end in ranges:  # each range goes to one thread: next() holds the GIL
            work(begin, end)

    if os.getpid() == _PROCESS and (openmp := _openmp()) is not None:
        _by_openmp(openmp, work_on, threads)
    else:  # after a fork OpenMP would wait forever for threads that are gone
        _by_pool(work_on, threads)


def _by_openmp(openmp: Any, work_on: Callable[[], None], threads: int) -> None:
    began: set[int] = set()
    errors: list[BaseException] = []

    def task(_: int | None) -> None:
        try:
            began.add(threading.get_ident())
            work_on()
        except BaseException as error:  # nothing can pass through code in C
            errors.append(error)

    openmp(_TASK(task), None, threads, 0)
    if errors:
        raise errors[0]
    if threading.get_ident() not in began:  # Ctrl-C, as the task was entered: lost in C
        raise KeyboardInterrupt


def _by_pool(work_on: Callable[[], None], threads: int) -> None:
    """The caller works too, and does not wait for threads that have not begun by the end."""
    others = [_pool(threads - 1, os.getpid()).submit(work_on) for _ in range(threads - 1)]
    work_on()
    for other in others:
        if not other.cancel():  # it has begun
            other.result()
