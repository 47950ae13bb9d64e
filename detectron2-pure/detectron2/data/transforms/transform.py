"""Deterministic transforms beyond fvcore's basic ones, without OpenCV.

Coordinates are continuous: an image of H x W pixels spans [0, W] x [0, H], and the center of
the top-left pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data.transforms.clip_polygons import clip_polygons
from fvcore.transforms.transform import CropTransform as _FvcoreCropTransform
from fvcore.transforms.transform import (
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,  # noqa: F401  (projects import it here)
)
from PIL import Image

__all__ = [
    "ColorTransform",
    "CropTransform",
    "ExtentTransform",
    "PILColorTransform",
    "ResizeTransform",
    "RotationTransform",
]

_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def _per_channel(img: np.ndarray, function: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Run a PIL function on an array of any channel count; the dtype stays.

    uint8 images with 3 or 4 channels go through as a whole; everything else channel by channel,
    as 32-bit floats unless uint8.
    """
    if img.dtype == np.uint8 and (img.ndim == 2 or img.shape[2] in (3, 4)):
        return np.asarray(function(Image.fromarray(np.ascontiguousarray(img))))
    if img.ndim == 3:
        channels = [_per_channel(img[:, :, c], function) for c in range(img.shape[2])]
        return np.stack(channels, axis=2)
    result = np.asarray(function(Image.fromarray(img.astype(np.float32))))
    if np.issubdtype(img.dtype, np.integer):
        result = np.rint(result)
    return result.astype(img.dtype)


class CropTransform(_FvcoreCropTransform):
    """fvcore's crop, whose polygons need no further package.

    Args:
        x0, y0, w, h: crop ``image[y0:y0+h, x0:x0+w]``.
        orig_w, orig_h: size before; only the inverse needs it.
    """

    def apply_polygons(self, polygons: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Cut polygons, (P, 2) each, at the window; see ``clip_polygons``."""
        low = np.array([self.x0, self.y0], dtype=np.float64)
        return [self.apply_coords(p) for p in clip_polygons(polygons, low, low + (self.w, self.h))]


class ResizeTransform(Transform):
    """Resize an image to a given size.

    Args:
        h, w: size before.
        new_h, new_w: size after.
        interp: a PIL filter; bilinear by default. Segmentation always uses the nearest pixel.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        self.h = h
        self.w = w
        self.new_h = new_h
        self.new_w = new_w
        self.interp = Image.Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize (H, W) or (H, W, C): uint8 by PIL (antialiased), others by torch (not).

        Raises:
            AssertionError: the image does not have the size this was made for.
        """
        assert img.shape[:2] == (self.h, self.w), (
            f"ResizeTransform was made for an image of {self.h} x {self.w} pixels, "
            f"but got an array of shape {img.shape}."
        )
        assert img.ndim <= 4
        method = Image.Resampling(self.interp if interp is None else interp)
        if method == Image.Resampling.NEAREST:
            return self._nearest(img)
        if img.dtype == np.uint8 and img.ndim <= 3:
            size = (self.new_w, self.new_h)
            return _per_channel(img, lambda image: image.resize(size, method))
        return self._interpolate(img, method)

    def _nearest(self, img: np.ndarray) -> np.ndarray:
        """The pixel under the center of each new pixel, any dtype; the same as PIL's."""
        rows = ((np.arange(self.new_h) + 0.5) * (self.h / self.new_h)).astype(np.int64)
        columns = ((np.arange(self.new_w) + 0.5) * (self.w / self.new_w)).astype(np.int64)
        return img[rows[:, None], columns[None, :]]

    def _interpolate(self, img: np.ndarray, method: Image.Resampling) -> np.ndarray:
        if method not in _TORCH_MODES:
            raise ValueError(
                f"PIL's {method.name} filter is for uint8 images; use NEAREST, BILINEAR or "
                f"BICUBIC for an image of type {img.dtype}."
            )
        dtype = img.dtype if img.dtype == np.float64 else np.float32
        flat = img.reshape(self.h, self.w, -1).astype(dtype)
        chw = torch.from_numpy(np.ascontiguousarray(flat.transpose(2, 0, 1)))
        size = (self.new_h, self.new_w)
        resized = F.interpolate(chw[None], size, mode=_TORCH_MODES[method], align_corners=False)[0]
        result = resized.numpy().transpose(1, 2, 0).reshape(*size, *img.shape[2:])
        if np.issubdtype(img.dtype, np.integer):
            info = np.iinfo(img.dtype)
            result = np.rint(result).clip(info.min, info.max)
        return result.astype(img.dtype)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) xy coordinates, in place."""
        coords[:, 0] = coords[:, 0] * (self.new_w * 1.0 / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h * 1.0 / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels without mixing them."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def inverse(self) -> ResizeTransform:
        """Resize back."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class ExtentTransform(Transform):
    """Stretch a rectangle of the source image to the output size.

    The rectangle may reach outside of the image; what lies there is filled.

    Args:
        src_rect: (x0, y0, x1, y1) in the source.
        output_size: (h, w).
        interp: a PIL filter.
        fill: value outside of the source image.
    """

    def __init__(
        self,
        src_rect: Sequence[float],
        output_size: tuple[int, int],
        interp: int = Image.Resampling.BILINEAR,
        fill: int = 0,
    ) -> None:
        super().__init__()
        self.src_rect = src_rect
        self.output_size = output_size
        self.interp = interp
        self.fill = fill

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(H, W) or (H, W, C) to the output size."""
        h, w = self.output_size
        method = Image.Resampling(self.interp if interp is None else interp)

        def stretch(image: Image.Image) -> Image.Image:
            bands = len(image.getbands())
            return image.transform(
                size=(w, h),
                method=Image.Transform.EXTENT,
                data=tuple(self.src_rect),
                resample=method,
                fillcolor=self.fill if bands == 1 else (self.fill,) * bands,
            )

        return _per_channel(img, stretch)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map (N, 2) xy coordinates."""
        h, w = self.output_size
        x0, y0, x1, y1 = self.src_rect
        result = np.array(coords, dtype=np.float32)
        result[:, 0] = (result[:, 0] - x0) * (w / (x1 - x0))
        result[:, 1] = (result[:, 1] - y0) * (h / (y1 - y0))
        return result

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Stretch labels without mixing them."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)


