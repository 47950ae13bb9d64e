"""What the C library does with freed memory."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's names, malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensor, instead of giving it back.

    By default glibc asks the system for each tensor of more than 32 MiB, which clears it page by
    page, and returns it right away: filling such a tensor takes several times as long. Kept, memory
    is touched anew only where a step needs more than any before. Meant for programs that do the
    same again and again, as training and evaluation: it counts for the whole process and those it
    forks, which then hold the most that they ever needed, and a little more for gaps.

    Returns:
        Whether the C library took it; others than glibc have no such setting, or need none.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no main program handle
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Let the C library return what it holds of freed memory, where it can."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
