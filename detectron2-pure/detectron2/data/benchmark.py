"""How fast a training loader is, and which part of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
from detectron2.data.build import (
    Mapper,
    _to_dataset,
    build_batch_data_loader,
    trivial_batch_collator,
)
from detectron2.data.common import MapDataset
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["DataLoaderBenchmark"]

logger = logging.getLogger(__name__)


class _AlwaysTheSame(Dataset):
    """One sample that is made once, so that giving it away is all that takes time."""

    def __init__(self, sample: Any) -> None:
        self._sample = sample

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> Any:
        return self._sample


class DataLoaderBenchmark:
    """Time the parts of a training loader; takes the arguments of ``build_detection_train_loader``.

    All methods log and return the iterations per second. They stop early after
    ``max_time_seconds``, but not before one iteration.

    Args:
        dataset: list of records, or a map-style dataset.
        mapper: from a record to a sample.
        sampler: ``TrainingSampler`` by default.
        total_batch_size: over all processes.
        num_workers: processes that make the batches.
        max_time_seconds: longest time of one measurement.
        aspect_ratio_grouping: has no effect.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        mapper: Mapper,
        sampler: Sampler[int] | None = None,
        total_batch_size: int,
        num_workers: int = 0,
        max_time_seconds: float = 90,
        aspect_ratio_grouping: bool = False,
    ) -> None:
        self.dataset = _to_dataset(dataset, None)
        self.mapper = mapper
        self.sampler = TrainingSampler(len(self.dataset)) if sampler is None else sampler
        self.total_batch_size = total_batch_size
        self.num_workers = num_workers
        self.max_time_seconds = max_time_seconds

    def benchmark_dataset(self, num_iter: int, warmup: int = 5) -> float:
        """Getting records."""
        records = (self.dataset[i] for i in self.sampler)
        return self._measure("dataset", records, num_iter, warmup)

    def benchmark_mapper(self, num_iter: int, warmup: int = 5) -> float:
        """Mapping records to samples in this process."""
        dataset = MapDataset(self.dataset, self.mapper)
        samples = (dataset[i] for i in self.sampler)
        return self._measure("mapper", samples, num_iter, warmup)

    def benchmark_workers(self, num_iter: int, warmup: int = 10) -> float:
        """Batches of this process, by one worker and by all of them."""
        speed = 0.0
        for workers in sorted({min(1, self.num_workers), self.num_workers}):
            name = f"loader with {workers} workers"
            speed = self._measure(name, self._loader(workers), num_iter, warmup)
        return speed

    def benchmark_IPC(self, num_iter: int, warmup: int = 10) -> float:
        """Batches that only have to come here from the workers."""
        sample = MapDataset(self.dataset, self.mapper)[0]
        loader = DataLoader(
            _AlwaysTheSame(sample),
            batch_size=self.total_batch_size // comm.get_world_size(),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
        )
        return self._measure("transport from workers", loader, num_iter, warmup)

    def benchmark_distributed(self, num_iter: int, warmup: int = 10) -> float:
        """Batches of all processes together, as they come in training."""
        comm.synchronize()
        speed = self._measure("loader", self._loader(self.num_workers), num_iter, warmup)
        speeds = comm.all_gather(speed)
        if len(speeds) > 1:
            logger.info(f"Slowest and fastest process: {min(speeds):.1f}, {max(speeds):.1f} it/s")
        return min(speeds)

    def _loader(self, num_workers: int) -> Any:
        dataset = MapDataset(self.dataset, self.mapper)
        return build_batch_data_loader(
            dataset, self.sampler, self.total_batch_size, num_workers=num_workers
        )

    def _measure(self, name: str, iterable: Iterable[Any], num_iter: int, warmup: int) -> float:
        iterator = iter(iterable)
        for _ in islice(iterator, warmup):
            pass
        start = last = time.perf_counter()
        seconds = []
        for _ in islice(iterator, num_iter):
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
            if now - start > self.max_time_seconds:
                break
        speed = len(seconds) / max(sum(seconds), 1e-9)
        slow = np.percentile(seconds, 95)
        logger.info(f"{name}: {speed:.1f} it/s over {len(seconds)}; 95% take < {slow:.4f} s")
        return speed
