"""Deterministic transforms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from PIL import Image


def ramp(h, w, dtype=np.float64):
    """x + 10 y at pixel centers: linear, so that any linear interpolation is exact."""
    y, x = np.mgrid[:h, :w] + 0.5
    return (x + 10 * y).astype(dtype)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3), (8, 6, 4), (8, 6, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.uint16])
def test_resize_any_image(shape, dtype):
    img = np.random.RandomState(0).randint(0, 255, shape).astype(dtype)
    out = T.ResizeTransform(8, 6, 4, 9).apply_image(img)
    assert out.shape == (4, 9, *shape[2:]) and out.dtype == dtype


def test_resize_uint8_is_pils():
    img = np.random.RandomState(0).randint(0, 255, (9, 7, 3), dtype=np.uint8)
    for method in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST):
        expected = np.asarray(Image.fromarray(img).resize((5, 12), method))
        out = T.ResizeTransform(9, 7, 12, 5, method).apply_image(img)
        np.testing.assert_array_equal(out, expected)


def test_resize_float_is_torchs():
    img = np.random.RandomState(0).rand(9, 7, 2).astype(np.float32)
    expected = F.interpolate(
        torch.from_numpy(img.transpose(2, 0, 1))[None], (12, 5), mode="bilinear"
    )[0]
    out = T.ResizeTransform(9, 7, 12, 5).apply_image(img)
    torch.testing.assert_close(torch.from_numpy(out.transpose(2, 0, 1)), expected)


def test_resize_of_a_flipped_view():
    img = np.random.RandomState(0).rand(9, 7)
    resize = T.ResizeTransform(9, 7, 12, 5)
    np.testing.assert_allclose(resize.apply_image(img[:, ::-1]), resize.apply_image(img)[:, ::-1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool])
def test_resize_labels(dtype):
    labels = np.random.RandomState(0).randint(0, 2, (9, 7)).astype(dtype)
    out = T.ResizeTransform(9, 7, 20, 3).apply_segmentation(labels)
    as_image = Image.fromarray(labels.astype(np.uint8)).resize((3, 20), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(out, np.asarray(as_image))
    assert out.dtype == dtype


def test_resize_coordinates_and_back():
    resize = T.ResizeTransform(10, 20, 30, 10)
    np.testing.assert_allclose(
        resize.apply_coords(np.array([[20.0, 10.0], [5.0, 1.0]])), [[10, 30], [2.5, 3]]
    )
    np.testing.assert_allclose(resize.apply_box(np.array([[2.0, 1.0, 4.0, 2.0]])), [[1, 3, 2, 6]])
    point = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(
        resize.inverse().apply_coords(resize.apply_coords(point.copy())), point
    )


def test_resize_wants_its_size():
    with pytest.raises(AssertionError, match=r"made for an image of 10 x 20 pixels.*\(20, 10\)"):
        T.ResizeTransform(10, 20, 5, 5).apply_image(np.zeros((20, 10)))
    with pytest.raises(ValueError, match="PIL's LANCZOS filter is for uint8"):
        T.ResizeTransform(10, 20, 5, 5, Image.Resampling.LANCZOS).apply_image(np.zeros((10, 20)))


@pytest.mark.parametrize("expand", [True, False])
def test_rotation_by_right_angles(expand):
    img = np.random.RandomState(0).rand(6, 6, 2)
    for turns in (1, 2, 3):
        rotation = T.RotationTransform(6, 6, 90 * turns, expand=expand)
        np.testing.assert_allclose(rotation.apply_image(img), np.rot90(img, turns), atol=1e-12)
    img = np.random.RandomState(0).rand(5, 8)
    rotation = T.RotationTransform(5, 8, 90, expand=True)
    np.testing.assert_allclose(rotation.apply_image(img), np.rot90(img), atol=1e-12)
    np.testing.assert_array_equal(
        rotation.apply_segmentation((img > 0.5).astype(np.int64)), np.rot90(img > 0.5)
    )
    half = T.RotationTransform(5, 8, 180, expand=expand)
    np.testing.assert_allclose(half.apply_image(img), img[::-1, ::-1], atol=1e-12)


def test_rotation_of_coordinates():
    h, w = 4, 6
    points = np.array([[x, y] for y in range(h + 1) for x in range(w + 1)], dtype=float)
    rotation = T.RotationTransform(h, w, 45, expand=False)
    # Turning (x, y) around (w/2, h/2) by 45 degrees, y pointing down.
    x, y = points[:, 0] - w / 2, points[:, 1] - h / 2
    expected = np.stack([(x + y) / 2**0.5 + w / 2, (y - x) / 2**0.5 + h / 2], axis=1)
    np.testing.assert_allclose(rotation.apply_coords(points), expected)
    quarter = T.RotationTransform(h, w, 90, expand=True)
    assert (quarter.bound_h, quarter.bound_w) == (w, h)
    np.testing.assert_allclose(
        quarter.apply_coords(points), np.stack([points[:, 1], w - points[:, 0]], axis=1), atol=1e-12
    )


def test_rotated_image_and_coordinates_agree():
    """Where a point goes, its color goes."""
    h, w = 30, 40
    img = ramp(h, w)
    for center in (None, (12.0, 11.0)):
        rotation = T.RotationTransform(h, w, 23, expand=center is None, center=center)
        out = rotation.apply_image(img)
        source = np.array([[20.0, 15.0], [18.5, 12.25]])
        target = rotation.apply_coords(source)
        # The image is linear, so the four pixels around a point give its value.
        for (x, y), (tx, ty) in zip(source, target, strict=True):
            column, row = int(tx - 0.5), int(ty - 0.5)
            fx, fy = tx - 0.5 - column, ty - 0.5 - row
            patch = out[row : row + 2, column : column + 2]
            value = np.array([1 - fy, fy]) @ patch @ np.array([1 - fx, fx])
            assert value == pytest.approx(x + 10 * y)


def test_center_has_no_effect_on_an_expanded_canvas():
    img = np.random.RandomState(0).rand(5, 8)
    points = np.random.RandomState(1).rand(6, 2) * 5
    reference = T.RotationTransform(5, 8, 37, expand=True)
    for center in ((0, 0), (5, 8), (2, 5)):
        rotation = T.RotationTransform(5, 8, 37, expand=True, center=center)
        np.testing.assert_allclose(rotation.apply_image(img), reference.apply_image(img))
        np.testing.assert_allclose(rotation.apply_coords(points), reference.apply_coords(points))


def test_rotation_of_uint8_and_outside():
    white = np.full((10, 10, 3), 255, dtype=np.uint8)
    out = T.RotationTransform(10, 10, 45).apply_image(white)
    assert out.dtype == np.uint8 and out.shape == (14, 14, 3)
    assert (out[0, 0] == 0).all() and (out[7, 7] == 255).all()


def test_rotation_back():
    for angle in (10, 90, 135):
        rotation = T.RotationTransform(7, 12, angle, expand=True)
        inverse = rotation.inverse()
        points = np.random.RandomState(0).rand(5, 2) * 7
        back = inverse.apply_coords(rotation.apply_coords(points))
        np.testing.assert_allclose(back, points, atol=1e-12)
        assert inverse.apply_image(rotation.apply_image(np.ones((7, 12)))).shape == (7, 12)
    exact = T.RotationTransform(7, 12, 90)
    img = np.random.RandomState(0).rand(7, 12)
    np.testing.assert_allclose(exact.inverse().apply_image(exact.apply_image(img)), img, atol=1e-12)
    with pytest.raises(NotImplementedError, match="no inverse"):
        T.RotationTransform(7, 12, 10, expand=False).inverse()


def test_no_rotation_returns_its_input():
    img, points = ramp(3, 4), np.ones((1, 2))
    rotation = T.RotationTransform(3, 4, 360)
    assert rotation.apply_image(img) is img and (rotation.apply_coords(points) == points).all()
    with pytest.raises(ValueError, match=r"0 \(nearest\) or 1"):
        T.RotationTransform(3, 4, 10, interp=3)


def test_extent():
    img = ramp(10, 20, np.float32)
    extent = T.ExtentTransform((2, 4, 12, 8), (4, 10))
    np.testing.assert_array_equal(extent.apply_image(img), img[4:8, 2:12])
    np.testing.assert_array_equal(
        extent.apply_coords(np.array([[2.0, 4.0], [12.0, 8.0]])), [[0, 0], [10, 4]]
    )
    double = T.ExtentTransform((2, 4, 12, 8), (8, 20))
    np.testing.assert_array_equal(double.apply_coords(np.array([[7.0, 6.0]])), [[10, 4]])
    labels = (np.arange(200).reshape(10, 20)).astype(np.int64)
    np.testing.assert_array_equal(
        double.apply_segmentation(labels), labels[4:8, 2:12].repeat(2, axis=0).repeat(2, axis=1)
    )


@pytest.mark.parametrize("shape", [(10, 20), (10, 20, 1), (10, 20, 3), (10, 20, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_extent_fills_what_is_outside(shape, dtype):
    img = np.full(shape, 9, dtype=dtype)
    out = T.ExtentTransform((-5, 0, 15, 10), (10, 20), fill=7).apply_image(img)
    assert out.shape == shape and out.dtype == dtype
    assert (out[:, :4] == 7).all() and (out[:, 6:] == 9).all()


def test_color_transforms():
    img = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(T.ColorTransform(lambda x: 255 - x).apply_image(img), 255 - img)
    from PIL import ImageOps

    transform = T.PILColorTransform(ImageOps.invert)
    np.testing.assert_array_equal(transform.apply_image(img), 255 - img)
    np.testing.assert_array_equal(transform.apply_image(img[:, ::-1]), 255 - img[:, ::-1])
    labels, points = np.ones((2, 4)), np.ones((1, 2))
    assert transform.apply_segmentation(labels) is labels
    assert transform.apply_coords(points) is points
    assert isinstance(transform.inverse(), T.NoOpTransform)
    for kind in (T.ColorTransform, T.PILColorTransform):
        with pytest.raises(ValueError, match="op parameter should be callable"):
            kind(3)


def area(polygon):
    x, y = polygon.T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2


def test_crop_cuts_polygons():
    crop = T.CropTransform(2, 1, 4, 3)  # x 2 to 6, y 1 to 4
    square = np.array([[0, 0], [4, 0], [4, 3], [0, 3]], dtype=float)
    before = square.copy()
    (cut,) = crop.apply_polygons([square])
    np.testing.assert_array_equal(square, before)
    assert {tuple(p) for p in cut} == {(0, 0), (2, 0), (2, 2), (0, 2)} and area(cut) == 4
    inside = np.array([[3, 2], [5, 2], [4, 3.5]])
    (same,) = crop.apply_polygons([inside])
    # The same points, counter-clockwise to the eye.
    np.testing.assert_array_equal(same, inside[[0, 2, 1]] - (2, 1))
    (again,) = crop.apply_polygons([inside[[0, 2, 1]]])
    np.testing.assert_array_equal(again, same)
    outside = [square - 10, np.array([[6.0, 1], [8, 1], [8, 4]])]  # the second only touches
    assert crop.apply_polygons(outside) == []
    around = np.array([[-9, -9], [99, -9], [99, 99], [-9, 99]], dtype=float)
    (whole,) = crop.apply_polygons([around])
    assert area(whole) == 12


def test_cut_polygons_end_exactly_at_the_window():
    points = np.random.RandomState(0).rand(200, 3, 2) * 900
    for triangle in points:
        for cut in T.CropTransform(231, 137, 411, 333).apply_polygons([triangle]):
            assert cut.min() >= 0 and cut[:, 0].max() <= 411 and cut[:, 1].max() <= 333


def test_crop_cuts_concave_polygons():
    # A U whose two arms reach into the window from below.
    u = np.array([[0, 0], [1, 0], [1, 8], [3, 8], [3, 0], [4, 0], [4, 9], [0, 9]], dtype=float)
    (cut,) = T.CropTransform(0, 0, 4, 5).apply_polygons([u])
    assert area(cut) == 10  # two arms of 1 x 5


def test_rotated_boxes():
    boxes = np.array([[10.0, 5.0, 6.0, 2.0, 30.0]])
    np.testing.assert_allclose(T.HFlipTransform(40).apply_rotated_box(boxes), [[30, 5, 6, 2, -30]])
    np.testing.assert_allclose(
        T.ResizeTransform(10, 20, 30, 60).apply_rotated_box(boxes), [[30, 15, 18, 6, 30]]
    )
    # Not rotated: sides scale with their axes.
    np.testing.assert_allclose(
        T.ResizeTransform(10, 20, 30, 20).apply_rotated_box(np.array([[10.0, 5, 6, 2, 0]])),
        [[10, 15, 6, 6, 0]],
    )
    both = T.TransformList(
        [T.HFlipTransform(40), T.NoOpTransform(), T.ResizeTransform(40, 40, 80, 80)]
    )
    np.testing.assert_allclose(both.apply_rotated_box(boxes), [[60, 10, 12, 4, -30]])
    assert boxes[0, 0] == 10
