"""Every number of a range is worked on once, whoever's threads do it."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from detrex.layers.ms_deform_attn import threads


@pytest.fixture(params=["torch's threads", "threads of our own"])
def two_threads(request, monkeypatch) -> Iterator[None]:
    if request.param == "threads of our own":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("torch's threads can't be asked here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "at_least"), [(1000, 64), (129, 64), (100, 64), (3, 1), (1, 1)])
def test_ranges_cover_everything_once(two_threads, count, at_least):
    taken: list[int] = []
    sizes: list[int] = []

    def work(begin: int, end: int) -> None:
        sizes.append(end - begin)
        taken.extend(range(begin, end))

    threads.in_parallel(work, count, at_least)
    assert sorted(taken) == list(range(count))
    assert min(sizes) >= min(count, at_least)


def test_two_threads_work_at_once(two_threads):
    together = threading.Barrier(2)
    workers: set[int] = set()

    def work(begin: int, end: int) -> None:
        if threading.get_ident() not in workers:
            workers.add(threading.get_ident())
            together.wait(timeout=30)
        time.sleep(0.01)

    threads.in_parallel(work, 8)
    assert len(workers) == 2


@pytest.mark.parametrize("wrong", range(8))
def test_errors_reach_the_caller(two_threads, wrong):
    def work(begin: int, end: int) -> None:
        time.sleep(0.001)
        if begin == wrong:
            raise ZeroDivisionError(f"{begin} to {end}")

    with pytest.raises(ZeroDivisionError, match=f"{wrong} to {wrong + 1}"):
        threads.in_parallel(work, 8)


def test_an_interrupt_reaches_the_caller(two_threads):
    def work(begin: int, end: int) -> None:
        if begin == 0:
            _thread.interrupt_main()
        time.sleep(0.001)

    for _ in range(10):
        with pytest.raises(KeyboardInterrupt):
            threads.in_parallel(work, 8)
            time.sleep(1)  # comes here at the latest


def test_an_interrupt_on_the_way_in_reaches_the_caller():
    """Python then raises before the first line of the task, which C ignores."""
    with pytest.raises(KeyboardInterrupt):
        threads._by_openmp(lambda task, *arguments: None, lambda: None, 2)


@pytest.mark.skipif(
    sys.platform != "linux" or not torch.backends.openmp.is_available(),
    reason="another OpenMP than GNU's may not be asked",
)
def test_torch_can_be_asked_where_it_uses_openmp():
    assert threads._openmp() is not None


FORK = """
import multiprocessing
import torch
from detrex.layers.ms_deform_attn import ms_deform_attn

torch.set_num_threads(2)
torch.rand(1000, 1000).exp()  # by torch's threads, which the child doesn't have

def attend():
    value, locations = torch.rand(1, 6, 1, 4), torch.rand(1, 500, 1, 1, 1, 2)
    ms_deform_attn(value, [(2, 3)], locations, locations[..., 0])

child = multiprocessing.get_context("fork").Process(target=attend)
child.start()
child.join(60)
print(child.exitcode)
child.kill()
"""


def test_the_first_call_may_be_after_a_fork():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0\n", done.stderr
