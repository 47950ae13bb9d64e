"""Random augmentations: what they may draw, and what they do with it."""

import sys

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.data import transforms as T
from detectron2.data.transforms.augmentation_crop import _window_qualifies
from omegaconf import OmegaConf


def image(h, w, channels=3, dtype=np.uint8):
    return np.random.RandomState(0).randint(0, 255, (h, w, channels)).astype(dtype)


def draws(augmentation, img, count=200, **attributes):
    """The transforms of many draws."""
    np.random.seed(0)
    arguments = [img, *attributes.values()]
    return [augmentation.get_transform(*arguments) for _ in range(count)]


def test_flip():
    img = image(4, 6)
    kinds = [type(t) for t in draws(T.RandomFlip(), img)]
    flips = kinds.count(T.HFlipTransform)
    assert 70 < flips < 130 and kinds.count(T.NoOpTransform) == 200 - flips
    (vertical,) = draws(T.RandomFlip(1.0, horizontal=False, vertical=True), img, 1)
    np.testing.assert_array_equal(vertical.apply_image(img), img[::-1])
    assert draws(T.RandomFlip(1.0), img, 1)[0].width == 6
    with pytest.raises(ValueError, match="Cannot do both"):
        T.RandomFlip(horizontal=True, vertical=True)
    with pytest.raises(ValueError, match="At least one"):
        T.RandomFlip(horizontal=False)


def size_of(transform):
    return transform.new_h, transform.new_w


def test_shortest_edge_from_a_range_has_both_ends():
    shapes = {size_of(t) for t in draws(T.ResizeShortestEdge((20, 22)), image(10, 15))}
    # 15 / 10 of 20, 21 (31.5 rounds up) and 22.
    assert shapes == {(20, 30), (21, 32), (22, 33)}


def test_shortest_edge_from_a_choice():
    augmentation = T.ResizeShortestEdge([20, 40], sample_style="choice")
    assert {size_of(t) for t in draws(augmentation, image(15, 10))} == {(30, 20), (60, 40)}
    for augmentation in (T.ResizeShortestEdge(20), T.ResizeShortestEdge(20, sample_style="choice")):
        assert {size_of(t) for t in draws(augmentation, image(10, 10), 5)} == {(20, 20)}


def test_shortest_edge_of_zero_does_nothing():
    (transform,) = draws(T.ResizeShortestEdge(0), image(10, 15), 1)
    assert isinstance(transform, T.NoOpTransform)


@pytest.mark.parametrize(
    ("old", "edge", "max_size", "new"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 1066.67
        ((640, 480), 800, 1333, (1067, 800)),
        ((427, 640), 800, 1333, (800, 1199)),  # 1199.06
        ((300, 1000), 800, 1333, (400, 1333)),  # 399.9
        ((1000, 300), 800, 1333, (1333, 400)),
        ((100, 100), 800, 500, (500, 500)),
        ((3, 2), 5, 1000, (8, 5)),  # 7.5 rounds up
        ((10, 15), 20, sys.maxsize, (20, 30)),
        ((333, 500), 600, 1000, (600, 901)),  # 900.9
        ((333, 500), 600, 900, (599, 900)),  # 599.4
        ((2, 6000), 800, 1333, (1, 1333)),  # 0.44, but there is no image without pixels
    ],
)
def test_output_shape_to_the_pixel(old, edge, max_size, new):
    assert T.ResizeShortestEdge.get_output_shape(*old, edge, max_size) == new
    resize = T.ResizeShortestEdge(edge, max_size).get_transform(image(*old))
    assert size_of(resize) == new


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_output_shape_can_be_scripted():
    def resized(image: torch.Tensor):
        h, w = image.shape[-2:]
        new_h, new_w = T.ResizeShortestEdge.get_output_shape(h, w, 8, 13)
        return torch.nn.functional.interpolate(image[None], size=(new_h, new_w))

    scripted = torch.jit.script(resized)
    for shape in ((3, 10, 10), (3, 4, 20), (3, 9, 7)):
        image = torch.rand(shape)
        torch.testing.assert_close(scripted(image), resized(image))


def test_bad_shortest_edges():
    with pytest.raises(AssertionError, match="two values using 'range'"):
        T.ResizeShortestEdge([1, 2, 3])
    with pytest.raises(AssertionError, match="'range' or 'choice'"):
        T.ResizeShortestEdge([1, 2], sample_style="random")


