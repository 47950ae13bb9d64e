"""The training data as a stream that can begin at any iteration."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from omegaconf import DictConfig
from torch.utils.data import IterableDataset, Sampler

__all__ = ["StreamSampler", "TrainStream", "instantiate_with"]

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

    Its state (the seed) goes into checkpoints, so that a resumed run sees the images that the
    interrupted one would have seen.

    Args:
        node: `dataloader.train`. A `sampler` in it keeps its own seed: give it `${train.seed}`.
        seed: of the order of the images; the same in all processes.
        batches_per_iteration: batches that the trainer takes per iteration.
    """

    def __init__(self, node: DictConfig, seed: int, batches_per_iteration: int = 1) -> None:
        self.node = node
        self.seed = seed
        self.batches_per_iteration = batches_per_iteration

    def loader(self, start_iter: int = 0) -> Iterable[list[dict[str, Any]]]:
        """The endless loader, beginning with the first batch of iteration `start_iter`."""
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
            seed=self.seed,
            group_of=_shape_groups(dataset) if self._grouped else None,
        )
        # The stream is grouped already, which is what makes it possible to start in its middle.
        return instantiate_with(
            self.node, dataset=dataset, sampler=stream, aspect_ratio_grouping=False
        )

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.seed = state_dict["seed"]

    @property
    def _grouped(self) -> bool:
        return self.node.get("aspect_ratio_grouping", True)


class StreamSampler(Sampler[int]):
    """Indices batch by batch, beginning at any batch.

    Args:
        sampler: an endless stream of indices, this process's part.
        batch_size: of this process.
        start_batch: batches to leave out.
        seed: of augmentations.
        group_of: from an index to its group; every `batch_size` indices are of one group, in the
            order in which they become complete.

    Attributes:
        seed, start: loaders which seed the augmentation of each sample by its place in the stream
            of all processes look here for the seed and the first place.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        start_batch: int = 0,
        seed: int = 0,
        group_of: Callable[[int], int] | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.start_batch = start_batch
        self.group_of = group_of
        self.seed = seed
        self.start = start_batch * batch_size * comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        for batch in itertools.islice(self._batches(), self.start_batch, None):
            yield from batch

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
