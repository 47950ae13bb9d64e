"""Boxes and how they overlap."""

import math
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "BoxMode",
    "Boxes",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
]

RawBox = Any  # list, tuple, numpy array or tensor of 4 or 5 numbers, or of N such rows


@unique
class BoxMode(IntEnum):
    """How a box is written down; an integer, so that it can be stored as json."""

    XYXY_ABS = 0
    """(x0, y0, x1, y1) in pixels."""
    XYWH_ABS = 1
    """(x0, y0, width, height) in pixels."""
    XYXY_REL = 2
    """(x0, y0, x1, y1) relative to the image; cannot be converted."""
    XYWH_REL = 3
    """(x0, y0, width, height) relative to the image; cannot be converted."""
    XYWHA_ABS = 4
    """(center x, center y, width, height, counter-clockwise angle in degrees), in pixels."""

    @staticmethod
    def convert(box: RawBox, from_mode: int, to_mode: int) -> RawBox:
        """Write boxes in another mode.

        Args:
            box: list or tuple of 4 or 5 numbers, or array or tensor (N, 4) or (N, 5).
            from_mode: the ``BoxMode`` of ``box``.
            to_mode: the wanted ``BoxMode``.

        Returns:
            The converted boxes, of the type of ``box``; a new object unless the modes agree.
            Rotated boxes become the smallest upright box around them.
        """
        source, wanted = BoxMode(from_mode), BoxMode(to_mode)
        if source == wanted:
            return box
        relative = (BoxMode.XYXY_REL, BoxMode.XYWH_REL)
        if source in relative or wanted in relative:
            raise AssertionError("Relative boxes cannot be converted: the image size is unknown.")
        if isinstance(box, list | tuple):
            size = 5 if source == BoxMode.XYWHA_ABS else 4
            if len(box) != size:
                raise AssertionError(
                    f"A {source.name} box has {size} numbers, but {box!r} has {len(box)}."
                )
            # By way of numpy: Python's floats stay float64 and its integers integers.
            return type(box)(_convert(torch.tensor(np.array(box)), source, wanted).tolist())
        if isinstance(box, np.ndarray):
            return _convert(torch.tensor(box), source, wanted).numpy()
        return _convert(box, source, wanted)