class RotationTransform(Transform):
    """Rotate counter-clockwise around a point.

    Args:
        h, w: size of the image.
        angle: in degrees.
        expand: enlarge the canvas so that the whole rotated image fits; ``center`` has no
            effect then, because it would only shift the image.
        center: (x, y); the image's center by default.
        interp: 0 for the nearest pixel, 1 (and None) for bilinear.

    Raises:
        ValueError: another ``interp``.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ) -> None:
        super().__init__()
        if interp not in (None, 0, 1):
            raise ValueError(f"interp is 0 (nearest) or 1 (bilinear), not {interp!r}.")
        image_center = (w / 2, h / 2)
        center = image_center if center is None else center
        radians = np.deg2rad(angle)
        cos, sin = np.cos(radians), np.sin(radians)
        if expand:
            bound_w, bound_h = np.rint(
                [h * abs(sin) + w * abs(cos), h * abs(cos) + w * abs(sin)]
            ).astype(int)
            pivot, target = np.array(image_center), np.array((bound_w / 2, bound_h / 2))
        else:
            bound_w, bound_h = w, h
            pivot = target = np.array(center, dtype=np.float64)
        # y points down, so this turns counter-clockwise to the eye.
        self._rotation = np.array([[cos, sin], [-sin, cos]])
        self._pivot, self._target = pivot, target
        self.h = h
        self.w = w
        self.angle = angle
        self.expand = expand
        self.center = center
        self.interp = interp
        self.bound_w, self.bound_h = int(bound_w), int(bound_h)

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Rotate (H, W) or (H, W, C); zero outside of the image.

        Raises:
            AssertionError: the image does not have the size this was made for.
        """
        if len(img) == 0 or self.angle % 360 == 0:
            return img
        assert img.shape[:2] == (self.h, self.w), (
            f"RotationTransform was made for an image of {self.h} x {self.w} pixels, "
            f"but got an array of shape {img.shape}."
        )
        method = self.interp if interp is None else interp
        # Half the work, and 8-bit colors need no more; float64 holds all labels exactly.
        dtype = np.float32 if img.dtype == np.uint8 else np.float64
        flat = img.reshape(self.h, self.w, -1).transpose(2, 0, 1).astype(dtype, order="C")
        rotated = F.grid_sample(
            torch.from_numpy(flat)[None],
            torch.from_numpy(self._sampling_grid(dtype))[None],
            mode="nearest" if method == 0 else "bilinear",
            padding_mode="zeros",
            align_corners=False,
        )[0].numpy().transpose(1, 2, 0)  # fmt: skip
        if np.issubdtype(img.dtype, np.integer):
            rotated = np.rint(rotated)
        return rotated.reshape(self.bound_h, self.bound_w, *img.shape[2:]).astype(img.dtype)

    def _sampling_grid(self, dtype: Any) -> np.ndarray:
        """For each output pixel its source in [-1, 1] (x, y): (bound_h, bound_w, 2)."""
        x = np.arange(self.bound_w) + 0.5 - self._target[0]
        y = np.arange(self.bound_h) + 0.5 - self._target[1]
        unit = 2 / np.array((self.w, self.h))
        columns = x[:, None] * self._rotation[0] * unit
        rows = (y[:, None] * self._rotation[1] + self._pivot) * unit - 1
        return rows[:, None].astype(dtype) + columns[None].astype(dtype)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Rotate (N, 2) xy coordinates."""
        coords = np.asarray(coords, dtype=float)
        if len(coords) == 0 or self.angle % 360 == 0:
            return coords
        return (coords - self._pivot) @ self._rotation.T + self._target

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Rotate labels without mixing them."""
        return self.apply_image(segmentation, interp=0)

    def inverse(self) -> RotationTransform:
        """Rotate back to the canvas before.

        Raises:
            NotImplementedError: the canvas was not expanded, so parts were lost.
        """
        if not self.expand:
            raise NotImplementedError(
                "A RotationTransform with expand=False loses its corners and has no inverse."
            )
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, False, None, self.interp)
        # Not an expanded canvas and a crop: whole pixels would put it half a pixel off.
        back._pivot, back._target = self._target, self._pivot
        back.bound_h, back.bound_w = self.h, self.w
        return back


