"""Augmentations that change colors only."""

from __future__ import annotations

import numpy as np
from detectron2.data.transforms.augmentation import Augmentation
from fvcore.transforms.transform import BlendTransform, Transform

__all__ = ["RandomBrightness", "RandomContrast", "RandomLighting", "RandomSaturation"]

# Weights of red, green and blue in luma (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)

# Principal components of ImageNet's RGB values in [0, 1] (Krizhevsky et al., 2012).
_PCA_VECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_PCA_VALUES = np.array([0.2175, 0.0188, 0.0045])


class _RandomBlend(Augmentation):
    """Blend with some other image: weight 1 keeps, below 1 moves towards it, above 1 away.

    Args:
        intensity_min, intensity_max: range of the weight of the input.
    """

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self.intensity_min = intensity_min
        self.intensity_max = intensity_max

    def _other(self, image: np.ndarray) -> np.ndarray | float:
        raise NotImplementedError

    def get_transform(self, image: np.ndarray) -> Transform:
        w = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=self._other(image), src_weight=1 - w, dst_weight=w)


class RandomContrast(_RandomBlend):
    """Blend with the mean gray value."""

    def _other(self, image: np.ndarray) -> float:
        return float(image.mean())


class RandomBrightness(_RandomBlend):
    """Blend with black."""

    def _other(self, image: np.ndarray) -> float:
        return 0.0


class RandomSaturation(_RandomBlend):
    """Blend with the gray image; the input is (H, W, 3) RGB.

    Raises:
        AssertionError: the image has not three channels.
    """

    def _other(self, image: np.ndarray) -> np.ndarray:
        assert image.shape[-1] == 3, (
            f"RandomSaturation only works on RGB images, not on shape {image.shape}."
        )
        return image.dot(_LUMA)[:, :, np.newaxis]


class RandomLighting(Augmentation):
    """Shift all colors along the principal components of ImageNet's (AlexNet, 2012).

    The input is (H, W, 3) RGB. The shift is in the units of the image.

    Args:
        scale: standard deviation of the weight of each component.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def get_transform(self, image: np.ndarray) -> Transform:
        assert image.shape[-1] == 3, (
            f"RandomLighting only works on RGB images, not on shape {image.shape}."
        )
        weights = np.random.normal(scale=self.scale, size=3)
        shift = _PCA_VECTORS.dot(weights * _PCA_VALUES)
        return BlendTransform(src_image=shift, src_weight=1.0, dst_weight=1.0)
