"""Points, and SSD's change of colors."""

import numpy as np
import pytest
import torch
from detectron2.projects.point_rend import ColorAugSSDTransform, point_sample
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample_fine_grained_features,
    sample_point_labels,
)
from detectron2.structures import BitMasks, Boxes, Instances
from torch.testing import assert_close


def ramp(height, width):
    """A map (1, 2, height, width) whose values are the centers of its pixels, x and y."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None]


def test_values_at_points():
    points = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]])
    expected = (points * torch.tensor([10.0, 8])).transpose(1, 2)
    assert_close(point_sample(ramp(8, 10), points, align_corners=False), expected)
    grid = points[:, None].expand(1, 2, 3, 2)
    assert_close(
        point_sample(ramp(8, 10), grid, align_corners=False),
        expected[:, :, None].expand(1, 2, 2, 3),
    )


def test_grid_and_its_uncertain_cells():
    grid = generate_regular_grid_point_coords(2, 2, torch.device("cpu"))
    expected = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    assert_close(grid, expected.expand(2, 4, 2))
    cells, points = get_uncertain_point_coords_on_grid(
        torch.tensor([[[[0.0, 3, 1], [2, 0, 0.5]]]]), 2
    )
    assert cells.tolist() == [[1, 3]]
    assert_close(points, torch.tensor([[[0.5, 0.25], [1 / 6, 0.75]]]))
    assert get_uncertain_point_coords_on_grid(torch.zeros(1, 1, 2, 2), 9)[1].shape == (1, 4, 2)


def test_uncertain_points_lie_where_the_sign_changes():
    torch.manual_seed(0)
    logits = (ramp(16, 16)[:, :1] - 8).repeat(2, 1, 1, 1)
    logits[1] += 4
    points = get_uncertain_point_coords_with_randomness(
        logits, lambda values: -values.abs(), 100, 5.0, 0.75
    )
    assert points.shape == (2, 100, 2) and points.min() >= 0 and points.max() <= 1
    for found, edge in zip(points[:, :75, 0], (0.5, 0.25), strict=True):
        assert (found - edge).abs().max() < 0.12
    assert (points[:, 75:, 0] - 0.5).abs().max() > 0.4
    with pytest.raises(AssertionError, match="oversample_ratio"):
        get_uncertain_point_coords_with_randomness(logits, lambda v: v, 10, 0.5, 0.5)


def test_fine_grained_features():
    maps = [torch.cat([ramp(8, 8), ramp(8, 8) + 100]), torch.cat([ramp(4, 4), ramp(4, 4) + 100])]
    boxes = [Boxes([[2, 2, 6, 6]]), Boxes([[0, 0, 4, 8], [4, 4, 8, 8]])]
    points = torch.full((3, 2, 2), 0.5)
    features, pixels = point_sample_fine_grained_features(maps, [1.0, 0.5], boxes, points)
    centers = torch.tensor([[4.0, 4], [2, 4], [6, 6]])
    assert_close(pixels, centers[:, None].expand(3, 2, 2))
    offset = torch.tensor([0.0, 100, 100])[:, None]
    expected = torch.cat([centers + offset, centers / 2 + offset], dim=1)
    assert_close(features, expected[..., None].expand(3, 4, 2))


def test_labels_of_points():
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 4:] = 1
    objects = Instances((8, 8), proposal_boxes=Boxes([[2, 2, 6, 6]]), gt_masks=BitMasks(mask))
    points = torch.tensor([[[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]]])
    assert_close(sample_point_labels([objects], points), torch.tensor([[0.0, 0.5, 1.0]]))


def test_colors_change_and_nothing_else():
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    before = image.copy()
    rgb, bgr = ColorAugSSDTransform("RGB"), ColorAugSSDTransform("BGR")
    changed = 0
    for seed in range(10):
        np.random.seed(seed)
        first = rgb.apply_image(image)
        np.random.seed(seed)
        second = bgr.apply_image(image[..., ::-1])
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, second[..., ::-1])
        changed += not np.array_equal(first, image)
    assert changed >= 7
    np.testing.assert_array_equal(image, before)
    labels = np.arange(6)[None]
    assert rgb.apply_segmentation(labels) is labels and rgb.apply_coords(labels) is labels
    assert rgb.inverse().apply_coords(labels) is labels
    with pytest.raises(AssertionError, match="BGR or RGB"):
        ColorAugSSDTransform("L")


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        ("_change_brightness", {"brightness_delta": 0}, [200, 100, 0]),
        ("_change_contrast", {"contrast_low": 1.5, "contrast_high": 1.5}, [255, 150, 0]),
        ("_change_saturation", {"saturation_low": 0, "saturation_high": 0}, [200, 200, 200]),
        ("_change_saturation", {"saturation_low": 0.5, "saturation_high": 0.5}, [200, 150, 100]),
        ("_change_hue", {"hue_delta": 0}, [200, 100, 0]),
    ],
)
def test_one_change(change, options, expected):
    image = np.full((2, 2, 3), [200, 100, 0], dtype=np.uint8)
    result = getattr(ColorAugSSDTransform("RGB", **options), change)(image)
    np.testing.assert_allclose(result.astype(int), np.broadcast_to(expected, (2, 2, 3)), atol=2)


def test_hue_turns(monkeypatch):
    monkeypatch.setattr(np.random, "uniform", lambda low, high: high)
    red = np.full((1, 1, 3), [255, 0, 0], dtype=np.uint8)
    green = ColorAugSSDTransform("RGB", hue_delta=60)._change_hue(red)
    np.testing.assert_allclose(green.astype(int), [[[0, 255, 0]]], atol=4)
