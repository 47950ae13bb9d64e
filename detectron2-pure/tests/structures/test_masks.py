"""Masks as bitmaps, polygons and regions."""

import numpy as np
import pytest
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    PolygonMasks,
    ROIMasks,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)
from torch.testing import assert_close

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # columns 2..5, rows 1..3
SMALL = [0, 5, 2, 5, 2, 7, 0, 7]  # columns 0..1, rows 5..6


def square_mask():
    mask = np.zeros((8, 9), dtype=bool)
    mask[1:4, 2:6] = True
    return mask


# BitMasks ---------------------------------------------------------------------------------


def test_rasterized_square():
    np.testing.assert_array_equal(polygons_to_bitmask([np.array(SQUARE)], 8, 9), square_mask())
    both = square_mask()
    both[5:7, 0:2] = True
    np.testing.assert_array_equal(polygons_to_bitmask([SQUARE, SMALL], 8, 9), both)
    assert polygons_to_bitmask([], 8, 9).shape == (8, 9)
    assert not polygons_to_bitmask([], 8, 9).any()


def test_from_polygon_masks():
    for polygons in (PolygonMasks([[SQUARE], []]), [[np.array(SQUARE)], []]):
        masks = BitMasks.from_polygon_masks(polygons, 8, 9)
        np.testing.assert_array_equal(masks.tensor[0].numpy(), square_mask())
        assert masks.nonempty().tolist() == [True, False]
        assert masks.image_size == (8, 9)
    assert BitMasks.from_polygon_masks([], 8, 9).tensor.shape == (0, 8, 9)


def test_bounding_boxes():
    tensor = torch.zeros(4, 8, 9)
    tensor[0] = torch.from_numpy(square_mask())
    tensor[1, 7, 8] = 1
    tensor[2] = 1
    boxes = BitMasks(tensor).get_bounding_boxes()
    assert_close(boxes.tensor, torch.tensor([[2.0, 1, 6, 4], [8, 7, 9, 8], [0, 0, 9, 8], [0] * 4]))
    assert BitMasks(torch.zeros(0, 8, 9)).get_bounding_boxes().tensor.shape == (0, 4)
    assert_close(BitMasks(torch.zeros(2, 0, 0)).get_bounding_boxes().tensor, torch.zeros(2, 4))


def test_bitmasks_indexing():
    masks = BitMasks(torch.from_numpy(np.stack([square_mask(), ~square_mask()])))
    assert len(masks) == 2
    assert_close(masks[1].tensor, masks.tensor[1:])
    assert_close(masks[torch.tensor([False, True])].tensor, masks.tensor[1:])
    assert_close(masks[torch.tensor([1, 0])].tensor, masks.tensor.flip(0))
    assert_close(masks[:1].tensor, masks.tensor[:1])
    assert [m.shape for m in masks] == [(8, 9), (8, 9)]
    with pytest.raises(AssertionError):
        masks[torch.tensor(0)]
    with pytest.raises(AssertionError, match=r"\(N, H, W\)"):
        BitMasks(torch.zeros(2, 3))


def test_bitmasks_from_array_cat_and_repr():
    masks = BitMasks(square_mask()[None])
    assert masks.tensor.dtype == torch.bool
    assert BitMasks.cat([masks, masks]).tensor.shape == (2, 8, 9)
    assert repr(masks) == "BitMasks(num_instances=1)"
    assert masks.to("cpu").device == masks.device


def test_bitmasks_crop_and_resize():
    masks = BitMasks(np.stack([square_mask(), square_mask()]))
    # The box of the square itself, and one whose left half it fills.
    crops = masks.crop_and_resize(torch.tensor([[2.0, 1, 6, 4], [2, 1, 9, 4]]), 4)
    assert crops.dtype == torch.bool
    assert crops[0].all()
    assert crops[1, :, :2].all()
    assert not crops[1, :, 3:].any()
    nothing = BitMasks(torch.zeros(0, 8, 9)).crop_and_resize(torch.zeros(0, 4), 4)
    assert nothing.shape == (0, 4, 4)
    with pytest.raises(AssertionError, match="2 masks, but 1 boxes"):
        masks.crop_and_resize(torch.zeros(1, 4), 4)


