"""Stages share what a clock counts; products of known sizes tell whether they share it rightly."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from detrex.benchmark import StageMeter, flop_clock
from detrex.benchmark.stages import REST


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
