"""The losses of a set of predictions."""

from __future__ import annotations

import copy

import pytest
import reference_ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_convert

from detrex.modeling.criterion import SetCriterion
from detrex.modeling.losses import sigmoid_focal_loss
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.predictions import OBJECTNESS, Prediction, Supervision, Targets
from detrex.utils.processes import single_process

REFERENCE = reference_ops.load("criterion_and_matcher")
WEIGHTS = {"loss_class": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
NAMES = list(WEIGHTS)


def focal(**options) -> SetCriterion:
    return SetCriterion(5, HungarianMatcher(2, 5, 2), WEIGHTS, **options)


def softmax(**options) -> SetCriterion:
    matcher = HungarianMatcher(1, 5, 2, cost_class_type="ce_cost")
    return SetCriterion(5, matcher, WEIGHTS, loss_class_type="ce_loss", **options)


CRITERIA = {"f": focal, "c": softmax}  # how the reference arrays call the two


def reference_batch(kind: str) -> tuple[Tensor, Tensor, Targets]:
    logits, boxes = (REFERENCE[f"{kind}_pred_{name}"].clone() for name in ("logits", "boxes"))
    targets = [
        {"labels": REFERENCE[f"{kind}_labels{i}"], "boxes": REFERENCE[f"{kind}_boxes{i}"]}
        for i in (0, 1)
    ]
    return logits.requires_grad_(), boxes.requires_grad_(), targets


def two_layers(logits: Tensor, boxes: Tensor) -> list[Prediction]:
    """The last layer and an auxiliary one, made of it: queries reversed, logits halved."""
    return [Prediction(logits, boxes), Prediction(logits.flip(1) / 2, boxes.flip(1), "_0")]


def no_targets(images: int = 2) -> Targets:
    none = {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    return [none] * images


@pytest.mark.parametrize("kind", CRITERIA)
def test_losses_and_gradients_agree_with_the_reference(kind):
    logits, boxes, targets = reference_batch(kind)
    losses = CRITERIA[kind]()(two_layers(logits, boxes), targets)
    assert list(losses) == NAMES + [f"{name}_0" for name in NAMES]
    for name, loss in losses.items():
        assert_close(loss, REFERENCE[f"{kind}_crit_{name}"])
    grads = torch.autograd.grad(sum(losses.values()), (logits, boxes))
    for grad, name in zip(grads, ("logits", "boxes"), strict=True):
        assert_close(grad, REFERENCE[f"{kind}_crit_grad_{name}"])


def test_weighted_losses_agree_with_the_reference():
    """What it measured with loss modules that weigh themselves."""
    logits, boxes, targets = reference_batch("f")
    criterion = focal()
    losses = criterion.weighted(criterion([Prediction(logits, boxes)], targets))
    for name in NAMES:
        assert_close(losses[name], REFERENCE[f"base_crit_{name}"])
    grads = torch.autograd.grad(sum(losses.values()), (logits, boxes))
    for grad, name in zip(grads, ("logits", "boxes"), strict=True):
        assert_close(grad, REFERENCE[f"base_crit_grad_{name}"])


def test_images_without_objects_agree_with_the_reference():
    logits, boxes, _ = reference_batch("f")
    losses = focal()([Prediction(logits, boxes)], no_targets())
    for name in NAMES:
        assert_close(losses[name], REFERENCE[f"f_crit_empty_{name}"])


@pytest.mark.parametrize("criterion", [focal(), softmax(), softmax(eos_coef=0.0)])
def test_images_without_objects_reach_every_parameter(criterion):
    """Distributed training waits for every gradient, so there must be one, if only of zeros."""
    classes = 5 + criterion.class_loss.no_object
    logits = torch.randn(2, 4, classes, requires_grad=True)
    boxes = torch.rand(2, 4, 4, requires_grad=True)
    losses = criterion([Prediction(logits, boxes)], no_targets())
    assert losses["loss_bbox"] == losses["loss_giou"] == 0
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all()
    assert (boxes.grad == 0).all()
    silent = getattr(criterion.class_loss, "eos_coef", None) == 0
    assert bool((logits.grad == 0).all()) == silent


@pytest.mark.parametrize("kind", CRITERIA)
def test_no_queries_cost_nothing(kind):
    classes = REFERENCE[f"{kind}_pred_logits"].shape[-1]
    empty = Prediction(torch.zeros(2, 0, classes), torch.zeros(2, 0, 4), "_dn")
    losses = CRITERIA[kind]()([empty], no_targets())
    assert all(loss == 0 for loss in losses.values())


def test_fixed_matches_are_used_as_they_are():
    """Losses written out for two pairs of one image, among them no best match."""
    logits, boxes, targets = reference_batch("f")
    indices = [(torch.tensor([7, 2]), torch.tensor([2, 0])), (torch.tensor([], dtype=int),) * 2]
    prediction = Prediction(logits, boxes, "_dn", Supervision(indices=indices))
    losses = focal()([prediction], targets)
    pairs, wanted = boxes[0, [7, 2]], targets[0]["boxes"][[2, 0]]
    num_boxes = 3 + 1
    assert_close(losses["loss_bbox_dn"], (pairs - wanted).abs().sum() / num_boxes)
    one_hot = torch.zeros(2, 9, 5)
    one_hot[0, 7, targets[0]["labels"][2]] = one_hot[0, 2, targets[0]["labels"][0]] = 1
    expected = sigmoid_focal_loss(logits, one_hot, reduction="sum") / num_boxes
    assert_close(losses["loss_class_dn"], expected)


def test_own_targets_and_scale():
    """Targets three times over, with three times the boxes: losses of each target alike."""
    logits, boxes, targets = reference_batch("f")
    thrice = [
        {name: value.repeat(3, *[1] * (value.ndim - 1)) for name, value in t.items()}
        for t in targets
    ]
    criterion = focal()
    own = Prediction(logits, boxes, "_o2m", Supervision(thrice, num_boxes_scale=3.0))
    (image0, image1) = criterion.matcher.match([own], targets)[0]
    assert (len(image0[0]), len(image1[0])) == (9, 3)
    losses = criterion([own], targets)
    assert list(losses) == [f"{name}_o2m" for name in NAMES]
    difference = sum(
        (boxes[i][query] - thrice[i]["boxes"][target]).abs().sum()
        for i, (query, target) in enumerate((image0, image1))
    )
    assert_close(losses["loss_bbox_o2m"], difference / (3 * 4))


def test_class_agnostic_predictions_have_one_class():
    logits, boxes, targets = reference_batch("f")
    zeros = [{**t, "labels": torch.zeros_like(t["labels"])} for t in targets]
    expected = focal()([Prediction(logits, boxes)], zeros)
    found = focal()([Prediction(logits, boxes, "", OBJECTNESS)], targets)
    assert_close(found, expected, rtol=0, atol=0)


def test_cross_entropy_is_a_weighted_mean():
    logits, boxes, targets = reference_batch("c")
    criterion = softmax(eos_coef=0.3)
    labels = torch.full((2, 9), 5)
    matches = criterion.matcher.match([Prediction(logits, boxes)], targets)[0]
    for i, (query, target) in enumerate(matches):
        labels[i, query] = targets[i]["labels"][target]
    weight = torch.tensor([1.0] * 5 + [0.3])
    expected = F.cross_entropy(logits.transpose(1, 2), labels, weight)
    losses = criterion([Prediction(logits, boxes)], targets)
    assert_close(losses["loss_class"], expected)


def test_inputs_stay_as_they_are():
    logits, boxes, targets = reference_batch("f")
    before = copy.deepcopy(targets)
    focal()([Prediction(logits, boxes), Prediction(logits, boxes, "", OBJECTNESS)], targets)
    assert_close(targets, before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", CRITERIA)
def test_double_precision_stays(kind):
    logits, boxes, targets = reference_batch(kind)
    double = [{"labels": t["labels"], "boxes": t["boxes"].double()} for t in targets]
    criterion = CRITERIA[kind]()
    losses = criterion([Prediction(logits.double(), boxes.double())], double)
    assert {loss.dtype for loss in losses.values()} == {torch.float64}
    single = criterion([Prediction(logits, boxes)], targets)
    assert_close({n: loss.float() for n, loss in losses.items()}, single)


@pytest.mark.parametrize("kind", CRITERIA)
def test_half_precision_is_summed_in_float32(kind):
    logits, boxes, targets = reference_batch(kind)
    half = Prediction(logits.bfloat16(), boxes.bfloat16())
    full = Prediction(half.logits.float(), half.boxes.float())
    with torch.autocast("cpu", torch.bfloat16):
        losses = CRITERIA[kind]()([half], targets)
    assert_close(losses, CRITERIA[kind]()([full], targets), rtol=0, atol=0)
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all() and boxes.grad.isfinite().all()


def test_nan_predictions_give_nan_losses():
    """They must stop the training, not be covered up."""
    logits, boxes, targets = reference_batch("f")
    losses = focal()([Prediction(logits, boxes * float("nan"))], targets)
    assert losses["loss_bbox"].isnan() and losses["loss_giou"].isnan()


def test_weights_hold_for_every_layer():
    weights = {"loss_bbox": 5.0, "loss_bbox_enc": 7.0, "loss_giou_dn": 3.0}
    criterion = SetCriterion(5, HungarianMatcher(), weights)
    factors = {
        "loss_bbox": 5,
        "loss_bbox_0": 5,
        "loss_bbox_dn_12": 5,
        "loss_bbox_enc": 7,
        "loss_giou_dn_0": 3,
        "loss_giou": 1,  # no weight, so it stays
        "something": 1,
    }
    weighted = criterion.weighted({name: torch.tensor(2.0) for name in factors})
    assert {name: value.item() / 2 for name, value in weighted.items()} == factors


def test_boxes_are_counted_over_all_processes(monkeypatch):
    """Four processes with 10 boxes in all, of which 4 are here."""
    logits, boxes, targets = reference_batch("f")
    alone_losses = focal()([Prediction(logits, boxes)], targets)
    dist = torch.distributed
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.add_(6))
    shared = focal()([Prediction(logits, boxes)], targets)
    for name in NAMES:
        assert_close(shared[name], alone_losses[name] * 4 / (10 / 4))
    with single_process():
        assert_close(focal()([Prediction(logits, boxes)], targets), alone_losses)
    monkeypatch.setattr(dist, "all_reduce", lambda count: None)
    assert focal().num_boxes(no_targets(), torch.device("cpu")) == 1 / 4  # at least 1 in all
    assert focal().num_boxes(targets[1:], torch.device("cpu")) == 1 / 4


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_the_focal_loss_is_that_of_one_hot_targets(gamma):
    """In double precision, with sure logits and with logits of exactly 0, and its gradient."""
    _, boxes, targets = reference_batch("f")
    logits = torch.randn(2, 9, 5, dtype=torch.float64) * 12
    logits[:, ::3] = 0
    logits.requires_grad_()
    criterion = focal(alpha=0.3, gamma=gamma, losses=["class"])
    prediction = Prediction(logits, boxes.double())
    one_hot = torch.zeros_like(logits)
    for i, (query, target) in enumerate(criterion.matcher.match([prediction], targets)[0]):
        one_hot[i, query, targets[i]["labels"][target]] = 1
    expected = sigmoid_focal_loss(logits, one_hot, alpha=0.3, gamma=gamma, reduction="sum") / 4
    found = criterion([prediction], targets)["loss_class"]
    assert_close(found, expected)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    assert_close(*grads)


class Synchronizing(TorchDispatchMode):
    """Counts what would make a GPU and its host wait for each other."""

    WAITS = ("_local_scalar_dense", "nonzero", "_to_cpu", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.WAITS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", CRITERIA)
def test_nothing_waits_for_the_device_but_the_one_copy_of_costs(kind, monkeypatch):
    logits, boxes, targets = reference_batch(kind)
    layers = [Prediction(logits, boxes, f"_{i}") for i in range(3)]
    layers.append(Prediction(logits, boxes, "_enc", OBJECTNESS))
    copies = []
    to_host = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: copies.append(1) or to_host(self))
    criterion = CRITERIA[kind]()
    with Synchronizing() as watch:
        loss = sum(criterion.weighted(criterion(layers, targets)).values())
        loss.backward()
    assert len(copies) == 1
    assert watch.found == []
    with Synchronizing() as watch:  # it does see them
        loss.item()
    assert watch.found == ["_local_scalar_dense"]


def test_losses_can_be_chosen_and_added():
    logits, boxes, targets = reference_batch("f")
    prediction = Prediction(logits, boxes)
    assert list(focal(losses=["class"])([prediction], targets)) == ["loss_class"]

    class Width(nn.Module):
        def forward(self, pairs, step):
            change = pairs.predicted_boxes[:, 2] - pairs.target_boxes[:, 2]
            return {"loss_width": change.abs().sum() / pairs.num_boxes}

    criterion = SetCriterion(5, HungarianMatcher(2, 5, 2), {}, losses=[], terms=[Width()])
    losses = criterion([prediction], targets)
    assert list(losses) == ["loss_width"]
    expected = 0
    for i, (query, target) in enumerate(criterion.matcher.match([prediction], targets)[0]):
        expected += (boxes[i, query, 2] - targets[i]["boxes"][target, 2]).abs().sum()
    assert_close(losses["loss_width"], expected / 4)


def test_perfect_boxes_cost_next_to_nothing():
    _, _, targets = reference_batch("f")
    wanted = targets[0]["boxes"]
    prediction = Prediction(torch.zeros(1, 3, 5), wanted[None].flip(1))
    losses = focal()([prediction], targets[:1])
    assert losses["loss_bbox"] == 0
    # EPS in the denominator leaves EPS / area of each box.
    corners = box_convert(wanted, "cxcywh", "xyxy")
    area = (corners[:, 2:] - corners[:, :2]).prod(-1)
    assert_close(losses["loss_giou"], (1e-6 / area).mean(), rtol=0.1, atol=1e-6)


def test_only_the_softmax_has_state():
    assert not focal().state_dict()
    assert_close(
        softmax().state_dict()["empty_weight"], torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.1])
    )


def test_a_copy_works_by_itself():
    logits, boxes, targets = reference_batch("f")
    criterion = focal()
    copied = copy.deepcopy(criterion)
    copied.class_loss.gamma = 0.0
    prediction = Prediction(logits, boxes)
    assert (
        copied([prediction], targets)["loss_class"]
        != criterion([prediction], targets)["loss_class"]
    )


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"'bce'.*focal_loss"):
        focal(loss_class_type="bce")
    with pytest.raises(ValueError, match=r"\['masks'\].*class"):
        focal(losses=["class", "masks"])
