"""What a checkpoint holds of a training, and that a resumed one is the uninterrupted one."""

import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.utils.env import preserve_rng_state
from fvcore.common.checkpoint import Checkpointer
from torch import nn


class Model(nn.Module):
    """A model with randomness in it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.fc(x)).square().mean()


def make_trainer(model=None, loader=()):
    model = model or Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return SimpleTrainer(model, loader, optimizer)


class Stateful(HookBase):
    def __init__(self, value=None):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_state_of_several_hooks_of_a_class(caplog):
    trainer = make_trainer()
    trainer.register_hooks([Stateful(1), HookBase(), Stateful(2), Stateful(3)])
    state = trainer.state_dict()
    assert state["hooks"] == {
        "Stateful": {"value": 1},
        "Stateful#2": {"value": 2},
        "Stateful#3": {"value": 3},
    }
    other = make_trainer()
    new = [Stateful(), Stateful()]
    other.register_hooks(new)
    other.load_state_dict(state)
    assert [hook.value for hook in new] == [1, 2]
    assert "Cannot find the hook 'Stateful#3'" in caplog.text


def test_checkpoint_of_the_full_package_loads(caplog):
    """It has neither hooks that we know nor random states."""
    trainer = make_trainer()
    state = {"iteration": 11, "optimizer": trainer.optimizer.state_dict()}
    trainer.load_state_dict(state)
    assert trainer.iter == 11
    assert "Random states are not restored: the checkpoint has none" in caplog.text


def test_iteration_in_the_state_is_the_last_finished_one():
    iterations = []
    trainer = make_trainer(loader=RandomBatches())
    trainer.register_hooks(
        [
            hooks.CallbackHook(
                after_step=lambda t: iterations.append(t.state_dict()["iteration"]),
                after_train=lambda t: iterations.append(t.state_dict()["iteration"]),
            )
        ]
    )
    trainer.train(0, 2)
    assert iterations == [0, 1, 1]


class RandomBatches:
    """As with a DataLoader, making the iterator draws from torch's generator; so do batches."""

    def __iter__(self):
        torch.rand(1)
        return (torch.rand(2, 3) + float(np.random.rand()) for _ in itertools.count())


def run_part(folder, start, stop, resume=None):
    folder.mkdir()
    model = Model()
    trainer = make_trainer(model, RandomBatches())
    checkpointer = Checkpointer(model, str(folder), trainer=trainer)
    losses = []
    trainer.register_hooks(
        [
            hooks.PeriodicCheckpointer(checkpointer, 5),
            hooks.EvalHook(5, lambda: {"x": float(torch.rand(1))}),
            hooks.CallbackHook(after_step=lambda t: losses.append(t.storage.latest())),
        ]
    )
    if resume:
        checkpointer.load(str(resume))
        start = trainer.iter + 1
    trainer.train(start, stop)
    return model, losses


def test_resumed_training_is_the_uninterrupted_one(tmp_path):
    with preserve_rng_state():
        torch.manual_seed(0)
        np.random.seed(0)
        whole, _ = run_part(tmp_path / "whole", 0, 12)
        torch.manual_seed(99)
        np.random.seed(99)
        resumed, _ = run_part(
            tmp_path / "rest", None, 12, resume=tmp_path / "whole" / "model_0000004.pth"
        )
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


class Noisy:
    """A mapper that draws from all generators."""

    def __call__(self, record):
        return [record["index"] / 10, np.random.rand(), random.random() + torch.rand(1).item()]


class Stacked(Model):
    def forward(self, batch):
        return super().forward(torch.tensor(batch))


def train_on_detection_loader(folder, workers, resume=None):
    """Ten iterations; the resumed ones are as by a new process: other seeds, a new loader."""
    seed = 5 if resume else 0
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    model = Stacked()
    records = [{"index": i, "width": 10 + i % 3 * 10, "height": 20} for i in range(11)]
    loader = build_detection_train_loader(
        records, mapper=Noisy(), total_batch_size=3, num_workers=workers
    )
    trainer = make_trainer(model, loader)
    checkpointer = Checkpointer(model, str(folder), trainer=trainer)
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 4)])
    if resume:
        checkpointer.load(str(resume))
    trainer.train(trainer.iter + 1 if resume else 0, 10)
    return model.fc.weight


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_goes_on_in_the_stream_of_the_detection_loader(tmp_path, workers):
    with preserve_rng_state():
        whole = train_on_detection_loader(tmp_path, workers)
        resumed = train_on_detection_loader(tmp_path, workers, tmp_path / "model_0000003.pth")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
