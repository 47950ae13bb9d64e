"""The change of colors by which SSD was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

__all__ = ["ColorAugSSDTransform"]


class ColorAugSSDTransform(Transform):
    """Randomly changes brightness, contrast, saturation and hue (SSD, arXiv:1512.02325).

    Each has a chance of one half, anew with each image. What is drawn comes from numpy's global
    generator.

    Args:
        img_format: "BGR" or "RGB".
        brightness_delta: up to this is added to the values, from 0 to 255.
        contrast_low: smallest factor on the values.
        contrast_high: largest factor on the values.
        saturation_low: smallest factor on the saturation.
        saturation_high: largest factor on the saturation.
        hue_delta: the hue is turned by up to this, in units of 2 degrees.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: float = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: float = 18,
    ) -> None:
        super().__init__()
        if img_format not in ("BGR", "RGB"):
            raise AssertionError(f"img_format is BGR or RGB, not {img_format!r}.")
        self.is_rgb = img_format == "RGB"
        self.brightness_delta = brightness_delta
        self.contrast = (contrast_low, contrast_high)
        self.saturation = (saturation_low, saturation_high)
        self.hue_delta = hue_delta

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Coordinates stay what they are."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Labels stay what they are."""
        return segmentation

    def inverse(self) -> Transform:
        """Nothing to undo for coordinates; colors stay changed."""
        return NoOpTransform()

    def apply_image(self, img: np.ndarray, interp: Any = None) -> np.ndarray:
        """Change an image (H, W, 3), uint8; ``interp`` is not used."""
        changes = [self._change_contrast, self._change_saturation, self._change_hue]
        if np.random.randint(2):
            # Contrast comes last.
            changes = [*changes[1:], changes[0]]
        if not self.is_rgb:
            img = img[..., ::-1]
        for change in (self._change_brightness, *changes):
            if np.random.randint(2):
                img = change(img)
        return np.ascontiguousarray(img if self.is_rgb else img[..., ::-1])

    def _change_brightness(self, img: np.ndarray) -> np.ndarray:
        delta = np.random.uniform(-self.brightness_delta, self.brightness_delta)
        return _to_uint8(img.astype(np.float32) + delta)

    def _change_contrast(self, img: np.ndarray) -> np.ndarray:
        return _to_uint8(img.astype(np.float32) * np.random.uniform(*self.contrast))

    def _change_saturation(self, img: np.ndarray) -> np.ndarray:
        hsv = _to_hsv(img)
        hsv[..., 1] = _to_uint8(hsv[..., 1] * np.random.uniform(*self.saturation))
        return _from_hsv(hsv)

    def _change_hue(self, img: np.ndarray) -> np.ndarray:
        hsv = _to_hsv(img)
        # A turn is 256 here.
        turn = np.random.uniform(-self.hue_delta, self.hue_delta) / 180 * 256
        hsv[..., 0] = np.round(hsv[..., 0] + turn).astype(np.int64) % 256
        return _from_hsv(hsv)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _to_hsv(img: np.ndarray) -> np.ndarray:
    return np.array(Image.fromarray(np.ascontiguousarray(img)).convert("HSV"))


def _from_hsv(hsv: np.ndarray) -> np.ndarray:
    height, width = hsv.shape[:2]
    return np.array(Image.frombytes("HSV", (width, height), hsv.tobytes()).convert("RGB"))
