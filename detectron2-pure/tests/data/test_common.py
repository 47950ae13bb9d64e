"""Datasets that wrap others."""

import itertools
import pickle
import random
import sys

import pytest
import torch
from detectron2.data import DatasetFromList, MapDataset, ToIterableDataset
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    set_default_dataset_from_list_serialize_method,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        yield from self.items


def double_unless_2(x):
    return None if x == 2 else 2 * x


def first(batch):
    return batch[0]


@pytest.mark.parametrize("serialize", [True, False])
def test_list(serialize):
    items = [{"a": [1, 2]}, "text", None, {"b": torch.ones(2)}]
    dataset = DatasetFromList(items, serialize=serialize)
    assert len(dataset) == 4 and dataset[0] == items[0] and dataset[2] is None
    torch.testing.assert_close(dataset[3]["b"], torch.ones(2))
    dataset[0]["a"].append(3)
    assert items[0] == {"a": [1, 2]} and dataset[0] == {"a": [1, 2]}
    with pytest.raises(IndexError):
        dataset[4]
    assert dataset[-4] == items[0] and dataset[-3] == "text"


def test_list_without_copy_returns_its_items():
    items = [{"a": 1}]
    assert DatasetFromList(items, copy=False, serialize=False)[0] is items[0]


def test_own_serialization():
    class Shout:
        def __init__(self, items):
            self.items = [item.upper() for item in items]

        def __len__(self):
            return len(self.items)

        def __getitem__(self, i):
            return self.items[i]

    assert DatasetFromList(["a"], serialize=Shout)[0] == "A"
    with set_default_dataset_from_list_serialize_method(Shout):
        assert DatasetFromList(["a"])[0] == "A"
    with pytest.raises(KeyError), set_default_dataset_from_list_serialize_method(Shout):
        raise KeyError
    assert DatasetFromList(["a"])[0] == "a"


def test_map_style():
    dataset = MapDataset(DatasetFromList([1, 2, 3]), double_unless_2)
    assert len(dataset) == 3 and dataset[0] == 2 and dataset[2] == 6
    assert {dataset[1] for _ in range(50)} == {2, 6}


def test_replacement_is_governed_by_the_global_generator():
    dataset = MapDataset(list(range(100)), lambda x: None if x < 50 else x)
    picks = []
    for _ in range(2):
        random.seed(8)
        picks.append([dataset[i] for i in range(50)])
    assert picks[0] == picks[1] and len(set(picks[0])) > 10


def test_mapper_that_refuses_everything_is_told_with_files():
    records = [{"file_name": f"{i}.jpg"} for i in range(3)]
    with pytest.raises(
        RuntimeError, match=r"all of 3 samples.*of 3; .*index 1 \(file_name='1.jpg'"
    ):
        MapDataset(records, lambda x: None)[1]
    with pytest.raises(RuntimeError, match="all of 1 samples"):
        MapDataset([1], lambda x: None)[0]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
@pytest.mark.parametrize("style", ["map", "iterable"])
def test_exception_of_the_mapper_tells_the_sample(style):
    def fail(record):
        raise ZeroDivisionError("oh")

    records = [{"file_name": "bad.jpg"}]
    with pytest.raises(ZeroDivisionError, match="oh") as info:
        if style == "map":
            MapDataset(records, fail)[0]
        else:
            list(MapDataset(Stream(records), fail))
    assert "file_name='bad.jpg'" in info.value.__notes__[0]


def test_iterable_style():
    dataset = MapDataset(Stream([1, 2, 3]), double_unless_2)
    assert isinstance(dataset, IterableDataset)
    assert list(dataset) == [2, 6]


def test_lambdas_can_be_pickled():
    offset = 5
    for inner in (DatasetFromList([1, 2, 3]), Stream([1, 2, 3])):
        dataset = pickle.loads(pickle.dumps(MapDataset(inner, lambda x: x + offset)))
        got = dataset[0] if isinstance(inner, DatasetFromList) else next(iter(dataset))
        assert got == 6


@pytest.mark.parametrize("num_workers", [0, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4])
def test_stream_order_does_not_depend_on_workers(num_workers, chunk):
    dataset = ToIterableDataset(
        DatasetFromList(list(range(13))), TrainingSampler(13, seed=1), shard_chunk_size=chunk
    )
    loader = DataLoader(
        dataset,
        batch_size=chunk,
        num_workers=num_workers,
        collate_fn=list,
    )
    got = list(itertools.chain(*itertools.islice(loader, 10)))
    assert got == list(itertools.islice(TrainingSampler(13, seed=1), 10 * chunk))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_finite_stream_is_complete(num_workers):
    dataset = ToIterableDataset(list(range(10)), InferenceSampler(10), shard_chunk_size=3)
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    assert sorted(int(x) for x in loader) == list(range(10))
    assert len(dataset) == 10


def test_stream_without_sharding_is_whole_in_every_worker():
    dataset = ToIterableDataset(list(range(3)), InferenceSampler(3), shard_sampler=False)
    loader = DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=first)
    assert sorted(loader) == [0, 0, 1, 1, 2, 2]


def test_stream_refuses_what_makes_no_sense():
    with pytest.raises(AssertionError, match="iterable already"):
        ToIterableDataset(Stream([1]), InferenceSampler(1))
    with pytest.raises(AssertionError, match=r"is no torch.utils.data.Sampler"):
        ToIterableDataset([1], [0])


def sizes(*pairs):
    return [{"width": w, "height": h, "n": n} for n, (w, h) in enumerate(pairs)]


def test_groups_by_aspect_ratio():
    data = sizes((2, 1), (1, 2), (2, 1), (1, 1), (2, 1))
    dataset = AspectRatioGroupedDataset(data, 2)
    # Squares go with the portraits; number 4 fills no batch.
    assert [[d["n"] for d in batch] for batch in dataset] == [[0, 2], [1, 3]]


def test_every_iteration_over_groups_starts_anew():
    dataset = AspectRatioGroupedDataset(sizes((2, 1), (1, 2), (2, 1), (1, 2), (2, 1)), 2)
    for _ in range(5):
        batches = [[d["n"] for d in batch] for batch in itertools.islice(dataset, 1)]
        assert batches == [[0, 2]]
        assert [[d["n"] for d in bucket] for bucket in dataset._buckets] == [[], [1]]
