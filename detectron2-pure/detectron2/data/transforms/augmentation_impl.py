"""All augmentations; here those that resize, flip, rotate or stretch, and ``RandomApply``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms.augmentation import AugInput, Augmentation, _transform_to_aug
from detectron2.data.transforms.augmentation_color import (
    RandomBrightness,
    RandomContrast,
    RandomLighting,
    RandomSaturation,
)
from detectron2.data.transforms.augmentation_crop import (
    FixedSizeCrop,
    MinIoURandomCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
)
from detectron2.data.transforms.transform import ExtentTransform, ResizeTransform, RotationTransform
from fvcore.transforms.transform import (
    HFlipTransform,
    NoOpTransform,
    Transform,
    VFlipTransform,
)
from PIL import Image

__all__ = [
    "FixedSizeCrop",
    "MinIoURandomCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomExtent",
    "RandomFlip",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]

BILINEAR = Image.Resampling.BILINEAR


class RandomApply(Augmentation):
    """Apply another augmentation, or do nothing.

    Args:
        tfm_or_aug: what to apply.
        prob: how often, in [0, 1].

    Raises:
        AssertionError: ``prob`` is no probability.
    """

    def __init__(self, tfm_or_aug: Augmentation | Transform, prob: float = 0.5) -> None:
        super().__init__()
        assert 0.0 <= prob <= 1.0, f"Probability must be between 0.0 and 1.0 (given: {prob})"
        self.tfm_or_aug = self.aug = _transform_to_aug(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args: object) -> Transform:
        do = self._rand_range() < self.prob
        return self.aug.get_transform(*args) if do else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        do = self._rand_range() < self.prob
        return self.aug(aug_input) if do else NoOpTransform()


class RandomFlip(Augmentation):
    """Mirror with some probability, along one axis.

    Args:
        prob: how often.
        horizontal: left and right change places.
        vertical: top and bottom do.

    Raises:
        ValueError: not exactly one of ``horizontal`` and ``vertical``.
    """

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        super().__init__()
        if horizontal and vertical:
            raise ValueError(
                "Cannot do both horiz and vert. Please use two Flip instead: "
                "RandomFlip(horizontal=True), RandomFlip(horizontal=False, vertical=True)."
            )
        if not horizontal and not vertical:
            raise ValueError("At least one of horiz or vert has to be True!")
        self.prob = prob
        self.horizontal = horizontal
        self.vertical = vertical

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(w) if self.horizontal else VFlipTransform(h)


class Resize(Augmentation):
    """Resize to a fixed size, whatever the aspect ratio.

    Args:
        shape: (h, w), or one number for both.
        interp: a PIL filter.
    """

    def __init__(self, shape: int | Sequence[int], interp: int = BILINEAR) -> None:
        super().__init__()
        self.shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        return ResizeTransform(h, w, self.shape[0], self.shape[1], self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the short edge has a random length and the long edge fits.

    Args:
        short_edge_length: with ``sample_style="range"`` (min, max), both included; with
            "choice" the lengths to choose from. One number is a fixed length. A drawn length
            of 0 leaves the image as it is.
        max_size: the longest allowed long edge; the image is made smaller to respect it.
        sample_style: "range" or "choice".
        interp: a PIL filter.

    Raises:
        AssertionError: unknown ``sample_style``, or a range that is not two numbers.
    """

    # Left out when torch.jit.script compiles a caller of get_output_shape().
    @torch.jit.unused
    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = BILINEAR,
    ) -> None:
        super().__init__()
        assert sample_style in ("range", "choice"), (
            f"sample_style is 'range' or 'choice', not {sample_style!r}."
        )
        self.is_range = sample_style == "range"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if self.is_range:
            assert len(short_edge_length) == 2, (
                "short_edge_length must be two values using 'range' sample style. "
                f"Got {short_edge_length}!"
            )
        self.short_edge_length = tuple(short_edge_length)  # configs bring omegaconf lists
        self.max_size = max_size
        self.sample_style = sample_style
        self.interp = interp

    @torch.jit.unused
    def get_transform(self, image):  # no types: the compiler would go into them
        h, w = image.shape[:2]
        if self.is_range:
            low, high = self.short_edge_length
            size = int(np.random.randint(low, high + 1))
        else:
            size = int(np.random.choice(self.short_edge_length))
        if size == 0:
            return NoOpTransform()
        new_h, new_w = ResizeShortestEdge.get_output_shape(h, w, size, self.max_size)
        return ResizeTransform(h, w, new_h, new_w, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(h, w) after resizing an image of ``oldh`` x ``oldw``; can be scripted."""
        size = short_edge_length * 1.0
        scale = size / min(oldh, oldw)
        if oldh < oldw:
            newh, neww = size, scale * oldw
        else:
            newh, neww = scale * oldh, size
        longest = max(newh, neww)
        if longest > max_size:
            shrink = max_size * 1.0 / longest
            newh = newh * shrink
            neww = neww * shrink
        return (max(int(newh + 0.5), 1), max(int(neww + 0.5), 1))


class RandomResize(Augmentation):
    """Resize to one of several sizes.

    Args:
        shape_list: (h, w) pairs to choose from.
        interp: a PIL filter.
    """

    def __init__(self, shape_list: Sequence[Sequence[int]], interp: int = BILINEAR) -> None:
        super().__init__()
        self.shape_list = [tuple(shape) for shape in shape_list]
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        new_h, new_w = self.shape_list[np.random.choice(len(self.shape_list))]
        return ResizeTransform(h, w, new_h, new_w, self.interp)


class ResizeScale(Augmentation):
    """Resize to fit into a randomly scaled target, keeping the aspect ratio.

    With ``FixedSizeCrop`` this is large-scale jittering (Ghiasi et al., Simple Copy-Paste, 2021).

    Args:
        min_scale, max_scale: range of the factor.
        target_height, target_width: the size at factor 1.
        interp: a PIL filter.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = BILINEAR,
    ) -> None:
        super().__init__()
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.target_height = target_height
        self.target_width = target_width
        self.interp = interp

    def _get_resize(self, image: np.ndarray, scale: float) -> Transform:
        """The resize for a factor; subclasses call it with factors of their own."""
        h, w = image.shape[:2]
        ratio = min(scale * self.target_height / h, scale * self.target_width / w)
        new_h, new_w = (max(1, int(np.round(side * ratio))) for side in (h, w))
        return ResizeTransform(h, w, new_h, new_w, self.interp)

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._get_resize(image, np.random.uniform(self.min_scale, self.max_scale))


