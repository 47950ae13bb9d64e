"""The training data as a stream that can begin at any iteration."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from detectron2.config import instantiate
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from omegaconf import DictConfig
from torch.utils.data import Dataset, IterableDataset, Sampler

from detrex.engine.seeds import seed_at, seed_cpu

__all__ = ["SeededSamples", "StreamIndex", "StreamSampler", "TrainStream", "instantiate_with"]

logger = logging.getLogger(__name__)


def instantiate_with(node: DictConfig, **replacements: Any) -> Any:
    """Instantiate a LazyCall with some of its arguments given as objects.

    The node itself stays as it is. Lists of dataset dicts are packed up, since a config would
    otherwise turn them into configs, record by record.
    """
    node = copy.copy(node)
    for name, value in replacements.items():
        node[name] = DatasetFromList(value, copy=False) if isinstance(value, list) else value
    return instantiate(node)


class TrainStream:
    """Makes the training loader of a config, in an order that a seed decides.

    The augmentation of a sample is drawn from the seed and the sample's place in the stream, so it
    depends neither on where the stream began nor on the number of workers.

    Its state (the seed) goes into checkpoints, so that a resumed run sees the images that the
    interrupted one would have seen.

    Args:
        node: ``dataloader.train``. A ``sampler`` in it keeps its own seed: give it
            ``${train.seed}``.
        seed: of the order of the images; the same in all processes.
        batches_per_iteration: batches that the trainer takes per iteration.
    """

    def __init__(self, node: DictConfig, seed: int, batches_per_iteration: int = 1) -> None:
        self.node = node
        self.seed = seed
        self.batches_per_iteration = batches_per_iteration

    def loader(self, start_iter: int = 0) -> Iterable[list[dict[str, Any]]]:
        """The endless loader, beginning with the first batch of iteration ``start_iter``."""
        dataset = instantiate(self.node.get("dataset"))
        if dataset is None or isinstance(dataset, IterableDataset):
            # A loader of another kind keeps its order to itself.
            if start_iter:
                logger.warning("the training data starts from its beginning again")
            return instantiate(self.node)
        sampler = instantiate(self.node.get("sampler"))
        if sampler is None:
            sampler = TrainingSampler(len(dataset), seed=self.seed)
        stream = StreamSampler(
            sampler,
            batch_size=self.node.total_batch_size // comm.get_world_size(),
            start_batch=start_iter * self.batches_per_iteration,
            group_of=_shape_groups(dataset) if self._grouped else None,
        )
        samples = SeededSamples(dataset, instantiate(self.node.get("mapper")), self.seed)
        # The stream is grouped already, which is what makes it possible to start in its middle.
        return instantiate_with(
            self.node, dataset=samples, mapper=None, sampler=stream, aspect_ratio_grouping=False
        )

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.seed = state_dict["seed"]

    @property
    def _grouped(self) -> bool:
        return self.node.get("aspect_ratio_grouping", True)


class StreamIndex(NamedTuple):
    """Which sample, and where in the stream of all processes."""

    sample: int
    place: int


class SeededSamples(Dataset[Any]):
    """Mapped samples, each with random numbers of its own.

    Args:
        records: a map-style data set, or a list.
        mapper: makes a sample of a record; None if they are samples already.
        seed: of all random numbers that the mapper draws.
    """

    def __init__(self, records: Any, mapper: Callable[[Any], Any] | None, seed: int) -> None:
        samples = DatasetFromList(records, copy=False) if isinstance(records, list) else records
        self.samples = samples if mapper is None else MapDataset(samples, mapper)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at: StreamIndex) -> Any:
        seed_cpu(seed_at(self.seed, at.place))
        return self.samples[at.sample]


class StreamSampler(Sampler[StreamIndex]):
    """Indices batch by batch, beginning at any batch.

    Args:
        sampler: an endless stream of indices, this process's part.
        batch_size: of this process.
        start_batch: batches to leave out.
        group_of: from an index to its group; every ``batch_size`` indices are of one group, in the
            order in which they become complete.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        start_batch: int = 0,
        group_of: Callable[[int], int] | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.start_batch = start_batch
        self.group_of = group_of

    def __iter__(self) -> Iterator[StreamIndex]:
        indices = itertools.chain.from_iterable(self._batches())
        places = itertools.count(comm.get_rank(), comm.get_world_size())
        stream = map(StreamIndex, indices, places)
        # What comes before is gone through, since what is in the groups depends on it.
        yield from itertools.islice(stream, self.start_batch * self.batch_size, None)

    def _batches(self) -> Iterator[list[int]]:
        unfinished: dict[int, list[int]] = {}
        for index in self.sampler:
            group = 0 if self.group_of is None else self.group_of(index)
            batch = unfinished.setdefault(group, [])
            batch.append(index)
            if len(batch) == self.batch_size:
                yield unfinished.pop(group)


def _shape_groups(dataset: Any) -> Callable[[int], int] | None:
    """Landscape or portrait, as far as dataset dicts say: batches of one need less padding."""
    if not isinstance(dataset, list) or not all("width" in d and "height" in d for d in dataset):
        return None
    groups = [int(d["width"] > d["height"]) for d in dataset]
    return groups.__getitem__
