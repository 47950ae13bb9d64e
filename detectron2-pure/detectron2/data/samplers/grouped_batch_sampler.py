"""Batches whose samples belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch.utils.data import BatchSampler, Sampler

__all__ = ["GroupedBatchSampler"]


class GroupedBatchSampler(BatchSampler):
    """Full batches of samples of one group, in the order in which the batches fill up.

    Made for endless samplers; of a finite one the samples of incomplete batches are lost.

    Args:
        sampler: of single indices.
        group_ids: group of each index.
        batch_size: of every batch.

    Raises:
        ValueError: ``sampler`` is no torch Sampler.
    """

    def __init__(self, sampler: Sampler[int], group_ids: Sequence[int], batch_size: int) -> None:
        if not isinstance(sampler, Sampler):
            raise ValueError(
                f"sampler should be an instance of torch.utils.data.Sampler, got {sampler!r}."
            )
        self.sampler = sampler
        self.group_ids = [int(group) for group in group_ids]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        buckets: defaultdict[int, list[int]] = defaultdict(list)
        for index in self.sampler:
            bucket = buckets[self.group_ids[index]]
            bucket.append(index)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()

    def __len__(self) -> int:
        # A TypeError, which list() takes for "unknown".
        raise TypeError("How many batches there are depends on the groups.")
