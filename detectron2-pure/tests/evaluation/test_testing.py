import logging
from types import SimpleNamespace

import pytest
from detectron2.evaluation import flatten_results_dict, print_csv_format, verify_results

RESULTS = {"bbox": {"AP": 41.25, "AP50": 60.0, "AP-cat": 50.0}, "loss": 0.5}


def test_csv_lines(caplog):
    with caplog.at_level(logging.INFO):
        print_csv_format(RESULTS)
    assert [record.getMessage() for record in caplog.records] == [
        "copypaste: Task: bbox",
        "copypaste: AP,AP50",
        "copypaste: 41.2500,60.0000",
        "copypaste: loss=0.5",
    ]


def test_csv_of_nothing(caplog):
    print_csv_format({})
    assert not caplog.records
    with pytest.raises(AssertionError):
        print_csv_format([1])


def test_flatten():
    nested = {"bbox": {"AP": 1.0, "size": {"s": 2.0}}, "loss": 0.5}
    assert flatten_results_dict(nested) == {"bbox/AP": 1.0, "bbox/size/s": 2.0, "loss": 0.5}


def config(*expected):
    return SimpleNamespace(TEST=SimpleNamespace(EXPECTED_RESULTS=list(expected)))


def test_verify_results(caplog):
    assert verify_results(config(), RESULTS)
    assert verify_results(config(["bbox", "AP", 41.0, 0.5]), RESULTS)
    for expected, results, text in (
        (["bbox", "AP", 40.0, 1.0], RESULTS, "bbox/AP is 41.25, expected 40.0 +- 1.0"),
        (["bbox", "APs", 40.0, 1.0], RESULTS, "is None"),
        (["bbox", "AP", 40.0, 1.0], {"bbox": {"AP": float("nan")}}, "is nan"),
    ):
        with pytest.raises(SystemExit) as stop:
            verify_results(config(expected), results)
        assert stop.value.code == 1 and text in caplog.messages[-2]
