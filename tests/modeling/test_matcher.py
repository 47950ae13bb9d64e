"""Matching of queries and targets."""

from __future__ import annotations

import itertools
import logging

import pytest
import reference_ops
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from detrex.modeling.matcher import (
    BoxGIoUCost,
    BoxL1Cost,
    Candidates,
    FocalCost,
    HungarianMatcher,
    SoftmaxCost,
)
from detrex.modeling.matcher.costs import PaddedTargets
from detrex.modeling.predictions import OBJECTNESS, Indices, Prediction, Supervision, Targets

REFERENCE = reference_ops.load("criterion_and_matcher")
FOCAL = HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2)
SOFTMAX = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2, cost_class_type="ce_cost")
MATCHERS = {"f": FOCAL, "c": SOFTMAX}  # how the reference arrays call the two


def reference_targets(kind: str) -> Targets:
    return [
        {"labels": REFERENCE[f"{kind}_labels{i}"], "boxes": REFERENCE[f"{kind}_boxes{i}"]}
        for i in (0, 1)
    ]


def reference_outputs(kind: str) -> dict:
    """The last layer, and an auxiliary one made of it: queries reversed, logits halved."""
    logits, boxes = REFERENCE[f"{kind}_pred_logits"], REFERENCE[f"{kind}_pred_boxes"]
    aux = {"pred_logits": logits.flip(1) / 2, "pred_boxes": boxes.flip(1)}
    return {"pred_logits": logits, "pred_boxes": boxes, "aux_outputs": [aux]}


def reference_matches(name: str) -> Indices:
    return [(REFERENCE[f"{name}_src{i}"], REFERENCE[f"{name}_tgt{i}"]) for i in (0, 1)]


def assert_same(found: Indices, expected: Indices) -> None:
    for (query, target), (expected_query, expected_target) in zip(found, expected, strict=True):
        assert query.dtype == target.dtype == torch.int64
        assert query.tolist() == expected_query.tolist()
        assert target.tolist() == expected_target.tolist()


