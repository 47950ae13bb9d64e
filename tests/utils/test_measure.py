"""Known work and a clock that the tests turn themselves."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.ms_deform_attn import ms_deform_attn, use_implementation
from detrex.utils.measure import (
    REST,
    StageMeter,
    count_flops,
    flop_clock,
    matmul_rate,
    peak_memory,
    speedup,
    spread,
    time_in_turns,
)

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


@dataclasses.dataclass
class Found:
    boxes: Tensor


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 3, bias=False)
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Found:
        return Found(self.decoder(self.backbone(x) @ torch.ones(3, 4)).boxes)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5, bias=False)
        self.head = nn.Linear(5, 6, bias=False)

    def forward(self, x: Tensor) -> Found:
        return Found(torch.stack([self.head(self.layer(x))]))


def test_stages_share_what_a_clock_counts():
    model = Model()
    stages = {
        "backbone": [model.backbone],
        "decoder": [model.decoder],
        "heads": [model.decoder.head],
    }
    with flop_clock() as clock:
        meter = StageMeter(stages, clock)
        boxes = model(torch.ones(7, 2)).boxes
        boxes.sum().backward()
        meter.rest()
    forward = {"backbone": 2 * 3, REST: 3 * 4, "decoder": 4 * 5, "heads": 5 * 6}
    assert meter.forward == {name: 2 * 7 * flops for name, flops in forward.items()}
    # two products in the backward pass of each; the image and the ones want no gradient
    backward = {"backbone": 2 * 3, REST: 3 * 4, "decoder": 2 * 4 * 5, "heads": 2 * 5 * 6}
    assert meter.backward == {name: 2 * 7 * flops for name, flops in backward.items()}
    meter.enter("optimizer")
    meter.leave()
    assert meter.forward["optimizer"] == 0


class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Linear(2, 3, bias=False), nn.Linear(3, 5, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        return [fine, self.coarse(fine)]


class Neck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sides = nn.ModuleList([nn.Linear(3, 4, bias=False), nn.Linear(5, 4, bias=False)])

    def forward(self, levels: list[Tensor]) -> Tensor:
        return self.sides[0](levels[0]) + self.sides[1](levels[1])


def test_a_stage_whose_results_depend_on_one_another():
    backbone, neck = Levels(), Neck()
    with flop_clock() as clock:
        meter = StageMeter({"backbone": [backbone], "neck": [neck]}, clock)
        neck(backbone(torch.ones(7, 2))).sum().backward()
        meter.rest()
    # two products in the backward pass of each, but the image wants no gradient
    expected = {"neck": 2 * (3 * 4 + 5 * 4), "backbone": 2 * 3 + 2 * 3 * 5}
    assert meter.backward == {name: 2 * 7 * flops for name, flops in expected.items()}


def test_the_model_is_left_without_hooks():
    model = Model()
    meter = StageMeter({"backbone": [model.backbone]}, lambda: 0.0)
    meter.remove()
    assert not model.backbone._forward_hooks and not model.backbone._forward_pre_hooks


def test_peak_memory_of_what_is_given_back():
    size = 100 * 2**20
    peak = peak_memory(lambda: torch.ones(size // 4).sum(), CPU)
    if peak is None:
        pytest.skip("this system doesn't say how much memory a process takes")
    assert 0.9 * size < peak < 1.2 * size  # the system counts by the page, and lazily
