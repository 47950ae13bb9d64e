"""Loss functions and modules."""

from __future__ import annotations

import pytest
import reference_ops
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from detrex.modeling import losses

REFERENCE = reference_ops.load("losses")
CLASSES = ("cls_preds", "cls_targets")
SOFTMAX = ("cls_preds", "ce_targets")
BOXES = ("box_preds", "box_targets")
MASKS = ("mask_preds", "mask_targets")
CLASS_WEIGHT = REFERENCE["ce_class_weight"]


def inputs(names: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    preds, targets = (REFERENCE[name] for name in names)
    return preds.clone(), targets


@pytest.mark.parametrize(
    ("name", "loss", "arrays", "extra"),
    [
        ("FocalLoss_none", losses.FocalLoss(reduction="none"), CLASSES, {}),
        ("FocalLoss_mean", losses.FocalLoss(), CLASSES, {}),
        ("FocalLoss_sum", losses.FocalLoss(reduction="sum"), CLASSES, {}),
        ("FocalLoss_avg3", losses.FocalLoss(loss_weight=2.0), CLASSES, {"avg_factor": 3}),
        ("FocalLoss_weight", losses.FocalLoss(), CLASSES, {"weight": REFERENCE["cls_weight"]}),
        ("CE_mean", losses.CrossEntropyLoss(), SOFTMAX, {}),
        ("CE_avg3", losses.CrossEntropyLoss(), SOFTMAX, {"avg_factor": 3}),
        (
            "CE_class_weight",
            losses.CrossEntropyLoss(loss_weight=2.0, class_weight=CLASS_WEIGHT.tolist()),
            SOFTMAX,
            {},
        ),
        ("giou_none", losses.GIoULoss(reduction="none"), BOXES, {}),
        ("GIoU_mean", losses.GIoULoss(), BOXES, {}),
        ("GIoU_avg3_w2", losses.GIoULoss(loss_weight=2.0), BOXES, {"avg_factor": 3}),
        ("GIoU_weight", losses.GIoULoss(), BOXES, {"weight": REFERENCE["box_weight"]}),
        ("L1_mean", losses.L1Loss(), BOXES, {}),
        ("L1_avg3_w5", losses.L1Loss(loss_weight=5.0), BOXES, {"avg_factor": 3}),
        ("smooth_l1_beta1", losses.SmoothL1Loss(), BOXES, {}),
        ("smooth_l1_beta0p1_sum", losses.SmoothL1Loss(beta=0.1, reduction="sum"), BOXES, {}),
        ("dice_none", losses.DiceLoss(reduction="none", eps=1e-4), MASKS, {}),
        ("Dice_mean", losses.DiceLoss(), MASKS, {}),
    ],
)
def test_modules_agree_with_the_reference(name, loss, arrays, extra):
    assert_close(loss(*inputs(arrays), **extra), REFERENCE[name])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_focal_function_agrees_with_the_reference(reduction):
    loss = losses.sigmoid_focal_loss(*inputs(CLASSES), reduction=reduction)
    assert_close(loss, REFERENCE[f"sigmoid_focal_loss_{reduction}"])


def test_probabilities_give_what_logits_give():
    preds, targets = inputs(CLASSES)
    focal = losses.FocalLoss(activated=True)(preds.sigmoid(), targets)
    assert_close(focal, REFERENCE["FocalLoss_activated"])
    preds, targets = inputs(MASKS)
    dice = losses.DiceLoss(use_sigmoid=False, reduction="sum")(preds.sigmoid(), targets)
    assert_close(dice, REFERENCE["Dice_nosig_sum"])


def test_certain_probabilities_have_finite_loss_and_gradient():
    preds = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = losses.FocalLoss(activated=True, reduction="none")(preds, torch.tensor([[1.0, 0.0]]))
    loss.sum().backward()
    assert loss.isfinite().all() and preds.grad.isfinite().all()
    sure = losses.FocalLoss(activated=True)(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert sure == 0


def test_giou_gradient_agrees_with_the_reference():
    preds, targets = inputs(BOXES)
    preds.requires_grad_()
    (grad,) = torch.autograd.grad(losses.giou_loss(preds, targets), preds)
    assert_close(grad, REFERENCE["GIoU_mean_grad"])


def test_class_numbers_and_one_hot_targets_are_the_same():
    preds, targets = inputs(CLASSES)
    one_hot = F.one_hot(targets, 6)[:, :5].float()  # class 5 of 5 is none of them
    assert torch.equal(
        losses.sigmoid_focal_loss(preds, one_hot), losses.sigmoid_focal_loss(preds, targets)
    )


def test_focal_without_focus_is_binary_cross_entropy():
    preds, targets = inputs(MASKS)
    loss = losses.sigmoid_focal_loss(preds, targets, alpha=-1, gamma=0)
    assert_close(loss, F.binary_cross_entropy_with_logits(preds, targets))


def test_focal_criterion_numbers():
    """The DETR codes' focal loss is a mean over the queries (6), divided by the number of boxes."""
    known = reference_ops.load("criterion_and_matcher")
    preds, targets = known["focal_inputs"].clone().requires_grad_(), known["focal_targets"]
    loss = losses.sigmoid_focal_loss(preds, targets, avg_factor=6)
    (grad,) = torch.autograd.grad(loss, preds)
    assert_close(loss, known["focal_nb1"])
    assert_close(grad, known["focal_nb1_grad"])
    assert_close(losses.sigmoid_focal_loss(preds, targets, avg_factor=6 * 4), known["focal_nb4"])
    for name, options in (("noalpha", {"alpha": -1}), ("gamma1", {"alpha": 0.5, "gamma": 1})):
        loss = losses.sigmoid_focal_loss(preds, targets, **options, avg_factor=6)
        assert_close(loss, known[f"focal_{name}"])


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_focal_is_finite_at_extreme_logits(logit):
    preds = torch.full((1, 2), logit, requires_grad=True)
    loss = losses.sigmoid_focal_loss(preds, torch.tensor([0]), reduction="sum")
    loss.backward()
    assert loss.isfinite() and preds.grad.isfinite().all()


def test_gradients_are_the_numeric_ones():
    for name, arrays in (("sigmoid_focal_loss", CLASSES), ("dice_loss", MASKS)):
        preds, targets = inputs(arrays)
        loss = getattr(losses, name)
        assert torch.autograd.gradcheck(
            lambda x, t=targets, f=loss: f(x, t), preds.double().requires_grad_()
        )


def test_empty_masks_agree():
    assert losses.dice_loss(torch.full((1, 9), -1e4), torch.zeros(1, 9)) == 0


def test_no_boxes_cost_nothing():
    none = torch.zeros(0, 4, requires_grad=True)
    for function in (losses.l1_loss, losses.smooth_l1_loss, losses.giou_loss):
        loss = function(none, none.detach(), avg_factor=1.0)
        assert loss == 0
        loss.backward()


def test_reduction_is_checked():
    loss = torch.rand(3)
    with pytest.raises(ValueError, match="'median'"):
        losses.reduce_loss(loss, reduction="median")
    with pytest.raises(ValueError, match="avg_factor"):
        losses.reduce_loss(loss, reduction="sum", avg_factor=2)


def test_class_weight_follows_the_module_but_is_no_state():
    loss = losses.CrossEntropyLoss(class_weight=[1.0, 2.0])
    assert not loss.state_dict()
    preds = torch.randn(3, 2, dtype=torch.float64)
    assert loss.double()(preds, torch.tensor([0, 1, 1])).dtype == torch.float64
