"""The augmentations that move pixels, and `RandomApply`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image

from .augmentation import AugInput, Augmentation, _transform_to_aug
from .augmentation_color import (
    RandomBrightness,
    RandomContrast,
    RandomLighting,
    RandomSaturation,
)
from .transform import CropTransform, ExtentTransform, ResizeTransform, RotationTransform

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


def _crop(image_size: tuple[int, int], x0: int, y0: int, w: int, h: int) -> CropTransform:
    """A crop that knows the size before, so that it has an inverse."""
    return CropTransform(x0, y0, w, h, orig_w=image_size[1], orig_h=image_size[0])


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
        self._init(locals())

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
        return ResizeTransform(*image.shape[:2], self.shape[0], self.shape[1], self.interp)


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

    def get_transform(self, image: np.ndarray) -> Transform:
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
        return (int(newh + 0.5), int(neww + 0.5))


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
        h, w = self.shape_list[np.random.choice(len(self.shape_list))]
        return ResizeTransform(*image.shape[:2], h, w, self.interp)


class ResizeScale(Augmentation):
    """Resize to fit into a randomly scaled target, keeping the aspect ratio.

    With `FixedSizeCrop` this is large-scale jittering (Ghiasi et al., Simple Copy-Paste, 2021).

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
        self._init(locals())

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
        self._init(locals())

    def _draw(self, values: Sequence) -> np.ndarray:
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


