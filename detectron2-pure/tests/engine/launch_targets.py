"""What the processes of test_launch do; in a file of its own because they import it.

Starting processes takes seconds, so one set of them does several things.
"""

import json
import multiprocessing
import os
import warnings

import torch
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from torch import nn


def report(folder):
    """Every rank writes what it sees."""
    rank = comm.get_rank()
    facts = {
        "world": comm.get_world_size(),
        "local": [comm.get_local_rank(), comm.get_local_size()],
        "main": comm.is_main_process(),
        "all_gather": comm.all_gather({"rank": rank}),
        "gather": comm.gather("x" * (rank + 1)),
        "gather_to_1": comm.gather(rank, dst=1),
        "sum": comm.reduce_dict({"b": torch.tensor(1.0), "a": torch.tensor(float(rank))}, False)[
            "a"
        ].item(),
        "seed": comm.shared_random_seed(),
        "start_method": multiprocessing.get_start_method(),
    }
    with open(os.path.join(folder, f"{rank}.json"), "w") as f:
        json.dump(facts, f)


def fail_in_rank_1():
    if comm.get_rank() == 1:
        raise KeyError("the cause")
    comm.synchronize()  # waits for a process that never comes


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return {"loss": self.dropout(self.fc(x)).sum()}


def batches():
    while True:
        yield torch.rand(2, 2) + comm.get_rank()


class LastMetrics(EventWriter):
    def __init__(self, path):
        self.path = path

    def write(self):
        if comm.is_main_process():
            with open(self.path, "w") as f:
                json.dump(get_event_storage().latest(), f)


def train(folder, max_iter, resume):
    """A short training with checkpoints; every rank saves its weights at the end."""
    from fvcore.common.checkpoint import Checkpointer

    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(comm.get_rank() + (100 if resume else 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model = create_ddp_model(Model(), broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trainer = SimpleTrainer(model, batches(), optimizer, async_write_metrics=True)
    is_main = comm.is_main_process()
    checkpointer = Checkpointer(model, folder, save_to_disk=is_main, trainer=trainer)
    trainer.register_hooks(
        [
            hooks.PeriodicCheckpointer(checkpointer, 2) if is_main else None,
            hooks.EvalHook(1, lambda: {"ranks": len(comm.all_gather(comm.get_rank()))}),
            hooks.PeriodicWriter([LastMetrics(os.path.join(folder, "metrics.json"))], 1),
        ]
    )
    if resume:
        checkpointer.load(resume)
    trainer.train(trainer.iter + 1 if resume else 0, max_iter)
    torch.save(model.module.state_dict(), os.path.join(folder, f"weights{comm.get_rank()}.pth"))


def report_and_train(folder):
    """`report`, a training of four iterations, and the second half of the same one resumed."""
    report(folder)
    whole, rest = os.path.join(folder, "whole"), os.path.join(folder, "rest")
    train(whole, 4, None)
    comm.synchronize()
    train(rest, 4, os.path.join(whole, "model_0000001.pth"))
