import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    find_unused_parameters,
    flop_count_operators,
    parameter_count,
)
from torch import nn

CHANNELS, HEIGHT, WIDTH = 4, 5, 6


class Detector(nn.Module):
    """Takes and returns what detectors do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1, bias=False)
        self.unused = nn.Linear(2, 2)

    def forward(self, batch):
        y = self.conv(torch.stack([x["image"] for x in batch]))
        if self.training:
            return {"loss": y.sum()}
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes = Boxes(y.flatten()[:8].view(2, 4))
        instances.scores = y.flatten()[:2]
        return [{"instances": instances}]


@pytest.fixture
def batch():
    return [{"image": torch.zeros(3, HEIGHT, WIDTH), "file_name": "a.jpg"}]


def test_flops(batch):
    multiply_adds = 3 * CHANNELS * HEIGHT * WIDTH
    assert FlopCountAnalysis(Detector().eval(), batch).by_module()["model.conv"] == multiply_adds
    model = Detector()
    assert flop_count_operators(model, batch) == {"conv": multiply_adds / 1e9}
    assert model.training


def test_activations(batch):
    count = CHANNELS * HEIGHT * WIDTH
    assert activation_count_operators(Detector(), batch) == {"conv": count / 1e6}


def test_unused_parameters(batch):
    model = Detector()
    assert find_unused_parameters(model, batch) == ["unused.weight", "unused.bias"]
    assert model.conv.weight.grad is None
    with pytest.raises(AssertionError, match="training mode"):
        find_unused_parameters(model.eval(), batch)


def test_parameters():
    assert parameter_count(Detector())["conv"] == 3 * CHANNELS
