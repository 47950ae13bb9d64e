"""Criteria and matchers called and overridden as in code written for the public detrex."""

from __future__ import annotations

import pytest
import reference_ops
import torch
from torch import Tensor
from torch.testing import assert_close

from detrex.modeling.criterion import BaseCriterion, SetCriterion
from detrex.modeling.criterion.criterion import sigmoid_focal_loss
from detrex.modeling.losses import FocalLoss, GIoULoss, L1Loss
from detrex.modeling.matcher import (
    CrossEntropyCost,
    FocalLossCost,
    GIoUCost,
    HungarianMatcher,
    L1Cost,
    ModifedMatcher,
)
from detrex.modeling.predictions import Prediction, Targets

REFERENCE = reference_ops.load("criterion_and_matcher")
WEIGHTS = {"loss_class": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
KINDS = {"f": ("focal_loss_cost", "focal_loss", 2), "c": ("ce_cost", "ce_loss", 1)}


def criterion(kind: str = "f", cls: type[SetCriterion] = SetCriterion, **options) -> SetCriterion:
    cost_class_type, loss_class_type, weight = KINDS[kind]
    matcher = HungarianMatcher(weight, 5, 2, cost_class_type=cost_class_type)
    return cls(5, matcher, WEIGHTS, loss_class_type=loss_class_type, **options)


def batch(kind: str = "f") -> tuple[dict, Targets]:
    logits, boxes = (
        REFERENCE[f"{kind}_pred_{name}"].clone().requires_grad_() for name in ("logits", "boxes")
    )
    targets = [
        {"labels": REFERENCE[f"{kind}_labels{i}"], "boxes": REFERENCE[f"{kind}_boxes{i}"]}
        for i in (0, 1)
    ]
    aux = {"pred_logits": logits.flip(1) / 2, "pred_boxes": boxes.flip(1)}
    return {"pred_logits": logits, "pred_boxes": boxes, "aux_outputs": [aux]}, targets


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_agree_with_the_reference(kind):
    outputs, targets = batch(kind)
    losses = criterion(kind)(outputs, targets)
    assert list(losses) == [*WEIGHTS, *(f"{name}_0" for name in WEIGHTS)]
    for name, loss in losses.items():
        assert_close(loss, REFERENCE[f"{kind}_crit_{name}"])
    leaves = outputs["pred_logits"], outputs["pred_boxes"]
    grads = torch.autograd.grad(sum(losses.values()), leaves)
    for grad, name in zip(grads, ("logits", "boxes"), strict=True):
        assert_close(grad, REFERENCE[f"{kind}_crit_grad_{name}"])


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_cost_what_predictions_do(kind):
    outputs, targets = batch(kind)
    outputs["enc_outputs"] = outputs["aux_outputs"][0]
    layers = [("", outputs), ("_0", outputs["aux_outputs"][0]), ("_enc", outputs["enc_outputs"])]
    predictions = [Prediction(o["pred_logits"], o["pred_boxes"], suffix) for suffix, o in layers]
    own = criterion(kind)
    assert_close(own(outputs, targets), own(predictions, targets), rtol=1e-6, atol=1e-6)


def test_attributes_that_subclasses_read():
    own = criterion(alpha=0.3, gamma=1.5, eos_coef=None)
    assert (own.alpha, own.gamma, own.eos_coef) == (0.3, 1.5, None)
    assert (own.num_classes, own.loss_class_type) == (5, "focal_loss")
    assert own.losses == ["class", "boxes"] and own.weight_dict == WEIGHTS


def test_matches_are_returned_with_the_last_layer_at_the_end():
    outputs, targets = batch()
    own = criterion()
    losses, (aux, last) = own(outputs, targets, return_indices=True)
    assert_close(losses, own(outputs, targets))
    assert_close(last, own.matcher(outputs, targets))
    assert_close(aux, own.matcher(outputs["aux_outputs"][0], targets))


class WithMasks(SetCriterion):
    """A loss of one's own, another class loss, and matches that are narrowed."""

    def get_loss(self, loss, outputs, targets, indices, num_boxes, **kwargs):
        if loss == "areas":
            return self.loss_areas(outputs, targets, indices, num_boxes, **kwargs)
        return super().get_loss(loss, outputs, targets, indices, num_boxes, **kwargs)

    def loss_areas(self, outputs, targets, indices, num_boxes):
        boxes = outputs["pred_boxes"][self._get_src_permutation_idx(indices)]
        wanted = torch.cat([t["boxes"][j] for t, (_, j) in zip(targets, indices, strict=True)])
        areas = boxes[:, 2:].prod(1) - wanted[:, 2:].prod(1)
        return {"loss_areas": areas.abs().sum() / num_boxes}

    def loss_labels(self, outputs, targets, indices, num_boxes):
        return {"loss_class": outputs["pred_logits"].square().mean()}


def test_methods_are_overridable():
    outputs, targets = batch()
    own = criterion(cls=WithMasks, losses=["class", "boxes", "areas"])
    losses = own(outputs, targets)
    assert {"loss_areas", "loss_areas_0", "loss_bbox", "loss_giou_0"} <= set(losses)
    assert_close(losses["loss_class"], outputs["pred_logits"].square().mean())
    assert_close(losses["loss_bbox"], REFERENCE["f_crit_loss_bbox"])
    areas = 0
    for i, (query, target) in enumerate(own.matcher(outputs, targets)):
        found = outputs["pred_boxes"][i, query, 2:].prod(1)
        areas += (found - targets[i]["boxes"][target, 2:].prod(1)).abs().sum()
    assert_close(losses["loss_areas"], areas / 4)


def test_permutations_are_overridable():
    class FirstImageOnly(SetCriterion):
        def _get_src_permutation_idx(self, indices):
            image, query = super()._get_src_permutation_idx(indices)
            return image[:3], query[:3]

        def _get_tgt_permutation_idx(self, indices):
            image, target = super()._get_tgt_permutation_idx(indices)
            return image[:3], target[:3]

    outputs, targets = batch()
    own = criterion(cls=FirstImageOnly)
    query, target = own.matcher(outputs, targets)[0]
    distance = (outputs["pred_boxes"][0, query] - targets[0]["boxes"][target]).abs().sum()
    assert_close(own(outputs, targets)["loss_bbox"], distance / 4)


def test_fixed_matches_of_denoising():
    """What DN and DINO do: pairs that are known, and a number of boxes of their own."""
    outputs, targets = batch()
    known = [(torch.tensor([0, 1, 2]),) * 2, (torch.tensor([4]), torch.tensor([0]))]
    losses = criterion().get_loss("boxes", outputs, targets, known, 4 * 5)
    distance = sum(
        (outputs["pred_boxes"][i, query] - targets[i]["boxes"][target]).abs().sum()
        for i, (query, target) in enumerate(known)
    )
    assert_close(losses["loss_bbox"], distance / 20)
    nothing = [(torch.zeros(0, dtype=int),) * 2] * 2
    assert criterion().get_loss("boxes", outputs, targets, nothing, 1)["loss_bbox"] == 0


def test_unknown_losses_are_named():
    with pytest.raises(ValueError, match="unknown losses \\['masks'\\]"):
        criterion(losses=["class", "masks"])
    outputs, targets = batch()
    own = criterion(cls=WithMasks, losses=["class", "masks"])
    with pytest.raises(ValueError, match=r"no loss 'masks'.*override get_loss"):
        own(outputs, targets)


def test_logits_of_other_classes_are_refused():
    outputs, targets = batch()
    own = SetCriterion(7, HungarianMatcher(2, 5, 2), WEIGHTS)
    with pytest.raises(ValueError, match="have 5 logits, but the criterion expects 7"):
        own(outputs, targets)
    # Whether there is an object at all, as two-stage criteria ask of the encoder.
    objects = [t | {"labels": torch.zeros_like(t["labels"])} for t in targets]
    single = {"pred_logits": outputs["pred_logits"][..., :1], "pred_boxes": outputs["pred_boxes"]}
    assert own(single, objects)["loss_class"].isfinite()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal_nb1", {"num_boxes": 1}),
        ("focal_nb4", {"num_boxes": 4}),
        ("focal_noalpha", {"num_boxes": 1, "alpha": -1}),
        ("focal_gamma1", {"num_boxes": 1, "alpha": 0.5, "gamma": 1}),
    ],
)
def test_focal_loss_is_the_reference(name, options):
    inputs = REFERENCE["focal_inputs"].clone().requires_grad_()
    loss = sigmoid_focal_loss(inputs, REFERENCE["focal_targets"], **options)
    assert_close(loss, REFERENCE[name])
    if f"{name}_grad" in REFERENCE:
        assert_close(torch.autograd.grad(loss, inputs)[0], REFERENCE[f"{name}_grad"])


