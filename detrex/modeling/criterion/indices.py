"""Matches per image as flat index tensors, for criteria in the manner of the public detrex."""

from __future__ import annotations

import torch
from torch import Tensor

from detrex.modeling.predictions import Indices


def source_indices(indices: Indices) -> tuple[Tensor, Tensor]:
    """``(n,)`` image and query of all matched pairs, to index ``(B, Q, ...)``.

    Letters: ``n`` pairs of all images, ``B`` images, ``Q`` queries.
    """
    image = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(indices)])
    return image, torch.cat([query for query, _ in indices])


def target_indices(indices: Indices) -> tuple[Tensor, Tensor]:
    """``(n,)`` image and target of all matched pairs."""
    image = torch.cat([torch.full_like(target, i) for i, (_, target) in enumerate(indices)])
    return image, torch.cat([target for _, target in indices])
