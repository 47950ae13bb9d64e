"""Place masks of boxes on an image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from detectron2.structures.boxes import Boxes
from torch import Tensor

__all__ = ["paste_masks_in_image"]


def paste_masks_in_image(
    masks: Tensor,
    boxes: Boxes | Tensor,
    image_shape: tuple[int, int],
    threshold: float = 0.5,
) -> Tensor:
    """Stretch each mask to its box, on an otherwise empty image.

    Args:
        masks: (N, M, M), probabilities or booleans.
        boxes: N boxes as XYXY in pixels.
        image_shape: (height, width) of the image.
        threshold: pixels with at least this value are true. If negative, the values are
            returned, as integers up to 255.

    Returns:
        (N, height, width), boolean (uint8 for a negative threshold).
    """
    if masks.dim() != 3 or masks.shape[-1] != masks.shape[-2]:
        raise AssertionError(f"Masks to paste have the shape (N, M, M), not {tuple(masks.shape)}.")
    corners = boxes.tensor if isinstance(boxes, Boxes) else boxes
    if len(corners) != len(masks):
        raise AssertionError(f"There are {len(masks)} masks, but {len(corners)} boxes.")
    dtype = torch.bool if threshold >= 0 else torch.uint8
    image = torch.zeros(len(masks), *image_shape, dtype=dtype, device=masks.device)
    for i, box in enumerate(corners.tolist()):
        rows, columns, values = _stretch(masks[i].float(), box, image_shape)
        image[i, rows, columns] = values >= threshold if threshold >= 0 else (values * 255).byte()
    return image


def _stretch(
    mask: Tensor, box: list[float], image_shape: tuple[int, int]
) -> tuple[slice, slice, Tensor]:
    """The rows and columns of the image that a mask (M, M) reaches, and its values there."""
    rows, y = _positions(box[1], box[3], image_shape[0], mask.shape[0])
    columns, x = _positions(box[0], box[2], image_shape[1], mask.shape[1])
    if not (len(y) and len(x)):
        return rows, columns, mask.new_zeros(len(y), len(x))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(mask.device)
    values = F.grid_sample(mask[None, None], grid[None], align_corners=False)
    return rows, columns, values[0, 0]


def _positions(low: float, high: float, size: int, cells: int) -> tuple[slice, Tensor]:
    """The pixels that [low, high] reaches, and where their centers lie in it, from -1 to 1."""
    # Interpolation reaches half a mask cell beyond the box.
    margin = (high - low) / (2 * cells)
    first = min(max(math.floor(low - margin), 0), size)
    last = max(min(math.ceil(high + margin), size), first)
    centers = torch.arange(first, last, dtype=torch.float32) + 0.5
    return slice(first, last), (centers - low) / max(high - low, 1e-6) * 2 - 1


def pad_masks(masks: Tensor, padding: int) -> tuple[Tensor, float]:
    """Masks (N, M, M) with a border of zeros, and the factor by which that enlarges them."""
    padded = F.pad(masks, [padding] * 4)
    return padded, padded.shape[-1] / masks.shape[-1]


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """XYXY boxes (N, 4), ``scale`` times as large around the same centers."""
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([center - half * scale, center + half * scale], dim=1)


def paste_mask_in_image_old(
    mask: Tensor, box: Tensor, img_h: int, img_w: int, threshold: float
) -> Tensor:
    """Stretch one mask to the whole pixels that its box touches.

    Half a pixel off, as boxes of the first detectron were; ``paste_masks_in_image`` is not.

    Args:
        mask: (M, M), from 0 to 1.
        box: (4,) as XYXY in pixels.
        img_h: height of the image.
        img_w: width of the image.
        threshold: pixels above it are 1. If negative, the values are returned, up to 255.

    Returns:
        uint8 tensor (img_h, img_w).
    """
    x0, y0, x1, y1 = (int(side) for side in box.tolist())
    size = (max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1))
    stretched = F.interpolate(mask[None, None].float(), size, mode="bilinear")[0, 0]
    values = stretched > threshold if threshold >= 0 else stretched * 255
    image = torch.zeros(img_h, img_w, dtype=torch.uint8, device=mask.device)
    rows = slice(max(y0, 0), max(min(y1 + 1, img_h), y0, 0))
    columns = slice(max(x0, 0), max(min(x1 + 1, img_w), x0, 0))
    part = values[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
    image[rows, columns] = part.to(torch.uint8)
    return image
