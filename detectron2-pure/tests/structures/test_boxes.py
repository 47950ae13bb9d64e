"""Boxes, box modes and overlaps."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.structures import (
    Boxes,
    BoxMode,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from torch.testing import assert_close
from torchvision.ops import box_iou

XYWH = [[5.0, 5.0, 10.0, 10.0], [1.0, 1.0, 2.0, 3.0]]
XYXY = [[5.0, 5.0, 15.0, 15.0], [1.0, 1.0, 3.0, 4.0]]


# BoxMode ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple])
def test_convert_keeps_list_or_tuple(kind):
    out = BoxMode.convert(kind(XYWH[0]), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert out == kind(XYXY[0])
    assert type(out) is kind
    assert all(type(v) is float for v in out)
    ints = BoxMode.convert(kind([1, 2, 3, 4]), 1, 0)
    assert ints == kind([1, 2, 4, 6])
    assert all(type(v) is int for v in ints)


def test_convert_keeps_float64_of_lists():
    x = 0.1 + 0.2
    assert BoxMode.convert([x, 0.0, 0.0, 0.0], 0, 1)[0] == x


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_convert_arrays(dtype):
    box = np.array(XYWH, dtype=dtype)
    out = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert isinstance(out, np.ndarray)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, np.array(XYXY))
    np.testing.assert_array_equal(box, np.array(XYWH))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_convert_tensors(dtype):
    box = torch.tensor(XYWH, dtype=dtype)
    out = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert_close(out, torch.tensor(XYXY, dtype=dtype))
    assert_close(BoxMode.convert(out, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS), box)
    assert BoxMode.convert(box, 1, 1) is box


def test_convert_rotated():
    # A box of 30 x 20 turned by 90 degrees is one of 20 x 30; by 45 degrees both sides become
    # (30 + 20) / sqrt(2).
    half = 25 / math.sqrt(2)
    boxes = torch.tensor([[50.0, 50, 30, 20, 0], [50, 50, 30, 20, 90], [50, 50, 30, 20, -45]])
    out = BoxMode.convert(boxes, BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    expected = [[35, 40, 65, 60], [40, 35, 60, 65], [50 - half, 50 - half, 50 + half, 50 + half]]
    assert_close(out, torch.tensor(expected))
    xywh = BoxMode.convert((50.0, 50.0, 30.0, 20.0, 0.0), BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS)
    assert xywh == (35.0, 40.0, 30.0, 20.0)
    back = BoxMode.convert(list(xywh), BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
    assert back == [50.0, 50.0, 30.0, 20.0, 0.0]


def test_convert_refuses():
    with pytest.raises(AssertionError, match=r"4 numbers, but .* has 3"):
        BoxMode.convert([1.0, 2.0, 3.0], 0, 1)
    with pytest.raises(AssertionError):
        BoxMode.convert([XYXY[0]], 0, 1)
    with pytest.raises(AssertionError, match="Relative"):
        BoxMode.convert(XYXY[0], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)
    with pytest.raises(NotImplementedError, match="XYXY_ABS to XYWHA_ABS"):
        BoxMode.convert(XYXY[0], BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS)


def test_mode_is_json():
    assert json.loads(json.dumps({"bbox_mode": BoxMode.XYWH_ABS})) == {"bbox_mode": 1}


# Boxes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty", [[], [[]], torch.zeros(0), torch.zeros(0, 4), torch.zeros(0, 5), np.zeros((0, 4))]
)
def test_empty(empty):
    boxes = Boxes(empty)
    assert boxes.tensor.shape == (0, 4)
    assert len(boxes) == 0
    assert boxes.area().shape == boxes.nonempty().shape == (0,)
    assert list(boxes) == []


def test_conversion_of_input():
    assert Boxes(XYXY).tensor.dtype == torch.float32
    assert Boxes(np.array(XYXY)).tensor.dtype == torch.float32
    assert Boxes(torch.tensor(XYXY, dtype=torch.float64)).tensor.dtype == torch.float64
    assert Boxes(torch.tensor(XYXY).long()).tensor.dtype == torch.float32
    with pytest.raises(AssertionError, match=r"\(N, 4\)"):
        Boxes(torch.zeros(2, 5))


def test_area_centers_inside():
    boxes = Boxes(XYXY)
    assert_close(boxes.area(), torch.tensor([100.0, 6.0]))
    assert_close(boxes.get_centers(), torch.tensor([[10.0, 10.0], [2.0, 2.5]]))
    assert boxes.inside_box((15, 16)).tolist() == [False, True]
    assert boxes.inside_box((15, 16), boundary_threshold=1).tolist() == [True, True]


def test_clip_and_nonempty():
    boxes = Boxes([[-5.0, 2, 30, 9], [25, 0, 30, 10], [3, 4, 3, 8]])
    boxes.clip((8, 20))
    assert_close(boxes.tensor, torch.tensor([[0.0, 2, 20, 8], [20, 0, 20, 8], [3, 4, 3, 8]]))
    assert boxes.nonempty().tolist() == [True, False, False]
    assert boxes.nonempty(threshold=6).tolist() == [False, False, False]
    assert boxes.nonempty(threshold=5.5).tolist() == [True, False, False]
    for bad in (math.nan, math.inf):
        with pytest.raises(AssertionError, match="Box tensor contains infinite or NaN!"):
            Boxes([[bad, 0, 1, 1]]).clip((5, 5))


def test_scale_is_in_place():
    tensor = torch.tensor(XYXY)
    Boxes(tensor).scale(2, 3)
    assert_close(tensor, torch.tensor([[10.0, 15, 30, 45], [2, 3, 6, 12]]))


def test_indexing():
    boxes = Boxes(XYXY)
    assert_close(boxes[1].tensor, torch.tensor(XYXY[1:]))
    assert_close(boxes[np.int64(1)].tensor, torch.tensor(XYXY[1:]))
    assert_close(boxes[-1:].tensor, torch.tensor(XYXY[1:]))
    assert_close(boxes[torch.tensor([False, True])].tensor, torch.tensor(XYXY[1:]))
    assert_close(boxes[torch.tensor([1, 0])].tensor, torch.tensor(XYXY[::-1]))
    assert len(boxes[torch.tensor([], dtype=torch.long)]) == 0
    with pytest.raises(AssertionError):
        boxes[torch.tensor(1)]


def test_cat_clone_to_iter():
    boxes = Boxes(XYXY)
    both = Boxes.cat([boxes, boxes[:1]])
    assert_close(both.tensor, torch.tensor([*XYXY, XYXY[0]]))
    assert Boxes.cat([]).tensor.shape == (0, 4)
    with pytest.raises(AssertionError):
        Boxes.cat([boxes, boxes.tensor])
    copy = boxes.clone()
    copy.scale(2, 2)
    assert_close(boxes.tensor, torch.tensor(XYXY))
    assert boxes.to(torch.float64).tensor.dtype == torch.float64
    assert boxes.to("cpu").device == torch.device("cpu")
    assert [b.tolist() for b in boxes] == XYXY


# Overlaps ---------------------------------------------------------------------------------


def test_pairwise_by_hand():
    # The second box covers the right half of the first; the third touches nothing.
    one = Boxes([[0.0, 0, 1, 1]])
    others = Boxes([[0.5, 0, 1, 1], [0, 0, 2, 1], [5, 5, 6, 6], [1, 0, 2, 1], [0, 0, 0, 0]])
    assert_close(pairwise_intersection(one, others), torch.tensor([[0.5, 1, 0, 0, 0]]))
    assert_close(pairwise_iou(one, others), torch.tensor([[0.5, 0.5, 0, 0, 0]]))
    assert_close(pairwise_ioa(one, others), torch.tensor([[1.0, 0.5, 0, 0, 0]]))


def test_pairwise_iou_agrees_with_torchvision():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 6, 2, generator=generator) * 10
    boxes = torch.cat([low, low + torch.rand(2, 6, 2, generator=generator) * 10], dim=2)
    ours = pairwise_iou(Boxes(boxes[0]), Boxes(boxes[1]))
    assert_close(ours, box_iou(boxes[0], boxes[1]))
    assert_close(matched_pairwise_iou(Boxes(boxes[0]), Boxes(boxes[1])), ours.diagonal())


def test_pairwise_of_nothing():
    none, some = Boxes([]), Boxes(XYXY)
    assert pairwise_iou(none, some).shape == (0, 2)
    assert pairwise_ioa(some, none).shape == (2, 0)
    assert matched_pairwise_iou(none, none).shape == (0,)
    with pytest.raises(AssertionError, match="2 and 0"):
        matched_pairwise_iou(some, none)


def test_point_distance():
    points = torch.tensor([[6.0, 7.0]])
    expected = torch.tensor([[[1.0, 2, 9, 8], [5, 6, -3, -3]]])
    assert_close(pairwise_point_box_distance(points, Boxes(XYXY)), expected)


def test_torchscript():
    def stack(x: torch.Tensor):
        boxes = Boxes(x)
        both = boxes.cat([boxes, boxes[torch.tensor([0])].to(torch.device("cpu"))])
        both.clip((1, 2))
        return both.tensor, both.area(), both.nonempty()

    tensor = torch.tensor(XYXY)
    for scripted, eager in zip(torch.jit.script(stack)(tensor), stack(tensor), strict=True):
        assert_close(scripted, eager)


def test_integer_boxes_stay_integer():
    box = torch.tensor([[1, 2, 3, 5]])
    assert_close(
        BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS), torch.tensor([[2, 4, 3, 5, 0]])
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_areas_of_images_fit(dtype):
    boxes = Boxes(torch.tensor([[0, 0, 1000, 800]], dtype=dtype))
    assert_close(boxes.area(), torch.tensor([800_000.0]))
    assert_close(boxes.to(torch.float64).area(), torch.tensor([800_000.0], dtype=torch.float64))
