"""Losses where, and by which arguments, the public detrex has them."""

from __future__ import annotations

import importlib

import pytest
import reference_ops
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from detrex.modeling import losses
from detrex.modeling.losses.focal_loss import focal_loss_with_prob
from detrex.modeling.losses.utils import weight_reduce_loss

REFERENCE = reference_ops.load("losses")

MODULES = {
    "cross_entropy_loss": ("CrossEntropyLoss", "cross_entropy"),
    "dice_loss": ("DiceLoss", "dice_loss"),
    "focal_loss": ("FocalLoss", "sigmoid_focal_loss"),
    "giou_loss": ("GIoULoss", "giou_loss"),
    "smooth_l1_loss": ("L1Loss", "SmoothL1Loss", "l1_loss", "smooth_l1_loss"),
}


@pytest.mark.parametrize("module", MODULES)
def test_one_definition_in_two_places(module):
    found = importlib.import_module(f"detrex.modeling.losses.{module}")
    for name in MODULES[module]:
        assert getattr(found, name) is getattr(losses, name)


def test_importing_a_module_leaves_the_function_of_its_name():
    for name in ("dice_loss", "giou_loss", "smooth_l1_loss"):
        module = importlib.import_module(f"detrex.modeling.losses.{name}")
        assert getattr(losses, name) is getattr(module, name)


def test_focal_loss_of_probabilities():
    preds, targets = REFERENCE["cls_preds"], REFERENCE["cls_targets"]
    assert_close(focal_loss_with_prob(preds.sigmoid(), targets), REFERENCE["FocalLoss_activated"])
    weight = REFERENCE["cls_weight"]
    given = focal_loss_with_prob(preds.sigmoid(), targets, weight, 0.4, 1.5, "mean", 3)
    assert_close(given, losses.sigmoid_focal_loss(preds, targets, weight, 0.4, 1.5, "mean", 3))


def test_weights_and_reduction():
    loss, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.0])
    assert weight_reduce_loss(loss, weight, "none").tolist() == [1.0, 1.0, 0.0]
    assert weight_reduce_loss(loss, weight, "sum") == 2.0
    assert weight_reduce_loss(loss, weight, avg_factor=4) == 0.5


def test_ignored_classes_cost_nothing():
    preds, targets = REFERENCE["cls_preds"], REFERENCE["ce_targets"]
    kept = targets != targets[0]
    ignored = int(targets[0])
    expected = F.cross_entropy(preds[kept], targets[kept], reduction="sum")
    loss = losses.CrossEntropyLoss(ignore_index=ignored)
    assert_close(loss(preds, targets), expected / len(targets))
    loss = losses.CrossEntropyLoss(ignore_index=ignored, avg_non_ignore=True, loss_weight=2.0)
    assert_close(loss(preds, targets), 2 * expected / kept.sum())
    assert_close(loss(preds, targets, avg_factor=3), 2 * expected / 3)
    unreduced = losses.CrossEntropyLoss("none", ignore_index=ignored, avg_non_ignore=True)
    assert (unreduced(preds, targets) == 0).tolist() == (~kept).tolist()
    assert loss(preds[~kept], targets[~kept]) == 0
