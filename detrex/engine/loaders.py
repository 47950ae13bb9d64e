"""The training data as a stream that can begin at any iteration."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from omegaconf import DictConfig
from torch.utils.data import Sampler

__all__ = ["TrainStream", "instantiate_with"]


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
        node: `dataloader.train`.
        seed: of the order of the images; the same in all processes.
        batches_per_iteration: batches that the trainer takes per iteration.
    """

    def __init__(self, node: DictConfig, seed: int, batches_per_iteration: int = 1) -> None:
        self.node = node
        self.seed = seed
        self.batches_per_iteration = batches_per_iteration

    def loader(self, start_iter: int = 0) -> Iterable[list[dict[str, Any]]]:
        """The endless loader, beginning with the first batch of iteration `start_iter`."""
        dataset = instantiate(self.node.dataset)
        sampler = instantiate(self.node.get("sampler"))
        if sampler is None:
            sampler = TrainingSampler(len(dataset), seed=self.seed)
        batch_size = self.node.total_batch_size // comm.get_world_size()
        start = start_iter * self.batches_per_iteration * batch_size
        return instantiate_with(self.node, dataset=dataset, sampler=_From(sampler, start))

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.seed = state_dict["seed"]


class _From(Sampler[int]):
    """An endless sampler without its first `start` indices."""

    def __init__(self, sampler: Iterable[int], start: int) -> None:
        self.sampler = sampler
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.sampler, self.start, None)
