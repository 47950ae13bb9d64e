from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T

from detrex.data.transforms import ColorAugSSDTransform
from detrex.data.transforms.color_augmentation import ColorAugSSDTransform as by_its_module

NOTHING = {
    "brightness_delta": 0,
    "contrast_low": 1,
    "contrast_high": 1,
    "saturation_low": 1,
    "saturation_high": 1,
    "hue_delta": 0,
}


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


def images(number=64, **kwargs):
    """What many draws make of a picture of medium grays."""
    change = ColorAugSSDTransform(img_format="RGB", **{**NOTHING, **kwargs})
    pixels = np.repeat(np.arange(64, 128, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
    return pixels, np.stack([change.apply_image(pixels) for _ in range(number)])


def test_it_is_a_transform():
    assert by_its_module is ColorAugSSDTransform and issubclass(ColorAugSSDTransform, T.Transform)
    with pytest.raises(AssertionError):
        ColorAugSSDTransform(img_format="HSV")


def test_coordinates_and_labels_stay():
    change = ColorAugSSDTransform(img_format="RGB")
    points = np.array([[1.5, 2], [3, 4]])
    np.testing.assert_array_equal(change.apply_coords(points.copy()), points)
    np.testing.assert_array_equal(change.apply_box(np.array([[1.0, 2, 3, 4]])), [[1, 2, 3, 4]])
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(change.apply_segmentation(labels), labels)


def test_brightness_is_added():
    pixels, changed = images(brightness_delta=20)
    # Half of the draws change nothing; steps between the grays stay what they are.
    shift = changed.astype(int) - pixels
    assert np.abs(shift).max() <= 20 and np.abs(shift).max() > 10
    assert (shift == shift[:, :1, :1, :1]).all()
    assert 16 <= (shift == 0).all(axis=(1, 2, 3)).sum() <= 48


def test_contrast_is_a_factor():
    pixels, changed = images(contrast_low=0.5, contrast_high=1.5)
    factor = (changed / pixels).mean(axis=(1, 2, 3))
    assert 0.49 < factor.min() < 0.65 and 1.35 < factor.max() < 1.51
    spread = (changed / pixels).max(axis=(1, 2, 3)) - (changed / pixels).min(axis=(1, 2, 3))
    assert spread.max() < 1 / 64 + 1e-6  # whole numbers, of 64 at least


def test_grays_have_neither_hue_nor_saturation():
    pixels, changed = images(saturation_low=0.5, saturation_high=1.5, hue_delta=18)
    assert (changed == pixels).all()


@pytest.mark.parametrize("img_format", ["RGB", "BGR"])
def test_channel_order(img_format):
    """A little hue turns red into yellow or purple, never into green or blue."""
    change = ColorAugSSDTransform(img_format=img_format, **{**NOTHING, "hue_delta": 18})
    red = np.zeros((2, 2, 3), dtype=np.uint8)
    red[..., img_format.index("R")] = 200
    seen = np.stack([change.apply_image(red) for _ in range(32)]).max(axis=(0, 1, 2))
    seen = dict(zip(img_format, seen.tolist(), strict=True))
    assert seen["R"] == 200 and 0 < seen["G"] < 150 and 0 < seen["B"] < 150


def test_images_keep_their_kind():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    before = pixels.copy()
    changed = ColorAugSSDTransform(img_format="BGR").apply_image(pixels)
    assert changed.dtype == np.uint8 and changed.shape == pixels.shape
    np.testing.assert_array_equal(pixels, before)
