"""Random choice of training examples."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["subsample_labels"]


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draw positive and negative examples, in random order.

    Args:
        labels: (N,), -1 for examples to ignore.
        num_samples: how many to draw in all; fewer if there are not enough.
        positive_fraction: at most this share is positive; negatives fill up the rest.
        bg_label: the label of negatives.

    Returns:
        Indices of the positive and of the negative examples.
    """
    positive = ((labels != -1) & (labels != bg_label)).nonzero().flatten()
    negative = (labels == bg_label).nonzero().flatten()
    num_positive = min(positive.numel(), int(num_samples * positive_fraction))
    num_negative = min(negative.numel(), num_samples - num_positive)
    return _draw(positive, num_positive), _draw(negative, num_negative)


def _draw(indices: Tensor, count: int) -> Tensor:
    return indices[torch.randperm(indices.numel(), device=indices.device)[:count]]