def random_boxes(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(*shape, 4, generator=generator)


def random_targets(*counts: int, num_classes: int = 5, seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.randint(num_classes, (n,), generator=generator) for n in counts]
    boxes = [random_boxes(n, seed=seed + i) for i, n in enumerate(counts)]
    return [{"labels": x, "boxes": y} for x, y in zip(labels, boxes, strict=True)]


def random_prediction(batch: int, queries: int, seed: int = 0, **options) -> Prediction:
    generator = torch.Generator().manual_seed(100 + seed)
    logits = 2 * torch.randn(batch, queries, 5, generator=generator)
    return Prediction(logits, random_boxes(batch, queries, seed=100 + seed), **options)


@pytest.mark.parametrize("kind", MATCHERS)
def test_agrees_with_the_reference(kind):
    matcher, targets = MATCHERS[kind], reference_targets(kind)
    outputs = reference_outputs(kind)
    assert_same(matcher(outputs, targets), reference_matches(f"{kind}_match"))
    layers = [outputs, *outputs["aux_outputs"]]
    predictions = [Prediction(layer["pred_logits"], layer["pred_boxes"]) for layer in layers]
    last, aux = matcher.match(predictions, targets)
    assert_same(last, reference_matches(f"{kind}_match"))
    assert_same(aux, reference_matches(f"{kind}_crit_aux_match"))


@pytest.mark.parametrize(
    ("name", "weights", "kind"),
    [
        ("focal", (2, 0, 0), "focal_loss_cost"),
        ("ce", (2, 0, 0), "ce_cost"),
        ("l1", (0, 5, 0), "focal_loss_cost"),
        ("giou", (0, 0, 2), "focal_loss_cost"),
    ],
)
def test_costs_agree_with_the_reference(name, weights, kind):
    outputs = reference_outputs("f")
    prediction = Prediction(outputs["pred_logits"], outputs["pred_boxes"])
    matcher = HungarianMatcher(*weights, cost_class_type=kind)
    cost = matcher.costs(prediction, reference_targets("f"))
    assert cost.shape == (2, 9, 3)
    assert_close(cost[0], REFERENCE[f"cost_{name}"])


@pytest.mark.parametrize(("queries", "targets"), [(4, 3), (3, 3), (3, 4), (5, 1)])
def test_finds_the_least_cost(queries, targets):
    """Compared with trying all assignments; also when targets outnumber queries."""
    prediction, wanted = random_prediction(2, queries), random_targets(targets, targets)
    costs = FOCAL.costs(prediction, wanted)
    for cost, (query, target) in zip(costs, FOCAL.match([prediction], wanted)[0], strict=True):
        assert len(query) == min(queries, targets)
        assert query.tolist() == sorted(set(query.tolist()))
        assert len(set(target.tolist())) == len(target)
        table = cost.T if queries >= targets else cost
        rows = range(len(table))
        orders = itertools.permutations(range(table.shape[1]), len(table))
        least = min(sum(table[r, c] for r, c in zip(rows, order, strict=True)) for order in orders)
        assert_close(cost[query, target].sum(), least)


def test_an_image_is_matched_as_if_it_were_alone():
    counts = (3, 0, 5)
    prediction, targets = random_prediction(3, 8), random_targets(*counts)
    together = FOCAL.match([prediction], targets)[0]
    for i in range(3):
        alone = Prediction(prediction.logits[i : i + 1], prediction.boxes[i : i + 1])
        assert_same([together[i]], FOCAL.match([alone], targets[i : i + 1])[0])
    assert [len(query) for query, _ in together] == list(counts)


def test_predictions_are_matched_as_if_they_were_alone(monkeypatch):
    """Different numbers of queries, own targets, another dtype, fixed matches; one copy for all."""
    targets = random_targets(3, 1)
    fixed = [(torch.tensor([5]), torch.tensor([0]))] * 2
    predictions = [
        random_prediction(2, 8),
        random_prediction(2, 20, seed=1, suffix="_enc"),
        random_prediction(2, 6, seed=2, suffix="_dn", supervision=Supervision(indices=fixed)),
        random_prediction(
            2, 9, seed=3, suffix="_o2m", supervision=Supervision(random_targets(6, 2, seed=5))
        ),
        random_prediction(2, 9, seed=3, suffix="_agnostic", supervision=OBJECTNESS),
    ]
    alone = [FOCAL.match([p], targets)[0] for p in predictions]
    copies = []
    to_host = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: copies.append(1) or to_host(self))
    together = FOCAL.match(predictions, targets)
    assert len(copies) == 1
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)
    assert together[2] is fixed


def test_class_agnostic_predictions_have_one_class():
    prediction, targets = random_prediction(2, 9, supervision=OBJECTNESS), random_targets(4, 3)
    zeros = [{**t, "labels": torch.zeros_like(t["labels"])} for t in targets]
    plain = Prediction(prediction.logits, prediction.boxes)
    assert_same(FOCAL.match([prediction], targets)[0], FOCAL.match([plain], zeros)[0])


def test_nothing_to_match():
    prediction = random_prediction(2, 4)
    for query, target in FOCAL.match([prediction], random_targets(0, 0))[0]:
        assert query.shape == target.shape == (0,)
        assert query.dtype == target.dtype == torch.int64
    assert FOCAL.match([], random_targets(1)) == []
    no_queries = FOCAL.match([random_prediction(2, 0)], random_targets(2, 1))[0]
    assert [len(query) for query, _ in no_queries] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("matcher", MATCHERS.values())
def test_half_precision_costs_are_computed_in_float32(matcher, dtype):
    """Logits of 20 make half-precision focal costs infinite (1 - p rounds to 0)."""
    prediction, targets = random_prediction(2, 7), random_targets(3, 2)
    half = Prediction((10 * prediction.logits).clamp(-20, 20).to(dtype), prediction.boxes.to(dtype))
    cost = matcher.costs(half, targets)
    assert cost.dtype == torch.float32 and cost.isfinite().all()
    full = Prediction(half.logits.float(), half.boxes.float())
    assert torch.equal(cost, matcher.costs(full, targets))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(matcher.costs(full, targets), cost)


