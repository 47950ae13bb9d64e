"""Image features as one sequence of tokens: all that encoder, queries and decoder see of an image.

Letters: ``B`` batch, ``S`` tokens of all levels, ``C`` channels, ``L`` levels, ``Q`` queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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

    def level_of_tokens(self) -> Tensor:
        """``(S,)``, the level each token belongs to."""
        sizes = torch.tensor([h * w for h, w in self.shapes])
        levels = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        return levels.to(self.tokens.device)

    def cell_centers(self) -> Tensor:
        """``(B, S, 2)``, the (x, y) center of each token, relative to the unpadded image.

        Computed in single precision whatever the model's, as the published models have it.
        """
        centers = []
        for (h, w), ratio in zip(self.shapes, self.valid_ratios.unbind(1), strict=True):
            steps = [torch.arange(n, device=ratio.device, dtype=torch.float32) for n in (h, w)]
            y, x = torch.meshgrid(*steps, indexing="ij")
            cells = torch.stack((x, y), -1).flatten(0, 1) + 0.5
            # columns and rows that are image: whole numbers, so padding changes no center
            extent = torch.stack((ratio[:, 0] * w, ratio[:, 1] * h), -1).round().float()
            centers.append((cells / extent[:, None]).to(ratio.dtype))
        return torch.cat(centers, 1)

    def per_level(self, anchors: Tensor) -> Tensor:
        """Anchors ``(B, Q, 2 or 4)`` relative to the image -> ``(B, Q, L, 2 or 4)`` relative to
        each padded level."""
        ratios = self.valid_ratios.repeat(1, 1, anchors.shape[-1] // 2)
        return anchors[:, :, None] * ratios[:, None]


def flatten_levels(
    features: Sequence[Tensor],
    masks: Sequence[Tensor],
    pos: Sequence[Tensor],
    level_embed: Tensor | None,
    padded: bool = True,
) -> Memory:
    """Lay feature maps out as one sequence.

    Args:
        features: per level ``(B, C, H, W)``.
        masks: per level ``(B, H, W)``, True on padding.
        pos: per level ``(B, C, H, W)``.
        level_embed: ``(L, C)``, added to the positions of each level.
        padded: whether any mask is True anywhere (asking the masks would stop a GPU).
    """
    if level_embed is not None:
        pos = [p + e[:, None, None] for p, e in zip(pos, level_embed, strict=True)]
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    ratios = [torch.stack(((~m[:, 0]).to(dtype).mean(1), (~m[:, :, 0]).to(dtype).mean(1)), -1)
              for m in masks]  # fmt: skip
    sequence = lambda maps: torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # noqa: E731
    return Memory(
        tokens=sequence(features),
        pos=sequence(pos),
        padding=torch.cat([m.flatten(1) for m in masks], 1) if padded else None,
        shapes=tuple((f.shape[-2], f.shape[-1]) for f in features),
        valid_ratios=torch.stack(ratios, 1),
    )
