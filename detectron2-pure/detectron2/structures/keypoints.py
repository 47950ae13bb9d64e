"""Keypoints, and the heatmaps that stand for them in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Keypoints", "heatmaps_to_keypoints"]


class Keypoints:
    """N objects with K keypoints each.

    Attributes:
        tensor: (N, K, 3) as (x, y, visibility); visibility is 0 where a point is not
            labeled, 1 where it is labeled but hidden and 2 where it is visible.
    """

    def __init__(self, keypoints: Any) -> None:
        if not isinstance(keypoints, Tensor):
            keypoints = torch.as_tensor(np.asarray(keypoints), dtype=torch.float32)
        if keypoints.dim() != 3 or keypoints.shape[2] != 3:
            raise AssertionError(
                f"Keypoints have the shape (N, K, 3), not {tuple(keypoints.shape)}."
            )
        self.tensor = keypoints.to(torch.float32)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        """The keypoints on another device, as of ``Tensor.to``."""
        return Keypoints(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | Tensor) -> Keypoints:
        """Keypoints by integer (one object), slice, mask or indices."""
        if isinstance(item, int | np.integer):
            return Keypoints(self.tensor[item][None])
        return Keypoints(self.tensor[item])

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)})"

    def to_heatmap(self, boxes: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
        """Where each keypoint lies in a grid of ``heatmap_size`` squared cells over its box.

        Args:
            boxes: (N, 4) as XYXY in pixels.
            heatmap_size: cells per side.

        Returns:
            Numbers (N, K) of the cells, row by row, and a mask (N, K) of the points that are
            labeled and inside their box; the others have cell 0.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"There are {len(self)} objects, but {len(boxes)} boxes.")
        low, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
        points = self.tensor[..., :2]
        cells = ((points - low) * (heatmap_size / size)).floor().long()
        # The right and bottom edges of a box belong to its last cells.
        cells = torch.where(points == boxes[:, None, 2:], heatmap_size - 1, cells)
        inside = ((cells >= 0) & (cells < heatmap_size)).all(dim=2)
        valid = inside & (self.tensor[..., 2] > 0)
        return (cells[..., 1] * heatmap_size + cells[..., 0]) * valid, valid

    @staticmethod
    def cat(keypoints_list: Sequence[Keypoints]) -> Keypoints:
        """The objects of several ``Keypoints`` as one."""
        if not keypoints_list or not all(isinstance(k, Keypoints) for k in keypoints_list):
            raise AssertionError("Keypoints.cat() takes at least one Keypoints, and nothing else.")
        return Keypoints(torch.cat([k.tensor for k in keypoints_list], dim=0))


@torch.no_grad()
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """The most likely place of each keypoint.

    Args:
        maps: scores (N, K, M, M) over the boxes.
        rois: (N, 4) boxes as XYXY in pixels.

    Returns:
        (N, K, 4) as (x, y, score, probability); the score is that of the box-sized map and
        the probability is taken over it.
    """
    n, k = maps.shape[:2]
    result = maps.new_zeros(n, k, 4)
    sizes = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    for i, (width, height) in enumerate(sizes.ceil().long().tolist()):
        scores = F.interpolate(
            maps[i : i + 1], size=(height, width), mode="bicubic", align_corners=False
        )[0]
        best = scores.flatten(1).argmax(dim=1)
        column, row = best % width, best.div(width, rounding_mode="floor")
        # Cells are numbered by their corner; the keypoint is taken to lie in the middle.
        cell = sizes[i] / sizes.new_tensor([width, height])
        result[i, :, 0] = (column + 0.5) * cell[0] + rois[i, 0]
        result[i, :, 1] = (row + 0.5) * cell[1] + rois[i, 1]
        result[i, :, 2] = scores.flatten(1).gather(1, best[:, None])[:, 0]
        result[i, :, 3] = scores.flatten(1).softmax(dim=1).gather(1, best[:, None])[:, 0]
    return result
