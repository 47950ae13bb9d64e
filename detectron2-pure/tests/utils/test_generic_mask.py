import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.utils.generic_mask import GenericMask


def square(*rows_and_columns, size=(20, 30)):
    mask = np.zeros(size, dtype=np.uint8)
    top, bottom, left, right = rows_and_columns
    mask[top:bottom, left:right] = 1
    return mask


def test_outline_runs_along_the_edges_of_pixels():
    mask = GenericMask(square(3, 10, 5, 15), 20, 30)
    assert len(mask.polygons) == 1 and mask.polygons[0].ndim == 1
    assert mask.bbox().tolist() == [5, 3, 15, 10]
    assert mask.area() == 7 * 10
    assert not mask.has_holes


def test_mask_at_the_border_is_closed():
    mask = GenericMask(np.ones((20, 30), dtype=bool), 20, 30)
    assert mask.bbox().tolist() == [0, 0, 30, 20]
    assert len(mask.polygons) == 1


def test_holes_and_parts():
    bitmap = square(2, 12, 2, 12) - square(5, 8, 5, 8) + square(15, 18, 20, 25)
    mask = GenericMask(bitmap, 20, 30)
    assert mask.has_holes
    assert sorted(len(rings) for rings in mask.regions) == [1, 2]
    assert len(mask.polygons) == 2
    polygons, has_holes = mask.mask_to_polygons(square(5, 8, 5, 8))
    assert len(polygons) == 1 and not has_holes


def test_polygons_become_a_mask():
    mask = GenericMask([[5, 3, 15, 3, 15, 10, 5, 10], [20, 12, 25, 12, 25, 15]], 20, 30)
    assert mask.mask.dtype == np.uint8
    np.testing.assert_array_equal(mask.mask[:11], square(3, 10, 5, 15)[:11])
    assert mask.mask[12:15, 20:25].any()
    assert not mask.has_holes
    assert mask.bbox().tolist() == [5, 3, 25, 15]


@pytest.mark.parametrize("form", ["bytes", "text", "list"])
def test_run_lengths(form):
    bitmap = square(3, 10, 5, 15)
    rle = mask_util.encode(np.asfortranarray(bitmap))
    if form == "text":
        rle["counts"] = rle["counts"].decode()
    elif form == "list":  # columns of 20: 5 empty ones and 3 pixels, then ten times 7 inside
        counts = [5 * 20 + 3] + [7, 13] * 9 + [7, 10 + 15 * 20]
        rle = {"size": [20, 30], "counts": counts}
    np.testing.assert_array_equal(GenericMask(rle, 20, 30).mask, bitmap)


@pytest.mark.parametrize("empty", [[], np.zeros((20, 30))])
def test_empty_masks(empty):
    mask = GenericMask(empty, 20, 30)
    assert mask.polygons == [] and mask.area() == 0 and not mask.has_holes
    assert mask.bbox().tolist() == [0, 0, 0, 0]


def test_unusable_masks():
    with pytest.raises(ValueError, match=r"shape \(20, 30\), the image has \(30, 20\)"):
        GenericMask(square(1, 2, 1, 2), 30, 20)
    with pytest.raises(ValueError, match="not a str"):
        GenericMask("mask", 20, 30)
