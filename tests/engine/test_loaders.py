from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from stream_cases import PLACES, SEED, SEEDS, STREAMS, SeedsSeen

from detrex.engine import TrainStream
from detrex.engine.loaders import SeededSamples, StreamSampler, instantiate_with

SIZES = [(40, 30), (30, 40), (40, 30), (30, 30), (50, 20), (20, 50), (30, 60)]


def records() -> list[dict[str, Any]]:
    return [{"file_name": str(i), "width": w, "height": h} for i, (w, h) in enumerate(SIZES)]


def with_noise(record: dict[str, Any]) -> dict[str, Any]:
    """A mapper with an augmentation that is random."""
    return {**record, "noise": torch.rand(()).item()}


def stream(seed: int = 3, **options: Any) -> TrainStream:
    node = L(build_detection_train_loader)(
        dataset=L(records)(), mapper=with_noise, total_batch_size=2, num_workers=0
    )
    node.update(options)
    return TrainStream(node, seed)


def batches(loader: Any, count: int) -> list[Any]:
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_can_begin_anywhere(grouping, num_workers):
    options = {"aspect_ratio_grouping": grouping, "num_workers": num_workers}
    whole = batches(stream(**options).loader(), 10)
    assert batches(stream(**options).loader(start_iter=4), 6) == whole[4:]


def test_the_seed_decides():
    one = batches(stream(seed=3).loader(), 10)
    assert batches(stream(seed=3).loader(), 10) == one
    assert batches(stream(seed=4).loader(), 10) != one


def test_the_seed_comes_back_from_a_checkpoint():
    other = stream(seed=4)
    other.load_state_dict(stream(seed=3).state_dict())
    assert batches(other.loader(), 5) == batches(stream(seed=3).loader(), 5)


def test_several_batches_per_iteration():
    whole = batches(stream().loader(), 10)
    node = stream().node
    assert batches(TrainStream(node, 3, batches_per_iteration=3).loader(2), 4) == whole[6:]


def test_batches_are_of_one_shape_and_nothing_is_lost():
    loader = stream(aspect_ratio_grouping=True).loader()
    landscape = [{r["width"] > r["height"] for r in batch} for batch in batches(loader, 40)]
    assert all(len(kinds) == 1 for kinds in landscape)
    seen = [int(r["file_name"]) for b in batches(stream().loader(), 70) for r in b]
    # 140 images are 20 passes over 7; up to one image of each shape may still be waiting.
    assert all(18 <= seen.count(i) <= 20 for i in range(len(SIZES)))


def test_a_sampler_of_the_config_is_used():
    sampler = L(TrainingSampler)(size=len(SIZES), shuffle=False)
    loader = stream(sampler=sampler, aspect_ratio_grouping=False).loader(start_iter=1)
    names = [[r["file_name"] for r in batch] for batch in batches(loader, 3)]
    assert names == [["2", "3"], ["4", "5"], ["6", "0"]]


def test_a_loader_of_another_kind_is_left_alone():
    node = L(itertools.repeat)(object="batch")
    assert batches(TrainStream(node, 3).loader(), 2) == ["batch", "batch"]


@pytest.mark.parametrize("name", STREAMS)
def test_batches_of_a_stream(name):
    case = STREAMS[name]
    sampler = StreamSampler(case.indices, case.batch_size, case.start_batch, case.group_of)
    samples = [index.sample for index in sampler]
    assert samples == [index for batch in case.batches for index in batch]


def test_places_are_counted_batch_by_batch():
    case = STREAMS["groups from the middle"]
    sampler = StreamSampler(case.indices, case.batch_size, case.start_batch, case.group_of)
    assert list(sampler) == [(4, 4), (6, 5), (5, 6), (7, 7)]


@pytest.mark.parametrize(("rank", "processes", "start_batch", "places"), PLACES)
def test_seeds_of_samples(monkeypatch, rank, processes, start_batch, places):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    samples = SeededSamples(SeedsSeen(), None, SEED)
    stream = StreamSampler(range(20), batch_size=2, start_batch=start_batch)
    indices = itertools.islice(stream, len(places))
    assert [samples[at] for at in indices] == [SEEDS[place] for place in places]


def test_instantiate_with_leaves_the_node_as_it_is():
    node = L(pair)(first=1, second=[{"a": 1}])
    first, second = instantiate_with(node, second=[{"a": 2}])
    assert (first, second[0]) == (1, {"a": 2})
    assert type(second[0]) is dict
    assert node.second == [{"a": 1}]


def pair(first: Any, second: Any) -> tuple[Any, Any]:
    return first, second