class FixedSizeCrop(Augmentation):
    """Bring to a fixed size: crop what is larger at a random place, pad what is smaller.

    Padding goes to the right and the bottom.

    Args:
        crop_size: (h, w).
        pad: whether to pad; otherwise smaller images stay smaller.
        pad_value: of image pixels.
        seg_pad_value: of segmentation labels.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__()
        crop_size = tuple(crop_size)
        self._init(locals())

    def _get_crop(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        new_h, new_w = min(h, self.crop_size[0]), min(w, self.crop_size[1])
        y0 = int(np.round((h - new_h) * np.random.uniform()))
        x0 = int(np.round((w - new_w) * np.random.uniform()))
        return _crop((h, w), x0, y0, new_w, new_h)

    def _get_pad(self, image: np.ndarray) -> Transform:
        h, w = (min(a, b) for a, b in zip(image.shape[:2], self.crop_size, strict=True))
        below, right = self.crop_size[0] - h, self.crop_size[1] - w
        return PadTransform(0, 0, right, below, w, h, self.pad_value, self.seg_pad_value)

    def get_transform(self, image: np.ndarray) -> TransformList:
        transforms = [self._get_crop(image)]
        if self.pad:
            transforms.append(self._get_pad(image))
        return TransformList(transforms)


class RandomCrop(Augmentation):
    """Cut out a rectangle at a random place.

    Args:
        crop_type: what ``crop_size`` means.

            - "relative": (h, w) as fractions of the image in (0, 1];
            - "relative_range": each side drawn between that fraction and 1;
            - "absolute": (h, w) in pixels, or the whole side where the image is smaller;
            - "absolute_range": (min, max) in pixels, drawn for height and for width.
        crop_size: two numbers.

    Raises:
        ValueError: unknown ``crop_type``.
    """

    _CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        super().__init__()
        if crop_type not in self._CROP_TYPES:
            raise ValueError(f"crop_type is one of {self._CROP_TYPES}, not {crop_type!r}.")
        crop_size = tuple(crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((h, w))
        assert h >= crop_h and w >= crop_w, f"{self} does not fit an image of {h} x {w}."
        y0 = int(np.random.randint(h - crop_h + 1))
        x0 = int(np.random.randint(w - crop_w + 1))
        return _crop((h, w), x0, y0, crop_w, crop_h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw (h, w) of the window for an image of size (h, w)."""
        h, w = image_size
        a, b = self.crop_size
        if self.crop_type == "relative":
            return int(h * a + 0.5), int(w * b + 0.5)
        if self.crop_type == "relative_range":
            low = np.asarray((a, b), dtype=np.float32)
            a, b = low + np.random.rand(2) * (1 - low)
            return int(h * a + 0.5), int(w * b + 0.5)
        if self.crop_type == "absolute":
            return min(a, h), min(b, w)
        assert a <= b, f"crop_size is (min, max) for absolute_range, not {self.crop_size}."
        crop_h = int(np.random.randint(min(h, a), min(h, b) + 1))
        crop_w = int(np.random.randint(min(w, a), min(w, b) + 1))
        return crop_h, crop_w


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """A `RandomCrop` in which no category of the segmentation fills too much.

    Ten windows are tried; the last one is taken whatever it holds.

    Args:
        crop_type, crop_size: see `RandomCrop`.
        single_category_max_area: largest fraction of the labeled pixels; 1 allows everything.
        ignored_category: label of pixels that don't count.
    """

    _TRIES = 10

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def _allowed(self, labels: np.ndarray) -> bool:
        values, counts = np.unique(labels, return_counts=True)
        if self.ignored_category is not None:
            counts = counts[values != self.ignored_category]
        return len(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        for _ in range(self._TRIES):
            crop = self.crop_aug.get_transform(image)
            if self._allowed(crop.apply_segmentation(sem_seg)):
                break
        return crop


class RandomExtent(Augmentation):
    """Cut out a randomly scaled and shifted rectangle, which may reach outside.

    Args:
        scale_range: (min, max) of the rectangle's size as a factor of the image's.
        shift_range: (x, y); the rectangle moves by up to half of this fraction of the image
            to either side.
    """

    def __init__(self, scale_range: Sequence[float], shift_range: Sequence[float]) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        rect = np.array([-0.5 * w, -0.5 * h, 0.5 * w, 0.5 * h])
        rect *= np.random.uniform(self.scale_range[0], self.scale_range[1])
        rect[0::2] += self.shift_range[0] * w * (np.random.rand() - 0.5) + 0.5 * w
        rect[1::2] += self.shift_range[1] * h * (np.random.rand() - 0.5) + 0.5 * h
        x0, y0, x1, y1 = rect.tolist()
        return ExtentTransform((x0, y0, x1, y1), output_size=(int(y1 - y0), int(x1 - x0)))


class MinIoURandomCrop(Augmentation):
    """Crop so that the objects inside overlap the window enough (Liu et al., SSD, 2016).

    A window qualifies when all boxes that it touches have at least the drawn IoU with it, and
    some box has its center inside.

    Args:
        min_ious: thresholds to choose from; "the whole image" and 0 are choices too.
        min_crop_size: smallest side of the window, as a fraction of the image's.
        mode_trials: how often to draw a threshold.
        crop_trials: how often to draw a window for one threshold.
    """

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        mode_trials: int = 1000,
        crop_trials: int = 50,
    ) -> None:
        self._init(locals())
        self.sample_mode = (1, *min_ious, 0)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> Transform:
        """Boxes are (N, 4), absolute xyxy, or None (which crops nothing)."""
        if boxes is None:
            return NoOpTransform()
        h, w = image.shape[:2]
        for _ in range(self.mode_trials):
            min_iou = self.sample_mode[np.random.choice(len(self.sample_mode))]
            if min_iou == 1:
                break
            for _ in range(self.crop_trials):
                window = self._draw_window(h, w)
                if _window_qualifies(window, np.asarray(boxes).reshape(-1, 4), min_iou):
                    x0, y0, x1, y1 = window
                    return _crop((h, w), x0, y0, x1 - x0, y1 - y0)
        return NoOpTransform()

    def _draw_window(self, h: int, w: int) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) inside the image, with an aspect ratio between 1/2 and 2."""
        while True:
            new_w = np.random.uniform(self.min_crop_size * w, w)
            new_h = np.random.uniform(self.min_crop_size * h, h)
            if 0.5 <= new_h / new_w <= 2:
                break
            if max(h, w) * self.min_crop_size > 2 * min(h, w):
                break  # the image itself is too elongated for any such window
        x0, y0 = np.random.uniform(w - new_w), np.random.uniform(h - new_h)
        x1, y1 = x0 + max(new_w, 1), y0 + max(new_h, 1)
        return int(x0), int(y0), int(x1), int(y1)


def _window_qualifies(window: tuple[int, int, int, int], boxes: np.ndarray, min_iou: float) -> bool:
    corners = np.asarray(window, dtype=np.float64)
    sides = np.clip(
        np.minimum(boxes[:, 2:], corners[2:]) - np.maximum(boxes[:, :2], corners[:2]), 0, None
    )
    inter = sides.prod(axis=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = inter / np.maximum((corners[2:] - corners[:2]).prod() + area - inter, 1e-9)
    if (iou[inter > 0] < min_iou).any():
        return False
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return bool(((centers > corners[:2]) & (centers < corners[2:])).all(axis=1).any())
