"""Conversions and overlaps of boxes."""

from __future__ import annotations

import pytest
import reference_ops
import torch
from torch.testing import assert_close
from torchvision import ops

from detrex.layers import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    masks_to_boxes,
)
from detrex.layers.box_ops import EPS, elementwise_generalized_box_iou

REFERENCE = reference_ops.load("boxes")


@pytest.fixture
def corners() -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes as (6, 4) and (4, 4) xyxy; the last of the first set is a point."""
    return REFERENCE["xyxy_1"].clone(), REFERENCE["xyxy_2"].clone()


def test_conversions_agree_with_the_reference():
    assert_close(box_cxcywh_to_xyxy(REFERENCE["cxcywh_1"]), REFERENCE["xyxy_1"])
    assert_close(box_cxcywh_to_xyxy(REFERENCE["cxcywh_2"]), REFERENCE["xyxy_2"])
    assert_close(box_xyxy_to_cxcywh(REFERENCE["xyxy_1"]), REFERENCE["back_1"])


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4), (2, 0, 5, 4)])
def test_conversions_undo_each_other_in_any_shape(shape):
    boxes = torch.rand(shape, dtype=torch.float64)
    assert_close(box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(boxes)), boxes)
    assert_close(box_cxcywh_to_xyxy(boxes), ops.box_convert(boxes, "cxcywh", "xyxy"))


def test_overlaps_agree_with_the_reference(corners):
    iou, union = box_iou(*corners)
    assert_close(iou, REFERENCE["iou"])
    assert_close(union, REFERENCE["union"])
    assert_close(generalized_box_iou(*corners), REFERENCE["giou"])


def test_giou_gradient_agrees_with_the_reference(corners):
    first, second = corners
    first.requires_grad_()
    giou = generalized_box_iou(first, second)
    (grad,) = torch.autograd.grad(giou, first, REFERENCE["cotangent"])
    # Where a box is a point the overlap has a kink, so any subgradient does: the first five.
    assert_close(grad[:5], REFERENCE["giou_grad_1"][:5])


def test_overlaps_agree_with_torchvision_but_for_eps(corners):
    """Every denominator here is at least ``smallest``, so EPS changes a ratio by EPS / smallest."""
    first, second = (boxes.double()[:4] for boxes in corners)
    smallest = min(ops.box_area(first).min(), ops.box_area(second).min()).item()
    tolerance = {"rtol": 0, "atol": 2 * EPS / smallest}
    assert_close(box_iou(first, second)[0], ops.box_iou(first, second), **tolerance)
    giou = generalized_box_iou(first, second)
    assert_close(giou, ops.generalized_box_iou(first, second), **tolerance)


def test_elementwise_giou_is_the_diagonal_and_broadcasts(corners):
    first, second = corners[0][:4], corners[1]
    giou = generalized_box_iou(first, second)
    assert_close(elementwise_generalized_box_iou(first, second), giou.diagonal())
    assert_close(elementwise_generalized_box_iou(first, second[2]), giou[:, 2])


def test_giou_gradient_is_the_numeric_one(corners):
    first, second = (boxes.double()[:4].requires_grad_() for boxes in corners)
    assert torch.autograd.gradcheck(generalized_box_iou, (first, second))


def test_boxes_without_extent_overlap_nowhere():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert box_iou(point, point)[0].item() == 0
    assert generalized_box_iou(point, point).item() == 0


def test_no_boxes_give_empty_overlaps():
    none, some = torch.zeros(0, 4), torch.rand(3, 4)
    assert generalized_box_iou(none, some).shape == (0, 3)
    assert [x.shape for x in box_iou(some, none)] == [(3, 0), (3, 0)]


def test_masks_to_boxes_agrees_with_the_reference():
    assert_close(masks_to_boxes(REFERENCE["masks"]), REFERENCE["masks_to_boxes"])


def test_the_public_argument_of_conversions():
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4])
    corners = box_cxcywh_to_xyxy(bbox=boxes)
    assert_close(corners, torch.tensor([0.4, 0.3, 0.6, 0.7]))
    assert_close(box_xyxy_to_cxcywh(bbox=corners), boxes)