class RandomRotation(Augmentation):
    """Rotate counter-clockwise by a random angle around a random center.

    Args:
        angle: with ``sample_style="range"`` (min, max) in degrees, with "choice" the angles to
            choose from. One number is a fixed angle.
        expand: enlarge the canvas so that nothing is cut off; centers have no effect then.
        center: with "range" ((min_x, min_y), (max_x, max_y)), with "choice" the (x, y) to
            choose from, all as fractions of the width and height; the middle by default.
        sample_style: "range" or "choice".
        interp: 0 nearest, 1 bilinear (the default).

    Raises:
        AssertionError: unknown ``sample_style``, or a range that is not two values.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[Sequence[float]] | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        super().__init__()
        assert sample_style in ("range", "choice"), (
            f"sample_style is 'range' or 'choice', not {sample_style!r}."
        )
        self.is_range = sample_style == "range"
        if isinstance(angle, (float, int)):
            angle = (angle, angle)
        if center is not None and isinstance(center[0], (float, int)):
            center = (center, center)  # type: ignore[assignment]
        for name, value in (("angle", angle), ("center", center)):
            assert not self.is_range or value is None or len(value) == 2, (
                f"{name} has to be two values with sample_style='range', got {value}."
            )
        self.angle = angle
        self.expand = expand
        self.center = center
        self.sample_style = sample_style
        self.interp = interp

    def _draw(self, values: Any) -> np.ndarray:
        """A point between the two values (per coordinate), or one of them."""
        if self.is_range:
            return np.random.uniform(values[0], values[1])
        return np.asarray(values[np.random.choice(len(values))])

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        angle = float(self._draw(self.angle))
        center = None
        if self.center is not None:
            x, y = self._draw(np.asarray(self.center, dtype=np.float64))
            center = (float(w * x), float(h * y))
        if angle % 360 == 0:
            return NoOpTransform()
        return RotationTransform(h, w, angle, expand=self.expand, center=center, interp=self.interp)


class RandomExtent(Augmentation):
    """Cut out a randomly scaled and shifted rectangle, which may reach outside.

    Args:
        scale_range: (min, max) of the rectangle's size as a factor of the image's.
        shift_range: (x, y); the rectangle moves by up to half of this fraction of the image
            to either side.
    """

    def __init__(self, scale_range: Sequence[float], shift_range: Sequence[float]) -> None:
        super().__init__()
        self.scale_range = scale_range
        self.shift_range = shift_range

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        rect = np.array([-0.5 * w, -0.5 * h, 0.5 * w, 0.5 * h])
        rect *= np.random.uniform(self.scale_range[0], self.scale_range[1])
        rect[0::2] += self.shift_range[0] * w * (np.random.rand() - 0.5) + 0.5 * w
        rect[1::2] += self.shift_range[1] * h * (np.random.rand() - 0.5) + 0.5 * h
        x0, y0, x1, y1 = rect.tolist()
        return ExtentTransform((x0, y0, x1, y1), output_size=(int(y1 - y0), int(x1 - x0)))
