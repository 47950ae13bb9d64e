"""Orders of reading."""

from itertools import chain, islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from torch.utils.data import SequentialSampler


@pytest.fixture
def as_rank(monkeypatch):
    """Pretend to be one of several processes."""

    def become(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return become


def take(sampler, count):
    return list(islice(sampler, count))


def test_training_sampler_is_a_stream_of_permutations():
    stream = take(TrainingSampler(7, seed=3), 21)
    passes = [stream[0:7], stream[7:14], stream[14:21]]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) == 3
    generator = torch.Generator().manual_seed(3)
    assert passes == [torch.randperm(7, generator=generator).tolist() for _ in range(3)]
    assert take(TrainingSampler(7, seed=3), 21) == stream
    assert take(TrainingSampler(7, seed=4), 21) != stream


def test_subclasses_may_shuffle_with_the_seed():
    class Backwards(TrainingSampler):
        def _infinite_indices(self):
            yield from range(self._size + self._seed, 0, -1)

    assert list(Backwards(2, seed=3)) == [5, 4, 3, 2, 1]


def test_training_sampler_in_order():
    assert take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_random_seed_comes_from_numpy():
    streams = []
    for _ in range(2):
        np.random.seed(5)
        streams.append(take(TrainingSampler(30), 65))
    assert streams[0] == streams[1]
    assert take(TrainingSampler(30), 65) != streams[0]


@pytest.mark.parametrize("start", [0, 4, 10, 23])
def test_training_sampler_starts_anywhere(start):
    whole = take(TrainingSampler(5, seed=1), 40)
    assert take(TrainingSampler(5, seed=1, start=start), 12) == whole[start : start + 12]


def test_processes_share_the_stream(as_rank):
    whole = take(TrainingSampler(5, seed=1), 36)
    for start in (0, 6):
        parts = []
        for rank in range(3):
            as_rank(rank, 3)
            parts.append(take(TrainingSampler(5, seed=1, start=start), 10))
        assert list(chain(*zip(*parts, strict=True))) == whole[start : start + 30]
        as_rank(0, 1)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), ("3", TypeError), (2.0, TypeError)]
)
def test_bad_sizes(size, error):
    with pytest.raises(error, match=r"TrainingSampler\(size=\)"):
        TrainingSampler(size)


def test_random_subset():
    sampler = RandomSubsetTrainingSampler(10, 0.5, seed_shuffle=1, seed_subset=2)
    stream = take(sampler, 15)
    chosen = set(stream)
    assert len(chosen) == 5 and all(set(stream[i : i + 5]) == chosen for i in (0, 5, 10))
    other_order = RandomSubsetTrainingSampler(10, 0.5, seed_shuffle=9, seed_subset=2)
    assert set(take(other_order, 5)) == chosen and take(other_order, 15) != stream
    with pytest.raises(AssertionError, match=r"subset_ratio=0.05 of 10 samples is 0"):
        RandomSubsetTrainingSampler(10, 0.05)
    with pytest.raises(AssertionError, match=r"subset_ratio=1.5"):
        RandomSubsetTrainingSampler(10, 1.5)


def test_repeat_factors_follow_the_rarest_category():
    # Category 0 is in 3 of 4 images, 1 in 2, 2 in 1 (twice, which counts once).
    categories = [[0], [0, 1], [0, 1, 2, 2], []]
    records = [{"annotations": [{"category_id": c} for c in cs]} for cs in categories]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.5)
    expected = [1.0, 1.0, (0.5 / 0.25) ** 0.5, 1.0]
    torch.testing.assert_close(factors, torch.tensor(expected))
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        records, 0.9, sqrt=False
    )
    torch.testing.assert_close(factors, torch.tensor([1.2, 1.8, 3.6, 1.0]))


def test_repeat_factor_sampler_repeats():
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.0, 0.25]), shuffle=False, seed=0)
    stream = take(sampler, 4000)
    counts = np.bincount(stream)
    passes = counts[0]
    assert abs(counts[1] - 2 * passes) <= 1  # the last pass may be cut
    # Binomial with p = 1/4: within five standard deviations.
    assert abs(counts[2] - passes / 4) < 5 * (passes * 3 / 16) ** 0.5
    assert stream[:3] == [0, 1, 1]
    shuffled = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.0]), seed=0)
    assert sorted(take(shuffled, 3)) == [0, 1, 1]


@pytest.mark.parametrize("size", [1, 5, 8, 16, 17])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_inference_pieces(size, world_size):
    pieces = [
        list(InferenceSampler._get_local_indices(size, world_size, rank))
        for rank in range(world_size)
    ]
    assert list(chain(*pieces)) == list(range(size))
    lengths = [len(p) for p in pieces]
    assert max(lengths) - min(lengths) <= 1


def test_inference_sampler(as_rank):
    as_rank(1, 3)
    sampler = InferenceSampler(7)
    assert list(sampler) == [3, 4] and len(sampler) == 2
    with pytest.raises(AssertionError, match="nothing to run inference on"):
        InferenceSampler(0)


def test_grouped_batches():
    groups = [0, 1, 0, 0, 1, 0, 1]
    sampler = GroupedBatchSampler(SequentialSampler(range(7)), groups, 2)
    for _ in range(2):  # nothing is left over from an iteration
        assert list(sampler) == [[0, 2], [1, 4], [3, 5]]
    with pytest.raises(ValueError, match=r"instance of torch.utils.data.Sampler"):
        GroupedBatchSampler([1, 2], groups, 2)
