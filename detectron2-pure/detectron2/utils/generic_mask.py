"""One mask in whatever form it comes."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pycocotools.mask as mask_util
from contourpy import FillType, contour_generator


class GenericMask:
    """A mask given as bitmap, polygons or COCO's run lengths, available as any of them.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
    """

    def __init__(self, mask_or_polygons: Any, height: int, width: int) -> None:
        """
        Args:
            mask_or_polygons: an array (height, width), a list of flat polygons [x0, y0, x1, ...],
                or a dict in one of COCO's RLE formats.
            height: of the image.
            width: of the image.
        """
        self.height = height
        self.width = width
        self._mask: np.ndarray | None = None
        self._regions: list[list[np.ndarray]] | None = None
        if isinstance(mask_or_polygons, dict):
            self._mask = _decode(mask_or_polygons, height, width)
        elif isinstance(mask_or_polygons, list):
            polygons = [np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in mask_or_polygons]
            self._regions = [[polygon] for polygon in polygons]
        elif isinstance(mask_or_polygons, np.ndarray):
            self._mask = mask_or_polygons.astype(np.uint8)
        else:
            raise ValueError(
                f"A mask must be an array, a list of polygons or an RLE dict, not a "
                f"{type(mask_or_polygons).__name__}."
            )
        if self._mask is not None and self._mask.shape != (height, width):
            raise ValueError(
                f"The mask has shape {self._mask.shape}, the image has {(height, width)}."
            )

    @property
    def mask(self) -> np.ndarray:
        """The bitmap, uint8 (height, width)."""
        if self._mask is None:
            self._mask = self.polygons_to_mask(self.polygons)
        return self._mask

    @property
    def regions(self) -> list[list[np.ndarray]]:
        """Outlines: for each connected part the outer ring, then its holes, all (N, 2) as x, y."""
        if self._regions is None:
            self._regions = _trace(self.mask)
        return self._regions

    @property
    def polygons(self) -> list[np.ndarray]:
        """The outer rings, flat: [x0, y0, x1, y1, ...]."""
        return [rings[0].reshape(-1) for rings in self.regions]

    @property
    def has_holes(self) -> bool:
        """Whether some part has a hole; False for masks that came as polygons."""
        return any(len(rings) > 1 for rings in self.regions)

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """Flat outer rings of a bitmap, and whether it has holes."""
        regions = _trace(mask)
        return [rings[0].reshape(-1) for rings in regions], any(len(r) > 1 for r in regions)

    def polygons_to_mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        """Bitmap of flat polygons, uint8 (height, width)."""
        # pycocotools takes a polygon of two points for a box
        usable = [p for p in polygons if len(p) >= 6]
        if not usable:
            return np.zeros((self.height, self.width), dtype=np.uint8)
        rles = mask_util.frPyObjects(usable, self.height, self.width)
        return mask_util.decode(mask_util.merge(rles))

    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """Box around the outlines, XYXY; zeros for an empty mask."""
        if not self.regions:
            return np.zeros(4)
        points = np.concatenate([rings[0] for rings in self.regions])
        return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _decode(rle: dict[str, Any], height: int, width: int) -> np.ndarray:
    if isinstance(rle["counts"], list):
        rle = mask_util.frPyObjects(rle, height, width)
    return mask_util.decode([rle])[:, :, 0]


def _trace(mask: np.ndarray) -> list[list[np.ndarray]]:
    """Outlines of a bitmap along the edges of its pixels, see :attr:`GenericMask.regions`."""
    height, width = mask.shape
    padded = np.pad(mask.astype(bool), 1).astype(np.float64)
    # sample i of the padded mask is the center of pixel i - 1, which lies at i - 0.5
    xs, ys = np.arange(width + 2) - 0.5, np.arange(height + 2) - 0.5
    generator = contour_generator(xs, ys, padded, fill_type=FillType.OuterOffset)
    # with this fill type a pair: points of all rings of a part, and where each ring starts
    outlines, offsets = cast("tuple[list[Any], list[Any]]", generator.filled(0.5, 2.0))
    return [
        [points[a:b] for a, b in itertools.pairwise(offset)]
        for points, offset in zip(outlines, offsets, strict=True)
    ]
