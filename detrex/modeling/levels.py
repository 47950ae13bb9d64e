"""Images on a canvas, and the feature levels that backbone and neck make of it.

Letters: ``B`` batch, ``C`` channels, ``H``, ``W`` height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Levels(NamedTuple):
    """Feature levels of a batch, finest first."""

    maps: Sequence[Tensor]
    """Per level ``(B, C, H, W)``."""
    masks: Sequence[Tensor]
    """Per level ``(B, H, W)``, True on padding."""
    pos: Sequence[Tensor] = ()
    """Per level ``(B, C, H, W)``, the position of each cell."""
    padded: bool = True
    """Whether any mask may be True anywhere; asking the masks would stop a GPU."""
    pixels: Sequence[Tensor] = ()
    """Finer maps ``(B, C, H, W)`` that don't become tokens: what masks are predicted from."""


def canvas_size(
    height: int, width: int, divisibility: int = 0, constraints: Mapping[str, int] | None = None
) -> tuple[int, int]:
    """Height and width of the canvas for images of up to this height and width.

    Args:
        divisibility: what both sides are divisible by, where it is above 1.
        constraints: ``square_size`` and ``size_divisibility``, as a detectron2 backbone's
            ``padding_constraints`` has them; where they are positive, they count.

    Raises:
        ValueError: the images are larger than the square that the backbone takes.
    """
    constraints = constraints or {}
    divisibility = constraints.get("size_divisibility", 0) or divisibility
    square = constraints.get("square_size", 0)
    if square > 0:
        if max(height, width) > square:
            raise ValueError(
                f"Images of up to {height} x {width} pixels exceed {square} x {square}, the only "
                "size that the backbone takes: resize them to fit."
            )
        height = width = square
    if divisibility > 1:
        # Not -(-side // n): of a symbolic size that is a negative number to torch.export.
        above = divisibility - 1
        height, width = ((side + above) // divisibility * divisibility for side in (height, width))
    return height, width


def pad(image: Tensor, height: int, width: int, value: float = 0.0) -> Tensor:
    """``(..., H, W)`` with padding at the right and bottom; all sizes may be symbolic."""
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), value=value)