def _convert(box: Tensor, source: BoxMode, wanted: BoxMode) -> Tensor:
    """Convert a tensor (..., 4 or 5); it is not modified."""
    pair = (source, wanted)
    if pair == (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):
        return torch.cat([box[..., :2], box[..., :2] + box[..., 2:]], dim=-1)
    if pair == (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        return torch.cat([box[..., :2], box[..., 2:] - box[..., :2]], dim=-1)
    if pair == (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS):
        return _upright(box)
    if pair == (BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS):
        return _convert(_upright(box), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    if pair == (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS):
        size = box[..., 2:]
        center = (box[..., :2] + size / 2).to(box.dtype)
        return torch.cat([center, size, torch.zeros_like(size[..., :1])], dim=-1)
    raise NotImplementedError(f"Boxes cannot be converted from {source.name} to {wanted.name}.")


def _upright(box: Tensor) -> Tensor:
    """Smallest XYXY boxes (..., 4) around rotated ones (..., 5)."""
    if box.shape[-1] != 5:
        raise ValueError(f"XYWHA_ABS boxes have 5 numbers, not {box.shape[-1]}.")
    exact = box.double()
    center, size, angle = exact[..., :2], exact[..., 2:4], exact[..., 4:] * (math.pi / 180)
    cos, sin = angle.cos().abs(), angle.sin().abs()
    width, height = size[..., :1], size[..., 1:]
    half = torch.cat([cos * width + sin * height, sin * width + cos * height], dim=-1) / 2
    return torch.cat([center - half, center + half], dim=-1).to(box.dtype)


class Boxes:
    """N boxes (x0, y0, x1, y1) in pixels. TorchScript can compile it.

    Attributes:
        tensor: (N, 4), float32, or float64 if that was given.

    Args:
        tensor: tensor (N, 4), or nested sequence or array that gives one. Anything empty
            gives no boxes.
    """

    # Without annotations TorchScript takes arguments for tensors, and anything else may come in
    # Python.
    def __init__(self, tensor) -> None:
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor(np.asarray(tensor), dtype=torch.float32)
        if tensor.dtype != torch.float64:
            # Half precision holds neither all pixels nor the areas of images.
            tensor = tensor.to(torch.float32)
        if tensor.numel() == 0:
            # Keeps device, dtype and graph.
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[-1] != 4:
            raise AssertionError(f"Boxes have the shape (N, 4), not {list(tensor.shape)}.")
        self.tensor = tensor

    def clone(self) -> "Boxes":
        """A copy with a tensor of its own."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device, non_blocking: bool = False) -> "Boxes":
        """The boxes on another device, or in float64."""
        return Boxes(self.tensor.to(device, non_blocking=non_blocking))

    def area(self) -> Tensor:
        """Areas (N,) in square pixels."""
        box = self.tensor
        return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])

    def clip(self, box_size: tuple[int, int]) -> None:
        """Limit the coordinates, in place, to an image of ``box_size`` = (height, width)."""
        if not torch.isfinite(self.tensor).all():
            raise AssertionError("Box tensor contains infinite or NaN! It cannot be clipped.")
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(dim=1)
        x0, x1 = x0.clamp(min=0, max=width), x1.clamp(min=0, max=width)
        y0, y1 = y0.clamp(min=0, max=height), y1.clamp(min=0, max=height)
        self.tensor = torch.stack((x0, y0, x1, y1), dim=-1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Mask (N,) of the boxes whose width and height both exceed ``threshold``."""
        size = self.tensor[:, 2:] - self.tensor[:, :2]
        return (size > threshold).all(dim=1)

    def __getitem__(self, item) -> "Boxes":
        """Boxes by integer (one box), slice, mask or indices; they may share storage."""
        box = self.tensor[item]
        if box.dim() == 1 and not isinstance(item, Tensor):
            box = box[None]
        if box.dim() != 2:
            raise AssertionError(f"Indexing Boxes with {item} gives no (N, 4) tensor.")
        return Boxes(box)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Mask (N,) of the boxes inside an image of (height, width), give or take a margin."""
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(dim=1)
        low, margin = -boundary_threshold, boundary_threshold
        return (x0 >= low) & (y0 >= low) & (x1 < width + margin) & (y1 < height + margin)

    def get_centers(self) -> Tensor:
        """Centers (N, 2) as (x, y)."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply x and y coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: list["Boxes"]) -> "Boxes":
        """All boxes of several ``Boxes`` as one; no boxes if there are none."""
        if not isinstance(boxes_list, (list, tuple)):
            raise AssertionError("Boxes.cat() takes a list or tuple of Boxes.")
        if not all([isinstance(box, Boxes) for box in boxes_list]):
            raise AssertionError("Boxes.cat() takes Boxes and nothing else.")
        if len(boxes_list) == 0:
            return cls(torch.empty(0))
        return cls(torch.cat([box.tensor for box in boxes_list], dim=0))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @torch.jit.unused
    def __iter__(self):
        """One tensor (4,) per box."""
        yield from self.tensor


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Areas (N, M) that each of N boxes shares with each of M boxes."""
    a, b = boxes1.tensor, boxes2.tensor
    low = torch.max(a[:, None, :2], b[:, :2])
    high = torch.min(a[:, None, 2:], b[:, 2:])
    return (high - low).clamp(min=0).prod(dim=2)


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union (N, M); 0 where the boxes do not meet."""
    inter = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - inter
    return torch.where(inter > 0, inter / union, inter.new_zeros(()))


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over the area of the second box (N, M); 0 where the boxes do not meet."""
    inter = pairwise_intersection(boxes1, boxes2)
    return torch.where(inter > 0, inter / boxes2.area(), inter.new_zeros(()))


def pairwise_point_box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    """Distances (N, M, 4) of N points (x, y) to left, top, right, bottom of M boxes.

    Negative where the point lies outside.
    """
    x, y = points.unsqueeze(dim=2).unbind(dim=1)
    x0, y0, x1, y1 = boxes.tensor.unsqueeze(dim=0).unbind(dim=2)
    return torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=2)


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union (N,) of the i-th box of one with the i-th of the other."""
    if len(boxes1) != len(boxes2):
        raise AssertionError(
            f"matched_pairwise_iou() takes equally many boxes, not {len(boxes1)} and {len(boxes2)}."
        )
    a, b = boxes1.tensor, boxes2.tensor
    low, high = torch.max(a[:, :2], b[:, :2]), torch.min(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(dim=1)
    return inter / (boxes1.area() + boxes2.area() - inter)