class ColorTransform(Transform):
    """Change colors and nothing else.

    Args:
        op: image array in, image array out, of the same height and width.

    Raises:
        ValueError: ``op`` is not callable.
    """

    def __init__(self, op: Callable[[Any], Any]) -> None:
        if not callable(op):
            raise ValueError(f"op parameter should be callable, got {op!r}.")
        super().__init__()
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``op(img)``."""
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Unchanged."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Unchanged."""
        return segmentation

    def inverse(self) -> Transform:
        """Nothing moved, so nothing to do."""
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """Like ``ColorTransform`` with an ``op`` from PIL image to PIL image."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``op`` on the image as a PIL image."""
        return np.asarray(super().apply_image(Image.fromarray(np.ascontiguousarray(img))))  # type: ignore[arg-type]


def _resize_rotated_box(transform: ResizeTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    """Scale (N, 5) boxes (x center, y center, w, h, degrees counter-clockwise).

    Unequal scales would turn a rectangle into a parallelogram; the result keeps the lengths of
    the scaled sides and the direction of the scaled height side.
    """
    sx, sy = transform.new_w / transform.w, transform.new_h / transform.h
    boxes = np.array(rotated_boxes, dtype=np.float64)
    theta = np.deg2rad(boxes[:, 4])
    cos, sin = np.cos(theta), np.sin(theta)
    boxes[:, :2] *= (sx, sy)
    boxes[:, 2] *= np.hypot(sx * cos, sy * sin)
    boxes[:, 3] *= np.hypot(sx * sin, sy * cos)
    boxes[:, 4] = np.rad2deg(np.arctan2(sx * sin, sy * cos))
    return boxes


def _hflip_rotated_box(transform: HFlipTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    """Mirror (N, 5) boxes (x center, y center, w, h, degrees counter-clockwise)."""
    boxes = np.array(rotated_boxes, dtype=np.float64)
    boxes[:, 0] = transform.width - boxes[:, 0]
    boxes[:, 4] = -boxes[:, 4]
    return boxes


HFlipTransform.register_type("rotated_box", _hflip_rotated_box)
ResizeTransform.register_type("rotated_box", _resize_rotated_box)
NoOpTransform.register_type("rotated_box", lambda transform, boxes: boxes)