def valid_cells(sizes: Tensor, canvas: Sequence[int], level: Sequence[int]) -> Tensor:
    """Rows and columns of a feature level that show at least a part of each image.

    Args:
        sizes: ``(B, 2)`` integers, (height, width) of each image.
        canvas, level: height and width of the canvas and of the level.

    Returns:
        ``(B, 2)`` integers.
    """
    sides = zip(sizes.unbind(-1), canvas, level, strict=True)
    return torch.stack([(side * cells + total - 1) // total for side, total, cells in sides], -1)


def any_padding(sizes: Sequence[Sequence[int]], canvas: Tensor, maps: Sequence[Tensor]) -> bool:
    """Whether any cell of any level shows no part of its image; sizes are plain numbers."""
    return any(
        -(-side * level.shape[axis] // canvas.shape[axis]) < level.shape[axis]
        for level in maps
        for size in sizes
        for axis, side in zip((-2, -1), size, strict=True)
    )


def padding_mask(valid: Tensor, level: Tensor) -> Tensor:
    """``(B, 2)`` rows and columns of image on a level ``(B, C, H, W)`` -> ``(B, H, W)``, True on
    padding."""
    height, width = level.shape[-2:]
    rows, columns = (torch.arange(side, device=level.device) for side in (height, width))
    below = rows >= valid[:, :1]  # B H
    beyond = columns >= valid[:, 1:]  # B W
    return below[:, :, None] | beyond[:, None]


def merge_levels(parts: Sequence[Levels], members: Sequence[Sequence[int]]) -> Levels:
    """Levels of several canvases as those of one batch, padded to the largest of each level.

    Those of a single canvas are copied too: gradients of the neck's biases are sums over this
    layout, and training keeps its bits.

    Args:
        parts: one of each canvas, without positions.
        members: of each canvas the places of its images in the batch.
    """
    order = torch.tensor([place for places in members for place in places]).argsort().tolist()
    join = lambda levels, value: _stack_padded(levels, value, order)  # noqa: E731
    maps = [join(level, 0.0) for level in zip(*(part.maps for part in parts), strict=True)]
    masks = [join(level, True) for level in zip(*(part.masks for part in parts), strict=True)]
    pixels = [join(level, 0.0) for level in zip(*(part.pixels for part in parts), strict=True)]
    shapes = [[m.shape[-2:] for m in levels] for levels in (maps, *(part.maps for part in parts))]
    padded = any(part.padded for part in parts) or any(shape != shapes[0] for shape in shapes)
    return Levels(maps, masks, padded=padded, pixels=pixels)


def _stack_padded(maps: Sequence[Tensor], value: float, order: list[int]) -> Tensor:
    """Maps ``(b, ..., H, W)`` of several canvases -> ``(B, ..., H, W)``, in the batch's order."""
    height, width = (max(m.shape[axis] for m in maps) for axis in (-2, -1))
    rows: list[Tensor] = []
    for m in maps:
        rows.extend(pad(m, height, width, value).unbind())
    return torch.stack([rows[i] for i in order])


def canvas_levels(backbone: Any, neck: Any, canvas: Tensor, sizes: Tensor) -> Levels:
    """Levels of normalized images on one canvas, without positions.

    Args:
        backbone: a detectron2 backbone.
        neck: as :class:`~detrex.modeling.neck.Neck`.
        canvas: ``(B, channels, H, W)``, images at the top left, zeros elsewhere.
        sizes: ``(B, 2)`` integers, (height, width) of each image.
    """
    maps = neck(backbone(canvas))
    count = getattr(neck, "num_pixel_levels", 0)
    pixels, maps = maps[:count], maps[count:]
    valid = [valid_cells(sizes, canvas.shape[-2:], level.shape[-2:]) for level in maps]
    masks = [padding_mask(cells, level) for cells, level in zip(valid, maps, strict=True)]
    return Levels(maps, masks, pixels=pixels)


def image_levels(backbone: Any, neck: Any, images: Sequence[Tensor], one_canvas: bool) -> Levels:
    """Levels of normalized images ``(channels, H, W)`` of any sizes, without positions.

    Args:
        backbone: a detectron2 backbone.
        neck: as :class:`~detrex.modeling.neck.Neck`.
        images: at least one.
        one_canvas: whether they share a canvas, as the published models were trained. Otherwise
            those of each size have their own: convolutions and norms would carry the padding into
            the image, and an image would look different with every batch that it is in.
    """
    members: dict[Any, list[int]] = {}
    for i, image in enumerate(images):
        members.setdefault("batch" if one_canvas else image.shape, []).append(i)
    parts = []
    for places in members.values():
        sizes = [(images[i].shape[-2], images[i].shape[-1]) for i in places]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        height, width = canvas_size(
            height, width, backbone.size_divisibility, backbone.padding_constraints
        )
        canvas = torch.stack([pad(images[i], height, width) for i in places])
        on_device = torch.tensor(sizes).to(canvas.device, non_blocking=True)
        levels = canvas_levels(backbone, neck, canvas, on_device)
        parts.append(levels._replace(padded=any_padding(sizes, canvas, levels.maps)))
    return merge_levels(parts, list(members.values()))


def tensor_levels(
    backbone: Any, neck: Any, images: Tensor, sizes: Tensor | None
) -> tuple[Levels, Tensor]:
    """Levels of a tensor of normalized images, without positions; all sizes may be symbolic.

    Args:
        backbone: a detectron2 backbone.
        neck: as :class:`~detrex.modeling.neck.Neck`.
        images: ``(B, channels, H, W)``.
        sizes: ``(B, 2)`` integers, (height, width) of each image; None if none is padded.

    Returns:
        the levels and the sizes.
    """
    batch, _, height, width = images.shape
    constraints = backbone.padding_constraints or {}
    may_pad = backbone.size_divisibility > 1 or any(size > 0 for size in constraints.values())
    padded = sizes is not None or may_pad
    if sizes is None:
        zero = torch.zeros(batch, dtype=torch.long, device=images.device)
        sizes = torch.stack((zero + height, zero + width), -1)
    else:
        images = images.masked_fill(padding_mask(sizes, images)[:, None], 0.0)
    canvas = pad(images, *canvas_size(height, width, backbone.size_divisibility, constraints))
    return canvas_levels(backbone, neck, canvas, sizes)._replace(padded=padded), sizes
