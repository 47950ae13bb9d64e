"""Initial weights."""

import subprocess
import sys

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.layers.weight_init import c2_msra_fill, c2_xavier_fill
from torch import nn


def test_msra():
    torch.manual_seed(0)
    conv = Conv2d(16, 64, 3)
    c2_msra_fill(conv)
    # Normal with the variance 2 / fan-out.
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert not conv.bias.any()


def test_xavier():
    torch.manual_seed(0)
    conv = Conv2d(16, 64, 3)
    c2_xavier_fill(conv)
    # Uniform with the variance 1 / fan-in, so up to sqrt(3 / fan-in).
    fan_in = 16 * 9
    assert conv.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.05)
    assert conv.weight.abs().max().item() <= (3 / fan_in) ** 0.5
    assert not conv.bias.any()


def test_without_bias_and_without_weight():
    conv = Conv2d(4, 4, 1, bias=False)
    c2_msra_fill(conv)
    c2_xavier_fill(conv)
    with pytest.raises((TypeError, AttributeError)):
        c2_msra_fill(nn.ReLU())


def test_importing_the_package_warns_of_nothing():
    code = "import detectron2.config, detectron2.structures, detectron2.layers, detectron2.modeling"
    command = [sys.executable, "-W", "error::FutureWarning", "-c", code]
    subprocess.run(command, check=True)
