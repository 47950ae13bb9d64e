"""The augmentations that crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data.transforms.augmentation import Augmentation
from detectron2.data.transforms.transform import CropTransform
from fvcore.transforms.transform import NoOpTransform, PadTransform, Transform, TransformList

__all__ = [
    "FixedSizeCrop",
    "MinIoURandomCrop",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
]


def _crop(image_size: tuple[int, int], x0: int, y0: int, w: int, h: int) -> CropTransform:
    """A crop that knows the size before, so that it has an inverse."""
    return CropTransform(x0, y0, w, h, orig_w=image_size[1], orig_h=image_size[0])


class FixedSizeCrop(Augmentation):
    """Bring to a fixed size: crop what is larger at a random place, pad what is smaller.

    Padding goes to the right and the bottom. Crops of what is larger in both directions lie on
    the diagonal.

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
        self.crop_size = tuple(crop_size)
        self.pad = pad
        self.pad_value = pad_value
        self.seg_pad_value = seg_pad_value

    def _get_crop(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        new_h, new_w = min(h, self.crop_size[0]), min(w, self.crop_size[1])
        place = np.random.uniform()  # one number for both directions, as in published recipes
        y0 = int(np.round((h - new_h) * place))
        x0 = int(np.round((w - new_w) * place))
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
        AssertionError: unknown ``crop_type``.
    """

    _CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        super().__init__()
        assert crop_type in self._CROP_TYPES, (
            f"crop_type is one of {self._CROP_TYPES}, not {crop_type!r}."
        )
        self.crop_type = crop_type
        self.crop_size = tuple(crop_size)

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
            return min(int(a), h), min(int(b), w)
        assert a <= b, f"crop_size is (min, max) for absolute_range, not {self.crop_size}."
        crop_h, crop_w = (
            int(np.random.randint(min(side, int(a)), min(side, int(b)) + 1)) for side in (h, w)
        )
        return crop_h, crop_w


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """A ``RandomCrop`` in which no category of the segmentation fills too much.

    Ten windows are tried; the last one is taken whatever it holds.

    Args:
        crop_type, crop_size: see ``RandomCrop``.
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
        self.crop_type = crop_type
        self.crop_size = tuple(crop_size)
        self.single_category_max_area = single_category_max_area
        self.ignored_category = ignored_category

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
        self.min_ious = min_ious
        self.min_crop_size = min_crop_size
        self.mode_trials = mode_trials
        self.crop_trials = crop_trials
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
