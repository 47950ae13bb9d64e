import math
import re

import pytest
import torch
from detectron2.engine.metrics import write_metrics
from detectron2.utils.events import EventStorage


@pytest.fixture
def second_rank(monkeypatch):
    """Metrics that a second process contributes."""
    other = {}
    monkeypatch.setattr("detectron2.engine.metrics.comm.gather", lambda mine: [mine, dict(other)])
    return other


def test_mean_of_losses_and_longest_wait(second_rank):
    second_rank.update(a=3.0, b=1.0, data_time=0.5)
    with EventStorage() as storage:
        write_metrics({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, 0.25, cur_iter=7)
    assert storage.latest() == {
        "a": (2.0, 7),
        "b": (1.5, 7),
        "total_loss": (3.5, 7),
        "data_time": (0.5, 7),
    }


def test_prefix_is_that_of_the_total():
    with EventStorage() as storage:
        write_metrics({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, 0.0, 0, prefix="val_")
    assert set(storage.latest()) == {"a", "b", "val_total_loss", "data_time"}


def test_mixed_types_in_one_transfer():
    losses = {"half": torch.tensor([0.5], dtype=torch.float16), "count": torch.tensor(3), "x": 2.0}
    with EventStorage() as storage:
        write_metrics(losses, 0.0, 0)
    assert [storage.latest()[name][0] for name in losses] == [0.5, 3.0, 2.0]


def test_double_precision_is_kept():
    value = 1 / 3
    with EventStorage() as storage:
        write_metrics({"a": torch.tensor(value, dtype=torch.float64)}, 0.0, 0)
    assert storage.latest()["total_loss"][0] == value


def test_non_finite_loss_names_the_rank(second_rank):
    second_rank.update(a=1.0, b=math.nan, data_time=0.0)
    text = "at iteration=3!\nNot finite: a = inf (rank 0), b = nan (rank 1)\nloss_dict = "
    with EventStorage(), pytest.raises(FloatingPointError, match=re.escape(text)):
        write_metrics({"a": torch.tensor(math.inf), "b": torch.tensor(1.0)}, 0.0, 3)