def test_resize():
    img = image(4, 6)
    assert size_of(T.Resize(8).get_transform(img)) == (8, 8)
    assert T.Resize((8, 3)).get_transform(img).apply_image(img).shape == (8, 3, 3)
    augmentation = T.RandomResize([(8, 3), (2, 2)])
    assert {size_of(t) for t in draws(augmentation, img)} == {(8, 3), (2, 2)}


def test_large_scale_jitter():
    img = image(40, 80)
    shapes = [size_of(t) for t in draws(T.ResizeScale(0.5, 2.0, 100, 100), img)]
    # The width limits: it is 50 to 200, and the height half of that.
    assert min(w for _, w in shapes) >= 50 and max(w for _, w in shapes) <= 200
    assert all(abs(h - w / 2) <= 1 for h, w in shapes)
    crop = T.FixedSizeCrop((100, 100))
    for h, w in shapes[:50]:
        inputs = T.AugInput(image(h, w), sem_seg=np.zeros((h, w), dtype=np.int64))
        inputs.apply_augmentations([crop])
        assert inputs.image.shape == (100, 100, 3) and inputs.sem_seg.shape == (100, 100)
        assert (inputs.image[h:] == 128).all() and (inputs.sem_seg[h:] == 255).all()
        assert (inputs.image[:, w:] == 128).all() and (inputs.sem_seg[:, w:] == 255).all()
        assert (inputs.sem_seg[:h, :w] == 0).all()


def test_fixed_size_crop_runs_along_the_diagonal_and_back():
    img = image(5, 4)
    places = {(t[0].y0, t[0].x0) for t in draws(T.FixedSizeCrop((3, 2)), img)}
    assert places == {(0, 0), (1, 1), (2, 2)}
    places = {(t[0].y0, t[0].x0) for t in draws(T.FixedSizeCrop((5, 2)), img)}
    assert places == {(0, 0), (0, 1), (0, 2)}
    (transform,) = draws(T.FixedSizeCrop((3, 8)), img, 1)
    point = np.array([[1.0, 2.0]])
    there = transform.apply_coords(point.copy())
    np.testing.assert_array_equal(transform.inverse().apply_coords(there), point)
    (transform,) = draws(T.FixedSizeCrop((3, 8), pad=False), img, 1)
    assert transform.apply_image(img).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("crop_type", "crop_size", "heights", "widths"),
    [
        ("relative", (0.5, 0.25), {5}, {5}),
        ("absolute", (4, 30), {4}, {20}),
        ("absolute_range", (8, 12), {8, 9, 10}, {8, 9, 10, 11, 12}),
        ("relative_range", (0.8, 0.9), {8, 9, 10}, {18, 19, 20}),
    ],
)
def test_random_crop(crop_type, crop_size, heights, widths):
    img = image(10, 20)
    crops = draws(T.RandomCrop(crop_type, crop_size), img, 400)
    assert {c.h for c in crops} == heights and {c.w for c in crops} == widths
    assert all(c.apply_image(img).shape[:2] == (c.h, c.w) for c in crops)
    assert min(c.x0 for c in crops) == 0 and max(c.x0 + c.w for c in crops) == 20
    assert min(c.y0 for c in crops) == 0 and max(c.y0 + c.h for c in crops) == 10


def test_crop_of_the_detr_recipe_comes_from_a_config():
    node = LazyCall(T.RandomCrop)(crop_size=(384, 600), crop_type="absolute_range")
    node = OmegaConf.create(
        OmegaConf.to_container(node, resolve=False), flags={"allow_objects": True}
    )
    crops = draws(instantiate(node), image(500, 700), 50)
    assert all(384 <= c.h <= 500 and 384 <= c.w <= 600 for c in crops)
    resize = instantiate(
        LazyCall(T.ResizeShortestEdge)(
            short_edge_length=(40, 50), sample_style="choice", max_size=90
        )
    )
    assert {t.new_h for t in draws(resize, image(10, 20))} == {40, 45}  # 50 exceeds 90


