"""Stable-DINO: scores that are overlaps, and matching by score times fit."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import box_convert, box_iou

from detrex.config import get_config
from detrex.layers import generalized_box_iou
from detrex.layers.box_ops import elementwise_box_iou
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import Prediction, Supervision, Targets
from detrex.modeling.variants.stable_dino import (
    PositionModulatedCost,
    PositionSupervisedLoss,
)

CLASSES, QUERIES = 4, 7
ALPHA, GAMMA = 0.3, 2.0


def modulated(*weights: float, **options) -> HungarianMatcher:
    return HungarianMatcher(*weights, class_cost=PositionModulatedCost(**options))


def criterion(**options) -> SetCriterion:
    loss = PositionSupervisedLoss(ALPHA, GAMMA)
    return SetCriterion(CLASSES, modulated(2, 5, 2), {}, class_loss=loss, **options)


def random_boxes(*shape: int) -> Tensor:
    return torch.cat((0.3 + 0.4 * torch.rand(*shape, 2), 0.2 + 0.3 * torch.rand(*shape, 2)), -1)


def random_targets(*counts: int) -> Targets:
    labels = [torch.randint(CLASSES, (count,)) for count in counts]
    return [{"labels": label, "boxes": random_boxes(len(label)).double()} for label in labels]


def random_prediction(images: int, suffix: str = "", **options) -> Prediction:
    logits = 2 * torch.randn(images, QUERIES, CLASSES).double()
    return Prediction(logits, random_boxes(images, QUERIES).double(), suffix, **options)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def xyxy(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")


def one_number_at_a_time(prediction: Prediction, targets: Targets, matches) -> float:
    """The paper's sum over images, queries and classes."""
    total = 0.0
    for logits, boxes, target, (query, matched) in zip(
        prediction.logits, prediction.boxes, targets, matches, strict=True
    ):
        overlaps = box_iou(xyxy(boxes), xyxy(target["boxes"]))
        partner = dict(zip(query.tolist(), matched.tolist(), strict=True))
        for q in range(QUERIES):
            for k in range(CLASSES):
                p = 1 / (1 + math.exp(-logits[q, k]))
                if q in partner and target["labels"][partner[q]] == k:
                    wanted = float(overlaps[q, partner[q]] ** 2 / overlaps.max())
                    entropy = -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)
                    total += ALPHA * abs(wanted - p) ** GAMMA * entropy
                else:
                    total += (1 - ALPHA) * p**GAMMA * -math.log(1 - p)
    return total


def test_the_loss_is_the_papers_sum():
    """For matched queries and for those whose matches are fixed, as in denoising."""
    targets = random_targets(3, 1, 0)
    fixed = [
        (torch.tensor([4, 0, 6]), torch.tensor([0, 1, 2])),
        (torch.tensor([5]), torch.tensor([0])),
        (torch.tensor([], dtype=torch.long),) * 2,
    ]
    predictions = [
        random_prediction(3),
        random_prediction(3, "_dn", supervision=Supervision(indices=fixed)),
    ]
    own = criterion()
    losses = own(predictions, targets)
    matches = own.matcher.match(predictions, targets)
    for prediction, found in zip(predictions, matches, strict=True):
        expected = one_number_at_a_time(prediction, targets, found) / 4  # targets
        assert losses[f"loss_class{prediction.suffix}"].item() == pytest.approx(expected, rel=1e-9)


def test_boxes_losses_are_unchanged():
    targets, prediction = random_targets(3, 2), random_prediction(2)
    own = criterion()
    plain = SetCriterion(CLASSES, own.matcher, {}, alpha=ALPHA, gamma=GAMMA)
    losses, expected = own([prediction], targets), plain([prediction], targets)
    assert losses.keys() == expected.keys()
    assert losses.pop("loss_class") != expected.pop("loss_class")
    assert_close(losses, expected, rtol=0, atol=0)


def test_boxes_that_fit_exactly_leave_the_focal_loss():
    targets, prediction = random_targets(3, 1), random_prediction(2)
    prediction.boxes[0, :3], prediction.boxes[1, 0] = targets[0]["boxes"], targets[1]["boxes"][0]
    indices = [(torch.arange(len(t["labels"])), torch.arange(len(t["labels"]))) for t in targets]
    prediction.supervision = Supervision(indices=indices)
    own = criterion(losses=["class"])
    plain = SetCriterion(CLASSES, own.matcher, {}, ["class"], alpha=ALPHA, gamma=GAMMA)
    assert_close(own([prediction], targets), plain([prediction], targets))


