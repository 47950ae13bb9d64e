"""Samplers that share a dataset out among the processes of a job.

The training samplers are one endless stream of indices, the same in every process, of which
each process takes every world_size-th. A stream is a function of the seed alone.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import Sampler

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]

logger = logging.getLogger(__name__)


def _resolve_seed(seed: int | None) -> int:
    """The given seed, or a random one that all processes agree on."""
    return comm.shared_random_seed() if seed is None else int(seed)


class _EndlessSampler(Sampler[int]):
    """A stream of indices shared out among the processes.

    Attributes:
        seed: what the stream is a function of; read when an iteration begins.
        start: how many samples of the stream (over all processes) an iteration leaves out.
    """

    def __init__(self, seed: int | None, start: int = 0) -> None:
        self.seed = _resolve_seed(seed)
        self.start = start
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(
            self._infinite_indices(), self.start + self._rank, None, self._world_size
        )

    def _infinite_indices(self) -> Iterator[int]:
        raise NotImplementedError

    @property
    def _seed(self) -> int:
        # The name that subclasses written for detectron2 read.
        return self.seed

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


class TrainingSampler(_EndlessSampler):
    """Endless permutations of the dataset (or endless passes in order).

    Args:
        size: of the dataset.
        shuffle: a new permutation in every pass.
        seed: of the permutations, the same in all processes; None draws a random one that they
            share.
        start: how many samples of the stream (over all processes) to leave out at its
            beginning, for going on where an earlier run stopped.

    Raises:
        TypeError: ``size`` is no integer.
        ValueError: ``size`` is not positive, or ``start`` is negative.
    """

    def __init__(
        self, size: int, shuffle: bool = True, seed: int | None = None, start: int = 0
    ) -> None:
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler(size=) expects an int. Got type {type(size)}.")
        if size <= 0:
            raise ValueError(f"TrainingSampler(size=) expects a positive int. Got {size}.")
        if start < 0:
            raise ValueError(f"TrainingSampler(start=) cannot be negative. Got {start}.")
        super().__init__(seed, start)
        self._size = size
        self._shuffle = shuffle

    def _infinite_indices(self) -> Iterator[int]:
        generator = self._generator()
        while True:
            yield from self._pass_order(generator)

    def _pass_order(self, generator: torch.Generator) -> list[int]:
        if self._shuffle:
            return torch.randperm(self._size, generator=generator).tolist()
        return list(range(self._size))


class RandomSubsetTrainingSampler(TrainingSampler):
    """Like ``TrainingSampler`` on a random part of the dataset.

    Args:
        size: of the dataset.
        subset_ratio: size of the part, in (0, 1].
        shuffle: a new permutation of the part in every pass.
        seed_shuffle: seed of the permutations; None for a shared random one.
        seed_subset: seed of the choice of the part; None for a shared random one.

    Raises:
        AssertionError: ``subset_ratio`` is outside of (0, 1] or leaves nothing.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        super().__init__(size, shuffle, seed_shuffle)
        self._size_subset = int(size * subset_ratio)
        assert 0.0 < subset_ratio <= 1.0 and self._size_subset > 0, (
            f"subset_ratio={subset_ratio} of {size} samples is {self._size_subset} samples; "
            "it has to be in (0, 1] and leave at least one."
        )
        self._seed_subset = _resolve_seed(seed_subset)
        chosen = torch.Generator().manual_seed(self._seed_subset)
        self._indexes_subset = torch.randperm(size, generator=chosen)[: self._size_subset]
        logger.info(f"Using {self._size_subset} of {size} samples")

    def _pass_order(self, generator: torch.Generator) -> list[int]:
        if not self._shuffle:
            return self._indexes_subset.tolist()
        order = torch.randperm(self._size_subset, generator=generator)
        return self._indexes_subset[order].tolist()


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Show some images more often than others (Gupta et al., LVIS, 2019).

    In every pass an image appears as often as its factor says; the fraction of the factor is
    the probability of once more.

    Args:
        repeat_factors: (N,) float tensor.
        shuffle: a new permutation in every pass.
        seed: see ``TrainingSampler``.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self._shuffle = shuffle
        self._int_part = torch.trunc(repeat_factors)
        self._frac_part = repeat_factors - self._int_part

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: Sequence[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Factors that show images with rare categories more often.

        Args:
            dataset_dicts: records with annotations.
            repeat_thresh: categories in a smaller fraction of the images are repeated.
            sqrt: repeat by the square root of threshold / frequency instead of the ratio.

        Returns:
            (N,) the factor of the rarest category in each image, at least 1; 1 without any.
        """
        in_image = [
            {obj["category_id"] for obj in record["annotations"]} for record in dataset_dicts
        ]
        counts = Counter(category for categories in in_image for category in categories)
        exponent = 0.5 if sqrt else 1.0
        factor = {
            category: max(1.0, (repeat_thresh * len(dataset_dicts) / count) ** exponent)
            for category, count in counts.items()
        }
        factors = [max((factor[c] for c in categories), default=1.0) for categories in in_image]
        return torch.tensor(factors, dtype=torch.float32)

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        """The samples of one pass, with repetitions, by ascending index."""
        once_more = torch.rand(len(self._frac_part), generator=generator) < self._frac_part
        times = self._int_part.long() + once_more.long()
        return torch.arange(len(times)).repeat_interleave(times)

    def _infinite_indices(self) -> Iterator[int]:
        generator = self._generator()
        while True:
            indices = self._get_epoch_indices(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()


class InferenceSampler(Sampler[int]):
    """Every sample exactly once over all processes, each having one contiguous piece.

    The pieces differ by at most one sample.

    Args:
        size: of the dataset.

    Raises:
        AssertionError: ``size`` is not positive.
    """

    def __init__(self, size: int) -> None:
        assert size > 0, f"There is nothing to run inference on: the dataset has size {size}."
        self._size = size
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()
        self._local_indices = self._get_local_indices(size, self._world_size, self._rank)

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        """The piece of one process; the first ones take what does not divide evenly."""
        share, left = divmod(total_size, world_size)
        begin = rank * share + min(rank, left)
        end = min(begin + share + (rank < left), total_size)
        return range(begin, end)

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
