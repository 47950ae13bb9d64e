from __future__ import annotations

import os
import signal

import pytest
from detectron2.engine import TrainerBase

from detrex.engine import StopOnSignal, TrainingStopped


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
