"""Learned queries (seam 1): which query has which content, position and anchor."""

from __future__ import annotations

import torch
from torch import nn

from detrex.layers import MLP
from detrex.modeling.memory import Memory
from detrex.modeling.queries import AnchorTable, LearnedAnchors, LearnedQueries


def memory(batch: int = 2) -> Memory:
    tokens = torch.zeros(batch, 6, 8)
    return Memory(tokens, tokens, None, ((2, 3),), torch.ones(batch, 1, 2))


def test_learned_positions():
    queries = LearnedQueries(5, 8)
    made = queries(memory())
    assert torch.equal(made.pos, queries.pos.weight.expand(2, -1, -1))
    assert torch.equal(made.content, torch.zeros(2, 5, 8))
    assert made.anchors is None
    learned = LearnedQueries(5, 8, learned_content=True)
    assert torch.equal(learned(memory()).content[1], learned.content.weight)


def test_points_follow_from_positions():
    for layers, kind in ((1, nn.Linear), (2, MLP)):
        queries = LearnedQueries(5, 8, anchored=True, anchor_layers=layers)
        assert isinstance(queries.anchor_head, kind)
        expected = queries.anchor_head(queries.pos.weight).sigmoid()
        torch.testing.assert_close(queries(memory()).anchors, expected.expand(2, -1, -1))
    assert len(queries.anchor_head.layers) == 2


def test_groups_multiply_queries():
    assert LearnedQueries(5, 8, num_groups=3)(memory()).pos.shape == (2, 15, 8)
    assert LearnedAnchors(5, 8, num_groups=3)(memory()).anchors.shape == (2, 15, 4)


def test_learned_anchors():
    queries = LearnedAnchors(5, 8)
    made = queries(memory())
    torch.testing.assert_close(made.anchors[1], queries.anchors.weight.sigmoid())
    assert torch.equal(made.content[1], queries.content.weight)
    assert torch.equal(LearnedAnchors(5, 8, False)(memory()).content, torch.zeros(2, 5, 8))


def test_patterns_try_every_anchor():
    queries = LearnedAnchors(5, 8, learned_content=False, num_patterns=3)
    made = queries(memory())
    assert made.content.shape == (2, 15, 8) and made.anchors.shape == (2, 15, 4)
    anchors = queries.anchors.weight.sigmoid()  # of all: of a few it may differ in the last bit
    for pattern in range(3):
        for anchor in range(5):
            query = 5 * pattern + anchor
            assert torch.equal(made.content[1, query], queries.patterns.weight[pattern])
            assert torch.equal(made.anchors[1, query], anchors[anchor])


def test_uniform_centers():
    torch.manual_seed(0)
    n = 20000
    boxes = AnchorTable(n, uniform_centers=True).weight.detach().sigmoid()
    shares = torch.histc(boxes[:, :2], 10, 0, 1) / (2 * n)
    # 5 standard deviations of a share of 1/10 among 2n draws
    torch.testing.assert_close(
        shares, torch.full((10,), 0.1), rtol=0, atol=5 * 0.3 / (2 * n) ** 0.5
    )
    sizes = torch.logit(boxes[:, 2:])
    assert abs(sizes.mean()) < 5 / (2 * n) ** 0.5
    assert abs(sizes.std() - 1) < 5 / (4 * n) ** 0.5
