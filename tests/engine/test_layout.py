"""The order of numbers in memory: of models on a CPU, and of what optimizers keep."""

from __future__ import annotations

import copy

import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.testing import assert_close

from detrex.engine.build import to_device
from detrex.engine.trainer import Trainer


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": self.conv(torch.stack(batch)).square().mean()}


def trainer(last: bool) -> Trainer:
    torch.manual_seed(0)
    model = Model()
    if last:
        model = to_device(model, "cpu")
    batch = list(torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    return Trainer(model.train(), [batch] * 9, optimizer)


def steps(trained: Trainer, count: int) -> torch.Tensor:
    for _ in range(count):
        with EventStorage() as trained.storage:
            trained.run_step()
    return trained.model.conv.weight.detach().contiguous()


def test_a_model_on_a_cpu_has_its_channels_last():
    weight = to_device(Model(), "cpu").conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_checkpoint_of_another_layout_is_continued():
    """Fused steps pair numbers as they lie in memory."""
    before, after = trainer(last=False), trainer(last=True)
    steps(before, 3)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    after.model.load_state_dict(before.model.state_dict())
    assert_close(steps(after, 2), steps(before, 2))