def test_double_precision_stays():
    prediction, targets = random_prediction(2, 7), random_targets(3, 2)
    double = Prediction(prediction.logits.double(), prediction.boxes.double())
    cost = FOCAL.costs(double, targets)
    assert cost.dtype == torch.float64
    assert_close(cost.float(), FOCAL.costs(prediction, targets))
    assert not torch.equal(cost, FOCAL.costs(prediction, targets).double())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_broken_queries_are_matched_last(value):
    prediction, targets = random_prediction(1, 6), random_targets(3)
    broken = [0, 2, 5]
    prediction.logits[:, broken] = value
    ((query, target),) = HungarianMatcher().match([prediction], targets)[0]
    assert query.tolist() == [1, 3, 4] and sorted(target.tolist()) == [0, 1, 2]
    sound = Prediction(prediction.logits[:, [1, 3, 4]], prediction.boxes[:, [1, 3, 4]])
    assert target.tolist() == HungarianMatcher().match([sound], targets)[0][0][1].tolist()
    prediction.boxes[:, 1] = value
    ((query, target),) = HungarianMatcher().match([prediction], targets)[0]
    assert {3, 4} < set(query.tolist()) and sorted(target.tolist()) == [0, 1, 2]


def test_a_wholly_broken_prediction_is_still_matched():
    prediction = random_prediction(1, 6)
    prediction.boxes[:] = float("nan")
    ((query, target),) = HungarianMatcher().match([prediction], random_targets(3))[0]
    assert len(query) == 3 and sorted(target.tolist()) == [0, 1, 2]


def test_broken_predictions_are_reported_now_and_then(caplog):
    matcher, targets = HungarianMatcher(), random_targets(1, 2, 0)
    sound = random_prediction(3, 4)
    aux, broken = random_prediction(3, 4, suffix="_0"), random_prediction(3, 4, suffix="_enc")
    aux.logits[1] = float("nan")
    broken.boxes[:] = float("nan")  # image 2 has no targets, so it isn't even looked at
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            matcher.match([sound, aux, broken], targets)
        matcher.match([sound], targets)
    assert matcher.nonfinite_steps == 5
    assert len(caplog.messages) == 3  # steps 1, 2 and 4
    assert "_0 (images [1]), _enc (images [0, 1])" in caplog.messages[0]
    assert "last layer" not in caplog.messages[0]
    assert "step number 4" in caplog.messages[2]


def test_inputs_stay_as_they_are():
    prediction, targets = random_prediction(2, 7, supervision=OBJECTNESS), random_targets(3, 2)
    before = [{name: value.clone() for name, value in t.items()} for t in targets]
    FOCAL.match([prediction], targets)
    assert_close(targets, before, rtol=0, atol=0)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"'bce'.*focal_loss_cost"):
        HungarianMatcher(cost_class_type="bce")
    with pytest.raises(ValueError, match="all 0"):
        HungarianMatcher(0, 0, 0)
    with pytest.raises(ValueError, match="predictions for 2 images, targets for 1"):
        FOCAL.match([random_prediction(2, 4)], random_targets(1))


class Below(nn.Module):
    """Costs queries whose center is not below the target's."""

    weight = 3.0

    def forward(self, candidates: Candidates) -> Tensor:
        query, target = candidates.boxes[:, :, None, 1], candidates.target_boxes[:, None, :, 1]
        return (query <= target).to(candidates.boxes.dtype)


def test_costs_are_composed():
    prediction, targets = random_prediction(2, 7), random_targets(4, 2)
    parts = [
        HungarianMatcher(*weights, class_cost=SoftmaxCost()).costs(prediction, targets)
        for weights in ((2, 0, 0), (0, 5, 0), (0, 0, 4))
    ]
    own = HungarianMatcher(
        cost_class=2, class_cost=SoftmaxCost(), terms=[BoxL1Cost(5), BoxGIoUCost(4), Below()]
    )
    expected = sum(parts) + 3.0 * Below()(Candidates(prediction, PaddedTargets(targets)))
    assert_close(own.costs(prediction, targets), expected)
    plain = HungarianMatcher(2, 5, 4, cost_class_type="ce_cost").costs(prediction, targets)
    assert torch.equal(plain, sum(parts[1:], parts[0]))
    assert isinstance(HungarianMatcher(gamma=1.5).class_cost, FocalCost)
    assert HungarianMatcher(gamma=1.5).class_cost.gamma == 1.5
