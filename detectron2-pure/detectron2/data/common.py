"""Datasets that wrap others: a list, a mapping function, a stream, groups by aspect ratio."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

__all__ = [
    "AspectRatioGroupedDataset",
    "DatasetFromList",
    "MapDataset",
    "ToIterableDataset",
    "set_default_dataset_from_list_serialize_method",
]

logger = logging.getLogger(__name__)


def _roundrobin_chunks(
    iterable: Iterable[Any], chunk_size: int, part: int, num_parts: int
) -> Iterator[Any]:
    """Cut a stream into chunks and keep every ``num_parts``-th, from chunk ``part`` on."""
    stream = iter(iterable)
    for number in itertools.count():
        chunk = list(itertools.islice(stream, chunk_size))
        if number % num_parts == part:
            yield from chunk
        if len(chunk) < chunk_size:
            return


def _describe_sample(index: Any, sample: Any) -> str:
    """How to find a sample again."""
    name = sample.get("file_name") if isinstance(sample, dict) else None
    return f"index {index}" + (f" (file_name='{name}')" if name else "")


class MapDataset(Dataset):
    """Apply a function to every sample of a dataset.

    A function that returns None asks for another sample instead: a random one, drawn with
    Python's global generator, or the next one if the dataset is iterable. An exception of the
    function goes through and tells which sample it was.

    Args:
        dataset: map-style; given an iterable one, an iterable dataset is made.
        map_func: may be a lambda even where samples are made in other processes.
    """

    _MAX_FAILURES = 1000

    def __new__(cls, dataset: Any, map_func: Callable[[Any], Any]) -> Any:
        if isinstance(dataset, IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset: Any, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __getnewargs__(self) -> tuple[Any, Callable[[Any], Any]]:
        return self._dataset, self._map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        """The mapped sample, or the mapped substitute.

        Raises:
            RuntimeError: there is no sample for which the function returns something.
        """
        candidates = _candidates(int(idx), len(self._dataset))
        failed: list[str] = []
        for index in itertools.islice(candidates, self._MAX_FAILURES):
            sample = self._dataset[index]
            what = _describe_sample(index, sample)
            result = _call_naming(self._map_func, sample, what)
            if result is not None:
                return result
            failed.append(what)
            if len(failed) == 3:
                logger.warning(f"The mapper returned None for {', '.join(failed)}, ...")
        raise RuntimeError(
            f"The mapper returned None for all of {len(failed)} samples that were tried of "
            f"{len(self._dataset)}; the first ones are {', '.join(failed[:3])}."
        )


def _candidates(first: int, size: int) -> Iterator[int]:
    """``first``, then all other indices in random order."""
    yield first
    if size > 1:
        others = list(range(size))
        del others[first]
        for i in range(len(others)):
            j = random.randrange(i, len(others))
            others[i], others[j] = others[j], others[i]
            yield others[i]


def _call_naming(function: Callable[[Any], Any], sample: Any, what: str) -> Any:
    """Call ``function(sample)``; an exception gets a note that tells which sample it was."""
    try:
        return function(sample)
    except Exception as e:
        note = f"The mapper failed on the sample at {what}."
        if sys.version_info >= (3, 11):
            e.add_note(note)
        else:
            logger.error(note)
        raise


class _MapIterableDataset(IterableDataset):
    """``MapDataset`` for iterable datasets."""

    def __init__(self, dataset: Iterable[Any], map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for number, sample in enumerate(self._dataset):
            what = _describe_sample(f"{number} of the stream", sample)
            result = _call_naming(self._map_func, sample, what)
            if result is not None:
                yield result


class _TorchSerializedList:
    """A list of picklable objects in one block of memory.

    Worker processes share the block: there are no Python objects in it whose reference counts
    would make them copy its pages.
    """

    def __init__(self, lst: Sequence[Any]) -> None:
        logger.info(f"Serializing {len(lst)} elements to byte tensors and concatenating them")
        blobs = [np.frombuffer(pickle.dumps(item, protocol=-1), np.uint8) for item in lst]
        ends = np.cumsum([len(blob) for blob in blobs], dtype=np.int64)
        self._ends = torch.from_numpy(ends)
        self._bytes = torch.from_numpy(
            np.concatenate(blobs) if blobs else np.empty(0, dtype=np.uint8)
        )
        logger.info(f"Serialized dataset takes {len(self._bytes) / 1024**2:.2f} MiB")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: int) -> Any:
        begin = 0 if idx in (0, -len(self)) else int(self._ends[idx - 1])
        return pickle.loads(self._bytes[begin : int(self._ends[idx])].numpy().data)


_default_serializer: Callable[[Sequence[Any]], Any] = _TorchSerializedList


@contextlib.contextmanager
def set_default_dataset_from_list_serialize_method(
    new: Callable[[Sequence[Any]], Any],
) -> Iterator[None]:
    """Let ``DatasetFromList`` serialize in another way inside of this context.

    Args:
        new: from a list to an object with ``len()`` and indexing.
    """
    global _default_serializer
    old, _default_serializer = _default_serializer, new
    try:
        yield
    finally:
        _default_serializer = old


class DatasetFromList(Dataset):
    """A list as a dataset.

    Args:
        lst: the samples.
        copy: return deep copies, so that samples can be changed. Has no effect if serialized:
            then every access makes a new object.
        serialize: hold the samples as bytes that worker processes share; or a callable that
            makes some other list-like object.
    """

    def __init__(
        self,
        lst: Sequence[Any],
        copy: bool = True,
        serialize: bool | Callable[[Sequence[Any]], Any] = True,
    ) -> None:
        self._copy = copy
        if not isinstance(serialize, (bool, Callable)):  # type: ignore[arg-type]
            raise TypeError(f"serialize is a bool or a callable, not {serialize!r}.")
        self._serialize = serialize is not False
        self._lst: Any = lst
        if self._serialize:
            self._lst = (_default_serializer if serialize is True else serialize)(lst)  # type: ignore[operator]

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        if self._copy and not self._serialize:
            return copy.deepcopy(self._lst[idx])
        return self._lst[idx]


class ToIterableDataset(IterableDataset):
    """A map-style dataset as a stream in the order of a sampler.

    Args:
        dataset: map-style.
        sampler: of indices.
        shard_sampler: give each worker process its part of the stream. Without it every worker
            has the whole stream, which is right only if the sampler knows about workers.
        shard_chunk_size: the parts consist of every num_workers-th chunk of this many samples.
            With the DataLoader's batch size (1 without batching) the samples come out in the
            same order for any number of workers.

    Raises:
        AssertionError: the dataset is iterable already, or the sampler is no Sampler.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: Sampler[int],
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        assert not isinstance(dataset, IterableDataset), f"{dataset} is iterable already."
        assert isinstance(sampler, Sampler), f"{sampler!r} is no torch.utils.data.Sampler."
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        indices: Iterable[int] = self.sampler
        worker = get_worker_info() if self.shard_sampler else None
        if worker is not None:
            indices = _roundrobin_chunks(
                self.sampler, self.shard_chunk_size, worker.id, worker.num_workers
            )
        for idx in indices:
            yield self.dataset[idx]

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


def aspect_ratio_group(record: dict[str, Any]) -> int:
    """0 for landscape images, 1 for the others."""
    return 0 if record["width"] > record["height"] else 1


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of only landscape or only portrait images, which need less padding.

    What does not fill a batch at the end of a finite dataset is lost. Each iteration starts
    with empty buckets.

    Args:
        dataset: iterable, of dictionaries with "width" and "height".
        batch_size: of every batch.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: list[list[dict[str, Any]]] = [[], []]

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        buckets: list[list[dict[str, Any]]] = [[], []]
        self._buckets = buckets
        for sample in self.dataset:
            bucket = buckets[aspect_ratio_group(sample)]
            bucket.append(sample)
            if len(bucket) == self.batch_size:
                data = bucket[:]
                # Before yielding: the consumer may stop here.
                del bucket[:]
                yield data