def modified() -> ModifedMatcher:
    return ModifedMatcher(FocalLossCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0))


def test_the_modified_matcher_is_the_reference():
    outputs, targets = batch()
    own = [t["labels"] for t in targets], [t["boxes"] for t in targets]
    for matcher in (modified(), ModifedMatcher()):
        found = matcher(outputs["pred_logits"], outputs["pred_boxes"], *own)
        for i, (query, target) in enumerate(found):
            assert query.tolist() == REFERENCE[f"modified_match_src{i}"].tolist()
            assert target.tolist() == REFERENCE[f"modified_match_tgt{i}"].tolist()


@pytest.mark.parametrize(
    ("name", "cost", "inputs"),
    [
        ("cost_focal", FocalLossCost(weight=2.0), ("logits", "labels0")),
        ("cost_ce", CrossEntropyCost(weight=2.0), ("logits", "labels0")),
        ("cost_l1", L1Cost(weight=5.0), ("boxes", "boxes0")),
        ("cost_giou", GIoUCost(weight=2.0), ("boxes", "boxes0")),
    ],
)
def test_costs_are_the_reference(name, cost, inputs):
    preds, targets = REFERENCE[f"f_pred_{inputs[0]}"][0], REFERENCE[f"f_{inputs[1]}"]
    assert_close(cost(preds, targets), REFERENCE[name])