def test_bad_crops():
    with pytest.raises(AssertionError, match=r"crop_type is one of .*absolute_range.*'huge'"):
        T.RandomCrop("huge", (1, 1))
    with pytest.raises(AssertionError, match="min, max"):
        T.RandomCrop("absolute_range", (5, 4)).get_transform(image(9, 9))


def test_crop_with_category_constraint():
    labels = np.zeros((20, 20), dtype=np.int64)
    labels[:, 10:] = 1
    img = image(20, 20)
    augmentation = T.RandomCrop_CategoryAreaConstraint("absolute", (8, 8), 0.75)
    crops = draws(augmentation, img, sem_seg=labels)
    shares = [c.apply_segmentation(labels).mean() for c in crops]
    plain = [
        c.apply_segmentation(labels).mean() for c in draws(T.RandomCrop("absolute", (8, 8)), img)
    ]
    allowed = [0.25 < share < 0.75 for share in shares]
    # One crop in 13 * 3/13 is allowed by chance; ten tries nearly always find one.
    assert sum(allowed) > 170 > 100 > sum(0.25 < share < 0.75 for share in plain)
    ignoring = T.RandomCrop_CategoryAreaConstraint("absolute", (8, 8), 0.75, ignored_category=1)
    assert not ignoring._allowed(labels)  # only one category counts
    unlimited = T.RandomCrop_CategoryAreaConstraint("absolute", (8, 8))
    assert draws(unlimited, img, 1, sem_seg=labels)[0].h == 8


def test_rotation():
    img = image(10, 20)
    angles = [t.angle for t in draws(T.RandomRotation([-30, 60]), img)]
    assert -30 <= min(angles) < -20 and 50 < max(angles) <= 60
    fixed = draws(T.RandomRotation([90, 180], sample_style="choice"), img)
    assert {t.angle for t in fixed} == {90, 180}
    assert {t.angle for t in draws(T.RandomRotation(45), img, 3)} == {45}
    assert isinstance(draws(T.RandomRotation(360), img, 1)[0], T.NoOpTransform)
    centers = np.array(
        [t.center for t in draws(T.RandomRotation(10, center=[[0.25, 0.5], [0.75, 1]]), img)]
    )
    assert (centers >= (5, 5)).all() and (centers <= (15, 10)).all() and np.ptp(centers[:, 0]) > 8
    chosen = draws(T.RandomRotation(10, center=[[0, 0], [1, 1]], sample_style="choice"), img)
    assert {t.center for t in chosen} == {(0, 0), (20, 10)}
    with pytest.raises(AssertionError, match="angle has to be two values"):
        T.RandomRotation([1, 2, 3])


def test_extent():
    img = image(10, 20)
    transforms = draws(T.RandomExtent((0.5, 1.5), (0.2, 0)), img)
    for t in transforms:
        x0, y0, x1, y1 = t.src_rect
        assert 10 <= x1 - x0 <= 30 and t.output_size == (int(y1 - y0), int(x1 - x0))
        assert abs((x0 + x1) / 2 - 10) <= 0.1 * 20 + 1e-9
        assert (y0 + y1) / 2 == pytest.approx(5)


def test_min_iou_crop():
    img = image(40, 60)
    boxes = np.array([[5, 5, 20, 20], [30, 10, 55, 35]], dtype=np.float64)
    crops = [t for t in draws(T.MinIoURandomCrop((0.3,)), img, 300, boxes=boxes)]
    assert any(isinstance(t, T.NoOpTransform) for t in crops)
    crops = [t for t in crops if isinstance(t, T.CropTransform)]
    assert len(crops) > 50
    for crop in crops:
        assert crop.w >= 0.3 * 60 - 1 and crop.h >= 0.3 * 40 - 1
        assert crop.x0 >= 0 and crop.x0 + crop.w <= 60 and crop.y0 + crop.h <= 40
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2 - (crop.x0, crop.y0)
        assert ((centers > 0) & (centers < (crop.w, crop.h))).all(axis=1).any()
    assert isinstance(T.MinIoURandomCrop().get_transform(img, None), T.NoOpTransform)
    # Too elongated for a window of aspect ratio 1/2 to 2; must end all the same.
    draws(T.MinIoURandomCrop(), image(10, 200), 5, boxes=np.array([[5.0, 2, 190, 8]]))


