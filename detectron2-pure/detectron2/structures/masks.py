"""Instance masks: as bitmaps, as polygons, and as bitmaps of regions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures.boxes import Boxes
from torch import Tensor
from torchvision.ops import roi_align

__all__ = ["BitMasks", "PolygonMasks", "ROIMasks", "polygon_area", "polygons_to_bitmask"]


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area of the polygon with the corners (x[i], y[i]), by the shoelace formula."""
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterize one object.

    Args:
        polygons: its parts, each [x0, y0, x1, y1, ...] in pixels.
        height: of the bitmap.
        width: of the bitmap.

    Returns:
        Boolean array (height, width).
    """
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    codes = mask_util.frPyObjects(
        [np.asarray(p, dtype=np.float64) for p in polygons], height, width
    )
    return mask_util.decode(mask_util.merge(codes)).astype(bool)


def rasterize_polygons_within_box(
    polygons: list[np.ndarray], box: np.ndarray, mask_size: int
) -> Tensor:
    """Boolean tensor (mask_size, mask_size) of the part of an object inside ``box``.

    Args:
        polygons: as of ``polygons_to_bitmask``.
        box: (4,) as XYXY in pixels; it is stretched to the size of the result.
        mask_size: side of the result.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    scale_x, scale_y = mask_size / max(width, 0.1), mask_size / max(height, 0.1)
    moved = []
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64)
        points[0::2] = (points[0::2] - box[0]) * scale_x
        points[1::2] = (points[1::2] - box[1]) * scale_y
        moved.append(points)
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))


class BitMasks:
    """N masks as bitmaps.

    Attributes:
        tensor: (N, H, W), boolean.
        image_size: (H, W).
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.dim() != 3:
            raise AssertionError(f"BitMasks have the shape (N, H, W), not {tuple(tensor.shape)}.")
        self.image_size: tuple[int, int] = (tensor.shape[1], tensor.shape[2])
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """The masks on another device, as of ``Tensor.to``."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        """Masks by integer (one mask), slice, mask or indices; they may share storage."""
        if isinstance(item, int | np.integer):
            return BitMasks(self.tensor[item].unsqueeze(0))
        masks = self.tensor[item]
        if masks.dim() != 3:
            raise AssertionError(f"Indexing BitMasks with {item} gives no (N, H, W) tensor.")
        return BitMasks(masks)

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor (H, W) per mask."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def nonempty(self) -> Tensor:
        """Which masks (N,) have at least one pixel."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Rasterize polygons to bitmaps of (height, width)."""
        polygons = (
            polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        )
        masks = [polygons_to_bitmask(p, height, width) for p in polygons]
        stacked = np.stack(masks) if masks else np.empty((0, height, width), dtype=bool)
        return BitMasks(torch.from_numpy(stacked))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Crop the i-th mask to the i-th box and resize it.

        Args:
            boxes: (N, 4) as XYXY in pixels.
            mask_size: side of the result.

        Returns:
            Boolean tensor (N, mask_size, mask_size).
        """
        if len(boxes) != len(self):
            raise AssertionError(f"There are {len(self)} masks, but {len(boxes)} boxes.")
        number = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
        rois = torch.cat([number[:, None], boxes], dim=1)
        masks = self.tensor.to(device=boxes.device, dtype=torch.float32)[:, None]
        if masks.numel() == 0:
            return masks.new_zeros((len(boxes), mask_size, mask_size), dtype=torch.bool)
        cropped = roi_align(masks, rois.float(), (mask_size, mask_size), 1.0, 0, True)
        return cropped.squeeze(1) >= 0.5

    def get_bounding_boxes(self) -> Boxes:
        """The smallest boxes around the masks; (0, 0, 0, 0) around an empty one.

        A box ends one pixel after the last column and row of its mask.
        """
        columns, rows = self.tensor.any(dim=1), self.tensor.any(dim=2)
        x0, x1 = _extent(columns)
        y0, y1 = _extent(rows)
        return Boxes(torch.stack([x0, y0, x1, y1], dim=1).to(torch.float32))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """All masks of several ``BitMasks`` of equal image size as one."""
        if not bitmasks_list or not all(isinstance(b, BitMasks) for b in bitmasks_list):
            raise AssertionError("BitMasks.cat() takes at least one BitMasks, and nothing else.")
        return BitMasks(torch.cat([b.tensor for b in bitmasks_list], dim=0))


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true position (N,) of each row of (N, L); 0, 0 if none."""
    length = occupied.shape[1]
    if length == 0:
        nothing = torch.zeros(len(occupied), dtype=torch.int64, device=occupied.device)
        return nothing, nothing
    flags = occupied.to(torch.int64)
    some = occupied.any(dim=1)
    first = flags.argmax(dim=1)
    last = length - flags.flip(1).argmax(dim=1)
    return first, last * some


