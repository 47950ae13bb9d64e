from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from detrex.modeling.backbone import FeaturePyramid


def test_every_stride_around_that_of_the_map():
    pyramid = FeaturePyramid(32, 16, (8, 4, 16, 64, 32), out_channels=8)
    levels = pyramid(torch.randn(2, 32, 4, 8))
    sides = {name: tuple(level.shape) for name, level in levels.items()}
    assert sides == {
        "p2": (2, 8, 16, 32),
        "p3": (2, 8, 8, 16),
        "p4": (2, 8, 4, 8),
        "p5": (2, 8, 2, 4),
        "p6": (2, 8, 1, 2),
    }
    assert pyramid.strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


def test_patches_of_14_pixels_have_strides_of_their_own():
    pyramid = FeaturePyramid(32, 14, (7, 14, 28), out_channels=8)
    assert pyramid.strides == {"p3": 7, "p4": 14, "p5": 28}


def test_the_scale_of_the_map_does_not_matter():
    pyramid = FeaturePyramid(32, 16, (8, 16, 32), out_channels=8)
    x = torch.randn(1, 32, 4, 4)
    for a, b in zip(pyramid(x).values(), pyramid(100 * x + 7).values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_level_of_the_maps_own_stride_is_two_convolutions():
    pyramid = FeaturePyramid(32, 16, (16,), out_channels=8)
    x = torch.randn(1, 32, 4, 4)
    first, _, second, _ = pyramid.levels["p4"]

    def normalize(y):  # over channels, at each place; a fresh norm has unit scale and no shift
        return F.layer_norm(y.movedim(1, -1), y.shape[1:2], eps=1e-6).movedim(-1, 1)

    expected = F.conv2d(normalize(x), first.weight)
    expected = normalize(F.conv2d(normalize(expected), second.weight, padding=1))
    torch.testing.assert_close(pyramid(x)["p4"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [2, 12, 128])
def test_a_stride_that_cannot_be_made_is_named(stride):
    with pytest.raises(ValueError, match=rf"stride {stride}; its strides are \[4, 8, 16, 32, 64\]"):
        FeaturePyramid(32, 16, (8, stride))
