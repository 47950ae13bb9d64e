import logging
import time

import pytest
from detectron2.config import LazyCall, instantiate
from detectron2.data import build_detection_train_loader
from detectron2.data.benchmark import DataLoaderBenchmark


def slow(record):
    time.sleep(0.01)
    return record


RECORDS = [{"i": i} for i in range(10)]


def test_every_part_is_measured(caplog):
    benchmark = DataLoaderBenchmark(RECORDS, mapper=slow, total_batch_size=2, num_workers=1)
    with caplog.at_level(logging.INFO, logger="detectron2.data.benchmark"):
        assert benchmark.benchmark_dataset(20) > 0
        assert 0 < benchmark.benchmark_mapper(5, warmup=1) <= 100  # it sleeps
        assert benchmark.benchmark_workers(4, warmup=1) > 0
        assert benchmark.benchmark_IPC(4, warmup=1) > 0
        assert benchmark.benchmark_distributed(4, warmup=1) > 0
    parts = [record.message.split(":")[0] for record in caplog.records]
    assert [p for p in parts if not p.startswith("Seriali")] == [
        "dataset",
        "mapper",
        "loader with 1 workers",
        "transport from workers",
        "loader",
    ]


def test_time_is_limited():
    benchmark = DataLoaderBenchmark(RECORDS, mapper=slow, total_batch_size=1, max_time_seconds=0)
    start = time.perf_counter()
    benchmark.benchmark_mapper(10**6, warmup=0)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("grouping", [True, False])
def test_takes_the_place_of_the_loader_in_a_config(grouping):
    config = LazyCall(build_detection_train_loader)(
        dataset=RECORDS, mapper=slow, total_batch_size=2, aspect_ratio_grouping=grouping
    )
    config._target_ = DataLoaderBenchmark
    assert instantiate(config).benchmark_distributed(1, warmup=0) > 0
