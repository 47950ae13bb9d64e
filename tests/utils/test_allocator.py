"""Freed memory is kept: a large tensor made again costs no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from detrex.utils.allocator import keep_freed_memory

PROGRAM = """
import resource, torch
from detrex.utils.allocator import keep_freed_memory
{call}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
make = lambda: torch.empty(16 * 2**20).fill_(1.0)  # 64 MiB
for _ in range(16):  # an aligned block needs a little more room than it leaves
    make()
before = faults()
for _ in range(4):
    make()
print(faults() - before)
"""


def page_faults(call: str) -> int:
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_pages_are_touched_once():
    pages = 64 * 2**20 // 4096
    assert page_faults("keep_freed_memory()") < pages / 10
    assert page_faults("") > pages  # or there was nothing to gain


def test_other_libraries_are_left_alone(monkeypatch):
    def without_mallopt(name):
        raise OSError("no such library")

    monkeypatch.setattr("ctypes.CDLL", without_mallopt)
    assert keep_freed_memory() is False
