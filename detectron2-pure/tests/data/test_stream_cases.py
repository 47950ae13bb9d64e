"""The table of streams that detrex has to pass as well."""

from __future__ import annotations

import itertools

import pytest
from detectron2.data._loading import SeededDataset, TrainBatches
from detectron2.utils import comm
from stream_cases import PLACES, SEED, SEEDS, STREAMS, SeedsSeen


@pytest.mark.parametrize("name", STREAMS)
def test_batches_of_a_stream(name):
    case = STREAMS[name]
    batches = TrainBatches(case.indices, case.batch_size, case.group_of, seed=SEED)
    batches.start_iteration = case.start_batch
    assert [[key.item for key in batch] for batch in batches] == case.batches


@pytest.mark.parametrize(("rank", "processes", "start_batch", "places"), PLACES)
def test_seeds_of_samples(monkeypatch, rank, processes, start_batch, places):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    samples = SeededDataset(SeedsSeen())
    batches = TrainBatches(range(20), batch_size=2, seed=SEED)
    batches.start_iteration = start_batch
    keys = itertools.islice(itertools.chain.from_iterable(batches), len(places))
    assert [samples[key] for key in keys] == [SEEDS[place] for place in places]
