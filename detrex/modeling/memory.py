"""Image features as one sequence of tokens: all that encoder, queries and decoder see of an image.

Letters: ``B`` batch, ``S`` tokens of all levels, ``C`` channels, ``L`` levels, ``Q`` queries,
``H``, ``W`` rows and columns of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detrex.modeling.levels import Levels


class Memory(NamedTuple):
    """Flattened feature levels, finest first."""

    tokens: Tensor
    """``(B, S, C)``."""
    pos: Tensor
    """``(B, S, C)``, the position of each token."""
    padding: Tensor | None
    """``(B, S)``, True on padding; None if no image is padded."""
    shapes: tuple[tuple[int, int], ...]
    """(height, width) of each level."""
    valid_ratios: Tensor
    """``(B, L, 2)``, the share (of the width, of the height) of each level that is image, in single
    precision at least, as everything that follows from it: half precision misses by whole cells."""
    pixels: Sequence[Tensor] = ()
    """Finer maps ``(B, C, H, W)`` that are no tokens, for heads that predict masks."""

    def split(self, rows: Tensor) -> list[Tensor]:
        """One row for each token ``(B, S, ...)`` -> per level ``(B, H, W, ...)``: of
        :attr:`tokens` the feature maps, of :attr:`padding` the masks."""
        parts = rows.split([h * w for h, w in self.shapes], 1)
        return [p.unflatten(1, shape) for p, shape in zip(parts, self.shapes, strict=True)]

    def level_of_tokens(self) -> Tensor:
        """``(S,)``, the level each token belongs to."""
        device = self.tokens.device
        counts = [h * w for h, w in self.shapes]
        return torch.cat([torch.full((n,), i, device=device) for i, n in enumerate(counts)])

    def row_and_column_centers(self) -> list[tuple[Tensor, Tensor]]:
        """Per level the centers of its rows ``(B, H)`` and columns ``(B, W)``, relative to the
        unpadded image.

        Computed in single precision whatever the model's, as the published models have it.
        """
        centers = []
        for (h, w), ratio in zip(self.shapes, self.valid_ratios.unbind(1), strict=True):
            cells = [
                torch.arange(n, device=ratio.device, dtype=torch.float32) + 0.5 for n in (h, w)
            ]
            # columns and rows that are image: whole numbers, so padding changes no center
            extent = torch.stack((ratio[:, 1] * h, ratio[:, 0] * w), -1).round().float()
            y, x = (c / n[:, None] for c, n in zip(cells, extent.unbind(-1), strict=True))
            centers.append((y.to(ratio.dtype), x.to(ratio.dtype)))
        return centers

    def cell_centers(self) -> Tensor:
        """``(B, S, 2)``, the (x, y) center of each token, relative to the unpadded image."""
        centers = []
        for y, x in self.row_and_column_centers():
            grid = x[:, None].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])
            centers.append(torch.stack(grid, -1).flatten(1, 2))
        return torch.cat(centers, 1)

    def per_level(self, anchors: Tensor) -> Tensor:
        """Anchors ``(B, Q, 2 or 4)`` relative to the image -> ``(B, Q, L, 2 or 4)`` relative to
        each padded level."""
        ratios = self.valid_ratios.repeat(1, 1, anchors.shape[-1] // 2)
        return anchors[:, :, None] * ratios[:, None]


def flatten_levels(levels: Levels, level_embed: Tensor | None = None) -> Memory:
    """Lays feature maps out as one sequence.

    Args:
        levels: with their positions.
        level_embed: ``(L, C)``, added to the positions of each level.
    """
    maps, masks, pos = levels.maps, levels.masks, levels.pos
    if level_embed is not None:
        pos = [p + e[:, None, None] for p, e in zip(pos, level_embed, strict=True)]
    dtype = torch.promote_types(maps[0].dtype, torch.float32)
    ratios = [torch.stack(((~m[:, 0]).to(dtype).mean(1), (~m[:, :, 0]).to(dtype).mean(1)), -1)
              for m in masks]  # fmt: skip
    sequence = lambda maps: torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # noqa: E731
    return Memory(
        tokens=sequence(maps),
        pos=sequence(pos),
        padding=torch.cat([m.flatten(1) for m in masks], 1) if levels.padded else None,
        shapes=tuple((m.shape[-2], m.shape[-1]) for m in maps),
        valid_ratios=torch.stack(ratios, 1),
        pixels=levels.pixels,
    )
