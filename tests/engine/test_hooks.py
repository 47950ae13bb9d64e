from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import TrainerBase
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detrex.engine import StopOnSignal, TrainingStopped
from detrex.engine.hooks import BestCheckpointer


class Interrupted(TrainerBase):
    """Sends itself signals in the middle of iterations."""

    def __init__(self, signals: dict[int, list[int]]) -> None:
        super().__init__()
        self.signals = signals
        self.finished: list[int] = []

    def run_step(self) -> None:
        for number in self.signals.get(self.iter, []):
            os.kill(os.getpid(), number)
        self.finished.append(self.iter)


def train(signals: dict[int, list[int]]) -> tuple[Interrupted, list[int]]:
    saved: list[int] = []
    trainer = Interrupted(signals)
    trainer.register_hooks([StopOnSignal(lambda: saved.append(trainer.iter))])
    try:
        trainer.train(0, 5)
    except KeyboardInterrupt as e:
        trainer.error = e
    return trainer, saved


@pytest.fixture(autouse=True)
def handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_iteration_and_saves(number):
    trainer, saved = train({2: [number]})
    assert isinstance(trainer.error, TrainingStopped)
    assert str(trainer.error) == "stopped after iteration 2"
    assert trainer.finished == [0, 1, 2]
    assert saved == [2]


def test_a_second_signal_interrupts_at_once():
    trainer, saved = train({2: [signal.SIGINT, signal.SIGINT]})
    assert type(trainer.error) is KeyboardInterrupt
    assert trainer.finished == [0, 1]
    assert saved == []


def test_without_signals_training_runs_to_its_end():
    trainer, saved = train({})
    assert trainer.finished == [0, 1, 2, 3, 4]
    assert saved == []


class Evaluated(TrainerBase):
    """Its metrics come from a list, one for each iteration."""

    def __init__(self, metrics: list[float], folder: Path, metric: str = "bbox/AP") -> None:
        super().__init__()
        self.metrics = metrics
        self.best = BestCheckpointer(1, Checkpointer(nn.Linear(1, 1), str(folder)), metric)
        self.register_hooks([self.best])

    def run_step(self) -> None:
        self.storage.put_scalar("bbox/AP", self.metrics[self.iter])


def test_the_best_checkpoint_stays_the_best_when_training_is_resumed(tmp_path):
    first = Evaluated([10.0, 30.0, 20.0], tmp_path / "first")
    (tmp_path / "first").mkdir()
    first.train(0, 3)
    assert torch.load(tmp_path / "first" / "model_best.pth")["iteration"] == 1

    second = Evaluated([0.0, 0.0, 0.0, 25.0, 29.0], tmp_path / "second")
    second.load_state_dict(first.state_dict())
    second.train(3, 5)
    assert not (tmp_path / "second").exists()
    assert (second.best.best_metric, second.best.best_iter) == (30.0, 1)


def test_the_best_of_another_metric_does_not_count(tmp_path):
    first = Evaluated([10.0], tmp_path, "bbox/AP")
    first.train(0, 1)
    second = Evaluated([10.0], tmp_path, "bbox/AP50")
    second.load_state_dict(first.state_dict())
    assert second.best.best_metric is None