def test_the_best_box_is_to_have_its_overlap_as_score():
    """One query per target, all on the same target shifted: IoUs 1/3, 3/5 and 1/7 by hand."""
    width = 0.4
    shifts = torch.tensor([0.5, 0.25, 0.75]) * width  # IoU of equal boxes: (1 - x) / (1 + x)
    target = torch.tensor([0.5, 0.5, width, 0.3])
    boxes = target.repeat(1, 3, 1)
    boxes[0, :, 0] += shifts
    targets = [{"labels": torch.tensor([1]), "boxes": target[None]}]
    wanted = []
    for query in range(3):
        pair = [(torch.tensor([query]), torch.tensor([0]))]
        logits = torch.zeros(1, 3, CLASSES, requires_grad=True)
        prediction = Prediction(logits, boxes, "", Supervision(indices=pair))
        criterion(losses=["class"])([prediction], targets)["loss_class"].backward()
        wanted.append(prediction.logits.grad[0, query, 1])
    overlaps = torch.tensor([1 / 3, 3 / 5, 1 / 7])
    f1 = overlaps**2 / (3 / 5)
    logit = torch.zeros(3, requires_grad=True)
    p = logit.sigmoid()
    loss = ALPHA * (f1 - p).abs() ** 2 * -(f1 * p.log() + (1 - f1) * (1 - p).log())
    loss.sum().backward()
    assert_close(torch.stack(wanted), logit.grad)


def test_scores_move_towards_the_overlap_and_boxes_not_at_all():
    targets = random_targets(3)
    prediction = random_prediction(1)
    own = criterion(losses=["class"])
    indices = own.matcher.match([prediction], targets)[0]
    ((query, target),) = indices
    labels = targets[0]["labels"][target]
    overlaps = box_iou(xyxy(prediction.boxes[0]), xyxy(targets[0]["boxes"]))
    f1 = overlaps[query, target] ** 2 / overlaps.max()
    for shift, sign in ((-1.0, -1), (0.0, 0), (1.0, 1)):
        logits = prediction.logits.clone()
        logits[0, query, labels] = f1.logit() + shift
        logits.requires_grad_()
        boxes = prediction.boxes.clone().requires_grad_()
        moved = Prediction(logits, boxes, "", Supervision(indices=indices))
        own([moved], targets)["loss_class"].backward()
        assert boxes.grad is None
        slope = logits.grad[0, query, labels]
        assert torch.equal(torch.where(slope.abs() < 1e-9, 0, slope.sign()), sign + 0 * slope)


def test_a_batch_is_its_images():
    targets, prediction = random_targets(3, 0, 2), random_prediction(3)
    together = criterion()([prediction], targets)
    alone = [
        criterion()([Prediction(prediction.logits[i, None], prediction.boxes[i, None])], [target])
        for i, target in enumerate(targets)
    ]
    for name, loss in together.items():
        counts = (3, 1, 2)  # at least 1, and 5 in all
        assert_close(loss, sum(a[name] * n for a, n in zip(alone, counts, strict=True)) / 5)


@pytest.mark.parametrize("queries", [QUERIES, 0])
def test_images_without_objects(queries):
    """All refuse; every prediction gets a gradient, if only of zeros; groups may be empty."""
    targets = random_targets(0, 0)
    logits = torch.randn(2, queries, CLASSES, requires_grad=True)
    boxes = random_boxes(2, queries).requires_grad_()
    own = criterion()
    losses = own([Prediction(logits, boxes)], targets)
    plain = SetCriterion(CLASSES, HungarianMatcher(), {}, alpha=ALPHA, gamma=GAMMA)
    assert_close(losses, plain([Prediction(logits, boxes)], targets))
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all() and (boxes.grad == 0).all()


def test_boxes_that_miss_every_target_are_to_score_0():
    target = torch.tensor([[0.2, 0.2, 0.1, 0.1]])
    boxes = torch.tensor([[[0.8, 0.8, 0.1, 0.1], [0.7, 0.8, 0.0, 0.0]]])
    logits = torch.randn(1, 2, CLASSES, requires_grad=True)
    targets = [{"labels": torch.tensor([2]), "boxes": target}]
    loss = criterion(losses=["class"])([Prediction(logits, boxes)], targets)["loss_class"]
    loss.backward()
    assert loss.isfinite() and (logits.grad > 0).all()


def test_broken_predictions_are_not_covered_up():
    prediction = random_prediction(1)
    prediction.boxes[:] = float("nan")
    assert criterion()([prediction], random_targets(2))["loss_class"].isnan()


def test_half_precision_is_compared_in_float32():
    targets = [{**t, "boxes": t["boxes"].float()} for t in random_targets(3, 1)]
    prediction = random_prediction(2)
    half = Prediction(prediction.logits.bfloat16(), prediction.boxes.bfloat16())
    full = Prediction(half.logits.float(), half.boxes.float())
    with torch.autocast("cpu", torch.bfloat16):
        losses = criterion()([half], targets)
    assert_close(losses, criterion()([full], targets), rtol=0, atol=0)


