"""Known work and a clock that the tests turn themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detrex.benchmark import (
    count_flops,
    matmul_rate,
    peak_memory,
    speedup,
    spread,
    time_in_turns,
)
from detrex.layers.ms_deform_attn import ms_deform_attn, use_implementation

CPU = torch.device("cpu")


def test_spread():
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0, 1.0, 5)
    assert speedup([1.0, 2.0, 2.0], [2.0, 4.0, 6.0]) == (2.0, 2.0, 2.5, 2.0, 3)


def test_works_take_turns_and_the_first_changes():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    time = iter(range(100))
    seconds = time_in_turns(works, 2, CPU, clock=lambda: float(next(time) ** 2), warm_up=1)
    assert "".join(calls) == "ba" + "ab" + "ba"
    # the clock is asked twice per run, so the i-th run takes (2i + 1)^2 - (2i)^2
    assert seconds == {"a": [9.0, 21.0], "b": [13.0, 17.0]}


def test_matmul_rate_by_a_clock_that_adds_a_second():
    time = iter(range(100))
    assert matmul_rate(CPU, clock=lambda: float(next(time))) == 2 * 1024**3


def test_flops_of_what_pytorch_does_not_count():
    query, key = torch.rand(1, 2, 3, 4, requires_grad=True), torch.rand(1, 2, 5, 4)
    assert count_flops(lambda: F.scaled_dot_product_attention(query, key, key)) == 4 * 2 * 3 * 5 * 4
    both = lambda: F.scaled_dot_product_attention(query, key, key).sum().backward()  # noqa: E731
    assert count_flops(both) == (4 + 10) * 2 * 3 * 5 * 4


@pytest.mark.parametrize("name", [None, "pytorch"])
def test_flops_of_deformable_attention_whatever_the_implementation(name):
    value = torch.rand(2, 6, 3, 8, requires_grad=True)
    locations, weights = torch.rand(2, 5, 3, 1, 4, 2), torch.rand(2, 5, 3, 1, 4)
    forward = lambda: ms_deform_attn(value, [(2, 3)], locations, weights)  # noqa: E731
    samples = 2 * 5 * 3 * 1 * 4
    with use_implementation(name):
        assert count_flops(forward) == 8 * samples * 8
        assert count_flops(lambda: forward().sum().backward()) == (8 + 16) * samples * 8


def test_peak_memory_of_what_is_given_back():
    size = 100 * 2**20
    peak = peak_memory(lambda: torch.ones(size // 4).sum(), CPU)
    if peak is None:
        pytest.skip("this system doesn't say how much memory a process takes")
    assert 0.9 * size < peak < 1.2 * size  # the system counts by the page, and lazily
