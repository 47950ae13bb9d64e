"""Assign predictions to objects by thresholds on their overlap."""

import math

import torch
from torch import Tensor

__all__ = ["Matcher"]


class Matcher:
    """Gives each of N predictions the best of M objects, and a label by how good it is.

    TorchScript can compile it.

    Args:
        thresholds: rising, positive borders between the labels.
        labels: one more than thresholds, each 1 (positive), 0 (negative) or -1 (ignored).
        allow_low_quality_matches: also label 1 the best predictions of every object.
    """

    def __init__(
        self, thresholds: list[float], labels: list[int], allow_low_quality_matches: bool = False
    ) -> None:
        borders = [-math.inf] + list(thresholds) + [math.inf]
        if borders != sorted(borders) or borders[1] <= 0:
            raise AssertionError(f"Thresholds have to be positive and rising, not {thresholds}.")
        if not all([label in [-1, 0, 1] for label in labels]):  # TorchScript needs the list
            raise AssertionError(f"Labels are -1, 0 or 1, not {labels}.")
        if len(labels) != len(thresholds) + 1:
            raise AssertionError(f"{len(thresholds)} thresholds separate not {len(labels)} labels.")
        self.thresholds = borders
        self.labels = labels
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match.

        Args:
            match_quality_matrix: (M, N), not negative, such as overlaps.

        Returns:
            The object (N,) of each prediction, int64, and its label (N,), int8. Without
            objects all are object 0 with the lowest label.
        """
        quality = match_quality_matrix
        if quality.dim() != 2:
            raise AssertionError(f"The matrix has the shape (M, N), not {list(quality.shape)}.")
        if quality.numel() == 0:
            matches = quality.new_zeros(quality.shape[1], dtype=torch.int64)
            return matches, torch.full_like(matches, self.labels[0], dtype=torch.int8)
        if not torch.all(quality >= 0):
            raise AssertionError("Match qualities have to be at least 0, and not NaN.")
        best, matches = quality.max(dim=0)
        labels = torch.full_like(matches, 1, dtype=torch.int8)
        for i in range(len(self.labels)):
            low, high = self.thresholds[i], self.thresholds[i + 1]
            labels[(best >= low) & (best < high)] = self.labels[i]
        if self.allow_low_quality_matches:
            best_of_object = quality.max(dim=1, keepdim=True)[0]
            labels[(quality == best_of_object).any(dim=0)] = 1
        return matches, labels