# PolygonMasks -----------------------------------------------------------------------------


def test_polygons_are_float64_arrays():
    masks = PolygonMasks([[SQUARE, np.array(SMALL, dtype=np.float32)], [torch.tensor(SMALL)]])
    assert all(p.dtype == np.float64 for parts in masks.polygons for p in parts)
    assert len(masks) == 2
    assert repr(masks) == "PolygonMasks(num_instances=2)"


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 8)), [SQUARE], [[[1, 2, 3, 4]]], [[[0, 1, 2, 3, 4, 5, 6]]]]
)
def test_wrong_polygons(wrong):
    with pytest.raises(ValueError, match="olygon"):
        PolygonMasks(wrong)


def test_polygon_area_and_boxes():
    masks = PolygonMasks([[SQUARE, SMALL], [[0, 0, 4, 0, 0, 3]], []])
    # 4 x 3 and 2 x 2; a triangle with the legs 4 and 3.
    assert_close(masks.area(), torch.tensor([16.0, 6.0, 0.0]), check_dtype=False)
    expected = torch.tensor([[0.0, 1, 6, 7], [0, 0, 4, 3], [0, 0, 0, 0]])
    assert_close(masks.get_bounding_boxes().tensor, expected)
    assert masks.nonempty().tolist() == [True, True, False]


def test_polygon_indexing():
    masks = PolygonMasks([[SQUARE], [SMALL], [SQUARE, SMALL]])
    first = [p.tolist() for p in masks[0].polygons[0]]
    assert first == [SQUARE]
    for item in ([2, 0], torch.tensor([2, 0]), np.array([2, 0])):
        assert [len(parts) for parts in masks[item]] == [2, 1]
    for item in (torch.tensor([True, False, True]), np.array([True, False, True]), slice(0, 3, 2)):
        assert [len(parts) for parts in masks[item]] == [1, 2]
    with pytest.raises(IndexError):
        masks[torch.tensor([True])]
    assert len(PolygonMasks.cat([masks, masks[:1]])) == 4


def test_polygon_crop_and_resize():
    masks = PolygonMasks([[SQUARE], [SQUARE]])
    crops = masks.crop_and_resize(torch.tensor([[2.0, 1, 6, 4], [4, 1, 8, 4]]), 4)
    assert crops[0].all()
    assert crops[1, :, :2].all()
    assert not crops[1, :, 2:].any()
    assert PolygonMasks([]).crop_and_resize(torch.zeros(0, 4), 4).shape == (0, 4, 4)


def test_crop_does_not_change_the_polygons():
    polygon = np.array(SQUARE, dtype=np.float64)
    rasterize_polygons_within_box([polygon], np.array([2.0, 1, 6, 4]), 4)
    assert polygon.tolist() == SQUARE


# ROIMasks ---------------------------------------------------------------------------------


def test_roi_masks():
    masks = ROIMasks(torch.stack([torch.ones(4, 4), torch.full((4, 4), 0.3)]))
    boxes = Boxes([[2.0, 1, 6, 4], [0, 0, 8, 8]])
    full = masks.to_bitmasks(boxes, 8, 9)
    np.testing.assert_array_equal(full.tensor[0].numpy(), square_mask())
    assert not full.tensor[1].any()
    assert masks.to_bitmasks(boxes, 8, 9, threshold=0.1).tensor[1, :8, :8].all()
    assert len(masks[1]) == len(masks[torch.tensor([True, False])]) == 1
    with pytest.raises(ValueError, match=r"\(N, M, M\)"):
        ROIMasks(torch.zeros(4, 4))
