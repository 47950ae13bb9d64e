"""Values of maps at points, and points where a prediction is uncertain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

__all__ = [
    "generate_regular_grid_point_coords",
    "get_point_coords_wrt_image",
    "get_uncertain_point_coords_on_grid",
    "get_uncertain_point_coords_with_randomness",
    "point_sample",
    "point_sample_fine_grained_features",
    "sample_point_labels",
]


def point_sample(input: Tensor, point_coords: Tensor, **kwargs: Any) -> Tensor:
    """Values of maps at points between their pixels.

    Args:
        input: maps (N, C, H, W).
        point_coords: (N, P, 2) or (N, H', W', 2) as (x, y), from 0 to 1 over the map.
        kwargs: of ``torch.nn.functional.grid_sample``.

    Returns:
        (N, C, P) or (N, C, H', W').
    """
    points = point_coords if point_coords.dim() == 4 else point_coords[:, :, None]
    values = F.grid_sample(input, 2 * points - 1, **kwargs)
    return values if point_coords.dim() == 4 else values[..., 0]


def generate_regular_grid_point_coords(R: int, side_size: int, device: torch.device) -> Tensor:
    """The centers (R, side_size**2, 2) of a grid of cells over the unit square, row by row."""
    centers = (torch.arange(side_size, device=device) + 0.5) / side_size
    grid = torch.stack(torch.meshgrid(centers, centers, indexing="xy"), dim=-1)
    return grid.reshape(1, -1, 2).expand(R, -1, -1)


@torch.no_grad()
def get_uncertain_point_coords_with_randomness(
    coarse_logits: Tensor,
    uncertainty_func: Callable[[Tensor], Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> Tensor:
    """Draw points where a prediction is uncertain, and some anywhere.

    Args:
        coarse_logits: maps (N, C, H, W) or (N, 1, H, W).
        uncertainty_func: from values (N, C, P) to uncertainties (N, 1, P).
        num_points: P, how many points to draw.
        oversample_ratio: uncertain points are chosen among this times as many random ones.
        importance_sample_ratio: share of the uncertain points among the result.

    Returns:
        (N, P, 2) as (x, y), from 0 to 1 over the map.
    """
    if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
        raise AssertionError(
            f"oversample_ratio is at least 1, not {oversample_ratio}, and importance_sample_ratio "
            f"from 0 to 1, not {importance_sample_ratio}."
        )
    n, device = coarse_logits.shape[0], coarse_logits.device
    candidates = torch.rand(n, int(num_points * oversample_ratio), 2, device=device)
    # Of values, not of uncertainties: between two confident pixels of different signs there is an
    # uncertain point, but interpolated uncertainties would not show it.
    values = point_sample(coarse_logits, candidates, align_corners=False)
    num_uncertain = int(importance_sample_ratio * num_points)
    chosen = uncertainty_func(values)[:, 0].topk(num_uncertain, dim=1).indices
    uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(n, num_points - num_uncertain, 2, device=device)
    return torch.cat([uncertain, anywhere], dim=1)


def get_uncertain_point_coords_on_grid(
    uncertainty_map: Tensor, num_points: int
) -> tuple[Tensor, Tensor]:
    """The most uncertain cells of maps (N, 1, H, W).

    Returns:
        Their numbers (N, P), row by row, and their centers (N, P, 2) from 0 to 1; P is
        ``num_points``, or all cells if there are fewer.
    """
    n, _, height, width = uncertainty_map.shape
    flat = uncertainty_map.reshape(n, height * width)
    cells = flat.topk(min(height * width, num_points), dim=1).indices
    row, column = cells.div(width, rounding_mode="floor"), cells % width
    centers = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=-1)
    return cells, centers.to(torch.float32)


def point_sample_fine_grained_features(
    features_list: Sequence[Tensor],
    feature_scales: Sequence[float],
    boxes: Sequence[Boxes],
    point_coords: Tensor,
) -> tuple[Tensor, Tensor]:
    """Features at points given relative to boxes.

    Args:
        features_list: maps (B, C_i, H_i, W_i) of the same B images.
        feature_scales: pixels of each map per pixel of the image.
        boxes: per image its boxes, N in all.
        point_coords: (N, P, 2), from 0 to 1 over each box.

    Returns:
        Features (N, sum of C_i, P), and the points (N, P, 2) in pixels of the image.
    """
    corners = torch.cat([b.tensor for b in boxes])
    points = get_point_coords_wrt_image(corners, point_coords)
    per_image = points.split([len(b) for b in boxes])
    features = []
    for maps, scale in zip(features_list, feature_scales, strict=True):
        size = points.new_tensor([maps.shape[-1], maps.shape[-2]]) / scale
        sampled = [
            point_sample(maps[i : i + 1], (p / size)[None], align_corners=False)[0].transpose(0, 1)
            for i, p in enumerate(per_image)
        ]
        features.append(torch.cat(sampled))
    return torch.cat(features, dim=1), points


def get_point_coords_wrt_image(boxes_coords: Tensor, point_coords: Tensor) -> Tensor:
    """From points (N, P, 2), 0 to 1 over boxes (N, 4), to pixels of the image."""
    with torch.no_grad():
        low, size = boxes_coords[:, None, :2], (boxes_coords[:, 2:] - boxes_coords[:, :2])[:, None]
        return point_coords * size + low


def sample_point_labels(instances: Sequence[Instances], point_coords: Tensor) -> Tensor:
    """How much of each point belongs to its object's mask, (N, P) from 0 to 1.

    Args:
        instances: per image, with ``proposal_boxes`` and ``gt_masks`` (``BitMasks``); N in all.
        point_coords: (N, P, 2), from 0 to 1 over each box.
    """
    with torch.no_grad():
        labels = []
        for objects, points in zip(
            instances, point_coords.split([len(i) for i in instances]), strict=True
        ):
            masks = objects.gt_masks.tensor.to(torch.float32)
            pixels = get_point_coords_wrt_image(objects.proposal_boxes.tensor, points)
            size = pixels.new_tensor([masks.shape[-1], masks.shape[-2]])
            labels.append(point_sample(masks[:, None], pixels / size, align_corners=False)[:, 0])
        return torch.cat(labels)
