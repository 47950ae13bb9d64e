"""Inside of the loaders: batches that don't depend on the number of worker processes.

The main process decides everything that is random about the order: which samples make a batch
(``TrainBatches``) and which seed each of them has. Workers get ``SampleKey``s and seed their
generators before they touch a sample (``SeededDataset``), so a sample is the same whoever makes
it, and in a run that was interrupted as in one that was not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import torch
from detectron2.data.catalog import MetadataCatalog
from detectron2.data.common import DatasetFromList, MapDataset, aspect_ratio_group
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

__all__ = [
    "AspectRatios",
    "SampleKey",
    "SeededDataset",
    "TrainBatches",
    "TrainLoader",
    "WorkerInit",
]


class SampleKey(NamedTuple):
    """Index of the sample to make, and the seed of its augmentations."""

    item: int
    seed: int


def _seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's CPU generators.

    CUDA's are left alone: touching them makes a context on the GPU, and fails in a forked worker.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


class SeededDataset(Dataset):
    """A map-style dataset, to be indexed with ``SampleKey``.

    The generators are seeded for each sample. In the main process, where training without
    workers happens, they are afterwards as they were.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> Any:
        if get_worker_info() is not None:
            _seed(key.seed)
            return self.dataset[key.item]
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            _seed(key.seed)
            return self.dataset[key.item]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


class AspectRatios:
    """The aspect-ratio group of each record of a list, found when first asked for.

    Args:
        records: with "width" and "height".
    """

    def __init__(self, records: Any) -> None:
        self._records = records
        self._known: dict[int, int] = {}

    @classmethod
    def of(cls, dataset: Any) -> AspectRatios | None:
        """The groups of a dataset, or None if only its mapped samples tell their sizes."""
        while isinstance(dataset, MapDataset):
            dataset = dataset._dataset
        if not isinstance(dataset, DatasetFromList) or len(dataset) == 0:
            return None
        first = dataset[0]
        known = isinstance(first, dict) and {"width", "height"} <= first.keys()
        return cls(dataset) if known else None

    def __call__(self, index: int) -> int:
        if index not in self._known:
            record = self._records[index]
            try:
                self._known[index] = aspect_ratio_group(record)
            except KeyError as e:
                raise KeyError(
                    f"Record {index} ('{record.get('file_name')}') has no {e}, which the first "
                    "record has; grouping by aspect ratio needs it in all or in none."
                ) from e
        return self._known[index]


class TrainBatches(Sampler[list[SampleKey]]):
    """Batches from a stream of indices.

    Args:
        sampler: of single indices, this process's part. Its ``seed`` decides on augmentations;
            if it has none, a shared random one does. Its ``start``, if it has one, is how many
            samples (over all processes) it leaves out.
        batch_size: samples per batch.
        group_of: from an index to its group; batches have samples of one group, in the order
            in which they fill up.
        drop_last: leave out incomplete batches at the end of a finite sampler.
        seed: of augmentations, instead of the sampler's.

    Attributes:
        start_iteration: how many batches an iteration leaves out at its beginning.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        group_of: Callable[[int], int] | None = None,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.group_of = group_of
        self.drop_last = drop_last
        self.start_iteration = 0
        seed = getattr(sampler, "seed", None) if seed is None else seed
        self.seed: int = comm.shared_random_seed() if seed is None else seed

    def reseed(self, seed: int) -> None:
        """Change the seed, also the sampler's if it has one."""
        self.seed = seed
        if getattr(self.sampler, "seed", None) is not None:
            self.sampler.seed = seed  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        batches = self._batches()
        for number, batch in enumerate(batches):
            # Skipped one by one, since what is in the buckets depends on all before.
            if number >= self.start_iteration:
                yield [SampleKey(index, self._seed_at(place)) for place, index in batch]

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (place in the stream of all processes, index)."""
        rank, world_size = comm.get_rank(), comm.get_world_size()
        first = getattr(self.sampler, "start", 0) + rank
        buckets: dict[int, list[tuple[int, int]]] = {}
        for number, index in enumerate(self.sampler):
            group = self.group_of(index) if self.group_of else 0
            bucket = buckets.setdefault(group, [])
            bucket.append((first + number * world_size, index))
            if len(bucket) == self.batch_size:
                yield buckets.pop(group)
        if not self.drop_last:
            yield from buckets.values()

    def _seed_at(self, place: int) -> int:
        """A seed for the augmentations of the sample at a place of the stream."""
        words = np.random.SeedSequence([self.seed, place]).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(1))  # torch wants less than 2**63

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


class TrainLoader(DataLoader):
    """A DataLoader over ``TrainBatches`` that can begin anywhere in its stream.

    For an exact resume: keep ``seed`` in the checkpoint and call ``start_at`` before iterating.
    """

    batch_sampler: TrainBatches

    @property
    def seed(self) -> int:
        """What the order of the samples and their augmentations are a function of."""
        return self.batch_sampler.seed

    def start_at(self, iteration: int, seed: int | None = None) -> None:
        """Let iterations over this loader begin with the batch number ``iteration``.

        Args:
            iteration: from 0; how many batches each process has had before.
            seed: of the stream; by default the one it has.
        """
        if seed is not None:
            self.batch_sampler.reseed(seed)
        self.batch_sampler.start_iteration = iteration


class WorkerInit:
    """What a worker process does first: get the metadata of datasets, then ``then``.

    Workers that are not forked import this package anew and know the built-in names only.

    Args:
        then: called with the number of the worker.
    """

    def __init__(self, then: Callable[[int], None] | None = None) -> None:
        self.then = None if then is None else PicklableWrapper(then)
        self._metadata: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        metadata = {name: meta.as_dict() for name, meta in MetadataCatalog.items()}
        return {"then": self.then, "_metadata": cloudpickle.dumps(metadata)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.then = state["then"]
        self._metadata = cloudpickle.loads(state["_metadata"])

    def __call__(self, worker_id: int) -> None:
        for name, values in self._metadata.items():
            metadata = MetadataCatalog.get(name)
            metadata.set(**{k: v for k, v in values.items() if k not in metadata.as_dict()})
        if self.then is not None:
            self.then(worker_id)
