"""Positions of queries (seam 2) against formulas written out number by number."""

from __future__ import annotations

import math

import pytest
import torch

from detrex.modeling.query_pos import AnchorPosition, ConditionalPosition, FixedPosition

C = 8


def wave(x: float) -> list[float]:
    """The sine embedding of one coordinate in ``C / 2`` numbers: sin and cos of two frequencies."""
    phases = [2 * math.pi * x / 10000 ** (2 * i / (C // 2)) for i in range(C // 4)]
    return [f(phase) for phase in phases for f in (math.sin, math.cos)]


def inputs(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    content, pos = torch.randn(2, 3, C), torch.randn(2, 3, C)
    return content, pos, torch.rand(2, 3, size) * 0.8 + 0.1


def test_fixed_position_is_the_learned_one():
    content, pos, anchors = inputs(2)
    assert FixedPosition()(3, content, pos, anchors).embed is pos


def test_anchor_position_scales_after_the_first_layer():
    content, pos, anchors = inputs(4)
    position = AnchorPosition(C, scaled=True)
    first, second = (position(i, content, pos, anchors).embed for i in range(2))
    torch.testing.assert_close(second, first * position.query_scale(content))


def test_conditional_position_is_the_wave_of_the_point():
    content, pos, anchors = inputs(2)
    position = ConditionalPosition(C)
    first, second = (position(i, content, pos, anchors) for i in range(2))
    assert first.embed is second.embed is pos
    expected = [[wave(y) + wave(x) for x, y in image] for image in anchors.tolist()]
    torch.testing.assert_close(first.sine, torch.tensor(expected))
    torch.testing.assert_close(second.sine, first.sine * position.query_scale(content))


def test_modulated_position_weighs_each_axis_by_its_size():
    content, pos, anchors = inputs(4)
    position = ConditionalPosition(C, modulated=True)
    first, second = (position(i, content, pos, anchors) for i in range(2))
    whole = [
        [wave(y) + wave(x) + wave(w) + wave(h) for x, y, w, h in image]
        for image in anchors.tolist()
    ]
    torch.testing.assert_close(first.embed, position.ref_point_head(torch.tensor(whole)))
    assert torch.equal(first.embed, second.embed)
    asked = position.ref_anchor_head(content).sigmoid()
    for image in range(2):
        for query in range(3):
            x, y, w, h = anchors[image, query].tolist()
            asked_w, asked_h = asked[image, query].tolist()
            expected = [v * asked_h / h for v in wave(y)] + [v * asked_w / w for v in wave(x)]
            torch.testing.assert_close(first.sine[image, query], torch.tensor(expected))
    torch.testing.assert_close(second.sine, first.sine * position.query_scale(content))


def test_an_anchor_of_no_size_stays_finite():
    content, pos, anchors = inputs(4)
    anchors = anchors * torch.tensor([1.0, 1.0, 0.0, 0.0])
    position = ConditionalPosition(C, modulated=True)(1, content, pos, anchors)
    assert torch.isfinite(position.sine).all()


@pytest.mark.parametrize("modulated, size", [(False, None), (True, None), (True, 2)])
def test_lacking_anchors_are_named(modulated, size):
    content, pos, anchors = inputs(size or 2)
    with pytest.raises(ValueError, match=r"ConditionalPosition.* needs"):
        ConditionalPosition(C, modulated)(0, content, pos, anchors if size else None)