class PolygonMasks:
    """N masks as polygons.

    Attributes:
        polygons: for each object its parts, each a float64 array [x0, y0, x1, y1, ...].

    Args:
        polygons: N lists of parts; a part is an array, list or tensor of at least 6 numbers.
    """

    def __init__(self, polygons: list[list[Any]]) -> None:
        if not isinstance(polygons, list):
            raise ValueError(
                f"PolygonMasks takes a list of lists of polygons, not a {type(polygons).__name__}."
            )
        self.polygons = [_as_parts(parts) for parts in polygons]

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """The masks themselves: polygons live in CPU memory."""
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """The smallest boxes around the objects; (0, 0, 0, 0) around one without parts."""
        boxes = torch.zeros(len(self), 4)
        for i, parts in enumerate(self.polygons):
            if parts:
                points = np.concatenate(parts).reshape(-1, 2)
                extent = np.concatenate([points.min(axis=0), points.max(axis=0)])
                boxes[i] = torch.from_numpy(extent)
        return Boxes(boxes)

    def nonempty(self) -> Tensor:
        """Which objects (N,) have at least one part."""
        return torch.tensor([len(parts) > 0 for parts in self.polygons], dtype=torch.bool)

    def __getitem__(self, item: int | slice | list[int] | Tensor | np.ndarray) -> PolygonMasks:
        """Masks by integer (one mask), slice, list of indices, mask or index tensor."""
        if isinstance(item, int | np.integer):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        indices = torch.as_tensor(item)
        if indices.dtype == torch.bool:
            if indices.shape != (len(self),):
                raise IndexError(
                    f"A mask of shape {tuple(indices.shape)} for {len(self)} polygons."
                )
            indices = indices.nonzero().flatten()
        return PolygonMasks([self.polygons[i] for i in indices.tolist()])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The list of parts of each object."""
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    def __len__(self) -> int:
        return len(self.polygons)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Rasterize the part of the i-th object inside the i-th box.

        Args:
            boxes: (N, 4) as XYXY in pixels.
            mask_size: side of the result.

        Returns:
            Boolean tensor (N, mask_size, mask_size), on the device of ``boxes``.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"There are {len(self)} masks, but {len(boxes)} boxes.")
        masks = [
            rasterize_polygons_within_box(parts, box, mask_size)
            for parts, box in zip(self.polygons, boxes.detach().cpu().numpy(), strict=True)
        ]
        if not masks:
            return torch.empty(0, mask_size, mask_size, dtype=torch.bool, device=boxes.device)
        return torch.stack(masks).to(boxes.device)

    def area(self) -> Tensor:
        """Areas (N,) in square pixels; overlapping parts count twice."""
        areas = [sum(polygon_area(p[0::2], p[1::2]) for p in parts) for parts in self.polygons]
        return torch.tensor(areas)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """All masks of several ``PolygonMasks`` as one."""
        if not polymasks_list or not all(isinstance(p, PolygonMasks) for p in polymasks_list):
            raise AssertionError("PolygonMasks.cat() takes at least one PolygonMasks.")
        return PolygonMasks(list(itertools.chain.from_iterable(p.polygons for p in polymasks_list)))


def _as_parts(parts: Any) -> list[np.ndarray]:
    if not isinstance(parts, list):
        raise ValueError(f"The polygons of an object are a list, not a {type(parts).__name__}.")
    return [_as_polygon(part) for part in parts]


def _as_polygon(part: Any) -> np.ndarray:
    points = part.cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)
    points = points.astype(np.float64)
    if points.ndim != 1 or points.size % 2 or points.size < 6:
        raise ValueError(
            f"A polygon is [x0, y0, x1, y1, ...] with at least 3 points, not {part!r}."
        )
    return points


class ROIMasks:
    """N masks as bitmaps of regions, of one size whatever the size of the region.

    Attributes:
        tensor: (N, M, M), probabilities or booleans.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dim() != 3:
            raise ValueError(f"ROIMasks have the shape (N, M, M), not {tuple(tensor.shape)}.")
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> ROIMasks:
        """The masks on another device, or of another dtype, as of ``Tensor.to``."""
        return ROIMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item: int | slice | Tensor) -> ROIMasks:
        """Masks by integer (one mask), slice, mask or indices."""
        if isinstance(item, int | np.integer):
            return ROIMasks(self.tensor[item].unsqueeze(0))
        masks = self.tensor[item]
        if masks.dim() != 3:
            raise ValueError(f"Indexing ROIMasks with {item} gives no (N, M, M) tensor.")
        return ROIMasks(masks)

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)})"

    def to_bitmasks(
        self, boxes: Boxes | Tensor, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Place the i-th mask in the i-th box of an image of (height, width).

        Pixels of at least ``threshold`` belong to the mask.
        """
        # At the top this would be a circle: mask_ops takes Boxes.
        from detectron2.layers.mask_ops import paste_masks_in_image

        return BitMasks(
            paste_masks_in_image(self.tensor, boxes, (height, width), threshold=threshold)
        )