def test_overlap_is_that_of_all_pairs():
    boxes1, boxes2 = xyxy(random_boxes(5)), xyxy(random_boxes(3))
    assert_close(elementwise_box_iou(boxes1[:, None], boxes2), box_iou(boxes1, boxes2))
    point = torch.tensor([0.5, 0.5, 0.5, 0.5])
    assert elementwise_box_iou(point, point) == 0


def test_costs_are_the_papers():
    targets, prediction = random_targets(3, 1), random_prediction(2)
    matcher = modulated(2, 5, 3, alpha=ALPHA, gamma=GAMMA)
    costs = matcher.costs(prediction, targets)
    assert costs.shape == (2, QUERIES, 3)
    for i, target in enumerate(targets):
        giou = generalized_box_iou(xyxy(prediction.boxes[i]), xyxy(target["boxes"]))
        for q in range(QUERIES):
            for t, (label, box) in enumerate(zip(target["labels"], target["boxes"], strict=True)):
                p = float(prediction.logits[i, q, label].sigmoid())
                yes = p * ((float(giou[q, t]) + 1) / 2) ** 0.5
                accepting = ALPHA * (1 - yes) ** GAMMA * -math.log(yes)
                refusing = (1 - ALPHA) * yes**GAMMA * -math.log(1 - yes)
                distance = float((prediction.boxes[i, q] - box).abs().sum())
                expected = 2 * (accepting - refusing) + 5 * distance - 3 * float(giou[q, t])
                assert float(costs[i, q, t]) == pytest.approx(expected, rel=1e-9)


def test_without_power_the_costs_are_the_plain_ones():
    targets, prediction = random_targets(3, 1), random_prediction(2)
    plain = HungarianMatcher(2, 5, 2).costs(prediction, targets)
    assert_close(modulated(2, 5, 2, power=0.0).costs(prediction, targets), plain)


def test_a_sure_query_far_off_loses_to_a_fair_one_that_fits():
    """By class cost alone, so the plain matcher prefers the sure query."""
    wanted = torch.tensor([[0.3, 0.3, 0.2, 0.2]])
    boxes = torch.tensor([[[0.8, 0.8, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]]])
    logits = torch.tensor([[[3.0], [1.0]]])
    targets = [{"labels": torch.tensor([0]), "boxes": wanted}]
    for kind, winner in ((HungarianMatcher, 0), (modulated, 1)):
        ((query, _),) = kind(1, 0, 0).match([Prediction(logits, boxes)], targets)[0]
        assert query.tolist() == [winner]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_broken_queries_are_matched_last(value):
    prediction, matcher = random_prediction(1), modulated()
    prediction.logits[:, [0, 2, 3, 5]] = value
    ((query, _),) = matcher.match([prediction], random_targets(3))[0]
    assert query.tolist() == [1, 4, 6]
    assert matcher.nonfinite_steps == 1


@pytest.mark.parametrize("size", [20.0, 100.0, 1000.0])
def test_costs_of_sure_queries_are_finite(size):
    prediction, targets = random_prediction(1), random_targets(2)
    prediction.boxes[0, :2] = targets[0]["boxes"]
    sure = Prediction(prediction.logits.sign().float() * size, prediction.boxes.float())
    assert modulated().costs(sure, targets).isfinite().all()


def test_softmax_heads_are_refused():
    prediction = Prediction(torch.zeros(1, 3, CLASSES + 1), random_boxes(1, 3))
    with pytest.raises(ValueError, match=rf"{CLASSES + 1} logits, .* expects {CLASSES}"):
        criterion()([prediction], random_targets(1))


def test_the_model_is_dino_but_for_its_criterion():
    ours, dino = (
        get_config(name).model
        for name in (
            "stable_dino/models/stable_dino_r50.py",
            "dino/models/dino_r50.py",
        )
    )
    own = instantiate(OmegaConf.merge(ours.criterion, {"num_classes": 80}))
    assert type(own.class_loss) is PositionSupervisedLoss
    assert type(own.matcher.class_cost) is PositionModulatedCost
    assert (own.matcher.cost_class, own.matcher.class_cost.power) == (2.0, 0.5)
    assert (own.class_loss.positive_weight, own.class_loss.gamma) == (0.25, 2.0)
    del ours.criterion.class_loss, ours.criterion.matcher.class_cost
    ours.criterion.weight_dict.update(loss_class=dino.criterion.weight_dict.loss_class)
    assert ours == dino