def test_min_iou_window():
    window = (0, 0, 10, 10)
    half, inside, away = [0, 0, 10, 5], [4, 4, 6, 6], [50, 50, 60, 60]
    # IoU of the window: 1/2 with the first, 1/25 with the second, none with the third.
    for boxes, below, above in (([half, away], 0.49, 0.51), ([half, inside], 0.03, 0.05)):
        assert _window_qualifies(window, np.array(boxes, dtype=float), below)
        assert not _window_qualifies(window, np.array(boxes, dtype=float), above)
    assert not _window_qualifies(window, np.array([[8.0, 8, 30, 30]]), 0)  # center is outside


def test_contrast_brightness_saturation():
    img = image(6, 7)
    for augmentation, other in (
        (T.RandomContrast(0.5, 1.5), img.mean()),
        (T.RandomBrightness(0.5, 1.5), 0.0),
        (T.RandomSaturation(0.5, 1.5), img.dot([0.299, 0.587, 0.114])[:, :, None]),
    ):
        (transform,) = draws(augmentation, img, 1)
        np.random.seed(0)
        w = np.random.uniform(0.5, 1.5)
        expected = np.clip((1 - w) * other + w * img.astype(np.float64), 0, 255).astype(np.uint8)
        # float32 inside: differs by one where the value is next to an integer
        assert np.abs(transform.apply_image(img).astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(transform.apply_coords(np.ones((1, 2))), [[1, 1]])


def test_lighting_shifts_all_pixels_alike():
    img = image(6, 7, dtype=np.float32)
    (transform,) = draws(T.RandomLighting(10.0), img, 1)
    shift = transform.apply_image(img) - img
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-4)
    assert np.abs(shift[0, 0]).max() > 0.01
    assert all((t.src_image == 0).all() for t in draws(T.RandomLighting(0.0), img, 3))


@pytest.mark.parametrize("augmentation", [T.RandomSaturation(0, 1), T.RandomLighting(1)])
def test_color_needs_three_channels(augmentation):
    with pytest.raises(AssertionError, match="only works on RGB"):
        augmentation.get_transform(image(3, 4, channels=1))


ALL = [
    T.RandomFlip(),
    T.Resize((9, 7)),
    T.ResizeShortestEdge((8, 20)),
    T.ResizeScale(0.1, 2.0, 16, 16),
    T.RandomResize([(5, 6), (7, 8)]),
    T.FixedSizeCrop((12, 12)),
    T.RandomCrop("absolute_range", (3, 9)),
    T.RandomCrop_CategoryAreaConstraint("relative", (0.5, 0.5), 0.9),
    T.RandomApply(T.RandomCrop("relative", (0.5, 0.5))),
    T.RandomRotation([-30, 30]),
    T.RandomRotation([-30, 30], expand=False),
    T.RandomExtent((0.5, 1.5), (0.3, 0.3)),
    T.MinIoURandomCrop(),
    T.RandomBrightness(0.5, 1.5),
    T.RandomContrast(0.5, 1.5),
    T.RandomSaturation(0.5, 1.5),
    T.RandomLighting(0.1),
]


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: str(a)[:40])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_contract(augmentation, dtype):
    """Image, labels and boxes stay together; numpy's generator alone decides."""
    results = []
    for _ in range(2):
        np.random.seed(3)
        sem_seg = np.arange(10 * 14).reshape(10, 14) % 5
        inputs = T.AugInput(
            image(10, 14, dtype=dtype),
            boxes=np.array([[2.0, 3.0, 9.0, 8.0], [1.0, 1.0, 13.0, 9.0]]),
            sem_seg=sem_seg,
        )
        transform = inputs.apply_augmentations([augmentation])
        assert inputs.image.shape[:2] == inputs.sem_seg.shape
        assert inputs.image.dtype == dtype or (
            # fvcore blends in double precision
            dtype == np.float32 and isinstance(transform[0], T.BlendTransform)
        )
        assert inputs.sem_seg.dtype == sem_seg.dtype and inputs.boxes.shape == (2, 4)
        assert set(np.unique(inputs.sem_seg)) <= {0, 1, 2, 3, 4, 255}
        results.append(inputs)
    np.testing.assert_array_equal(results[0].image, results[1].image)
    np.testing.assert_array_equal(results[0].boxes, results[1].boxes)