def base_criterion() -> BaseCriterion:
    losses = FocalLoss(), L1Loss(loss_weight=5.0), GIoULoss(eps=1e-6, loss_weight=2.0)
    return BaseCriterion(5, modified(), *losses)


def test_the_base_criterion_is_the_reference():
    outputs, targets = batch()
    aux = outputs.pop("aux_outputs")
    losses = base_criterion()(outputs, targets)
    for name in WEIGHTS:
        assert_close(losses[name], REFERENCE[f"base_crit_{name}"])
    leaves = outputs["pred_logits"], outputs["pred_boxes"]
    grads = torch.autograd.grad(sum(losses.values()), leaves)
    for grad, name in zip(grads, ("logits", "boxes"), strict=True):
        assert_close(grad, REFERENCE[f"base_crit_grad_{name}"])
    both = base_criterion()(outputs | {"aux_outputs": aux}, targets)
    assert_close(both["loss_giou_0"], 2 * REFERENCE["f_crit_loss_giou_0"])


def test_the_base_criterion_has_losses_of_its_own():
    outputs, targets = batch()
    found = BaseCriterion(5, modified())(outputs, targets)
    assert_close(found, base_criterion()(outputs, targets))


def test_the_base_criterion_is_overridable():
    class Squared(BaseCriterion):
        def calculate_bbox_loss(self, pred_boxes, targets, indices, num_boxes):
            matched = pred_boxes[self._get_src_permutation_idx(indices)]
            image, target = self._get_tgt_permutation_idx(indices)
            wanted: list[Tensor] = [
                targets[i]["boxes"][j] for i, j in zip(image, target, strict=True)
            ]
            return (matched - torch.stack(wanted)).square().sum() / num_boxes

    outputs, targets = batch()
    losses = Squared(5, modified(), FocalLoss(), L1Loss(), GIoULoss())(outputs, targets)
    squares = sum(
        (outputs["pred_boxes"][i, query] - targets[i]["boxes"][target]).square().sum()
        for i, (query, target) in enumerate(criterion().matcher(outputs, targets))
    )
    assert_close(losses["loss_bbox"], squares / 4)
